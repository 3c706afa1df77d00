"""What a structure must be for a probe: a crystal where that is asked for, and without what would hold its atoms."""

from __future__ import annotations

import warnings

import numpy as np
from ase import Atoms

from asecalc_mlip.errors import InputError

__all__ = ["check_atoms", "check_crystal", "free_copy"]


def check_atoms(atoms: Atoms, need: str) -> None:
    """Raise InputError for a structure without atoms; `need` begins the message, such as "vibrations need"."""
    if len(atoms) == 0:
        raise InputError(f"{need} atoms; the structure has none")


def check_crystal(atoms: Atoms, need: str) -> None:
    """Refuse what is no crystal; `need` begins the message, such as "phonons need".

    Raises
    ------
    InputError
        For no atoms, open directions, and a cell whose vectors do not span the space.
    """
    if len(atoms) == 0:
        raise InputError(f"{need} a crystal; the structure has no atoms")
    if not atoms.pbc.all():
        raise InputError(f"{need} a crystal; pbc is {atoms.pbc.tolist()}")
    if np.linalg.matrix_rank(atoms.cell.array) < 3:
        raise InputError(f"{need} a crystal; the cell is {atoms.cell.array.tolist()} Å, which has no volume: set it")


def free_copy(atoms: Atoms, what: str) -> Atoms:
    """Copy a structure without its constraints; where it had any, a warning says that `what` is that of free atoms."""
    copy = atoms.copy()
    if copy.constraints:
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in copy.constraints}))
        warnings.warn(f"{what}: the constraints of the structure ({kinds}) are left out", stacklevel=3)
        copy.set_constraint()
    return copy
