"""Structures without what would hold their atoms."""

from __future__ import annotations

import warnings

from ase import Atoms

__all__ = ["free_copy"]


def free_copy(atoms: Atoms, what: str) -> Atoms:
    """Copy a structure without its constraints; where it had any, a warning says that `what` is that of free atoms."""
    copy = atoms.copy()
    if copy.constraints:
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in copy.constraints}))
        warnings.warn(f"{what}: the constraints of the structure ({kinds}) are left out", stacklevel=3)
        copy.set_constraint()
    return copy
