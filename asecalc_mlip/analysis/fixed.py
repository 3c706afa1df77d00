"""Which atoms of a structure are fixed, as ASE's constraints say it."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

__all__ = ["fixed_atoms"]


def fixed_atoms(atoms: Atoms) -> tuple[np.ndarray, list[str]]:
    """Return which atoms are fixed, (n,) bool, and the names of constraints that are something else.

    Files fix atoms by `FixAtoms`, or by `FixCartesian` in all three directions; the latter also stands for atoms that
    are free, as in the columns `move_mask` of extended XYZ.
    """
    directions = np.zeros((len(atoms), 3), dtype=bool)
    others = []
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            directions[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            directions[constraint.index] |= constraint.mask
        else:
            others.append(type(constraint).__name__)
    fixed: np.ndarray = np.all(directions, axis=1)
    if (directions.any(axis=1) & ~fixed).any():
        others.append("FixCartesian in one or two directions")
    return fixed, list(dict.fromkeys(others))
