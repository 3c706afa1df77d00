"""Bonds of a molecule, and which atoms go along when one of them is moved."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

__all__ = ["bonds_of", "far_side", "in_ring"]

# Å beyond the sum of covalent radii up to which two atoms count as bonded.
TOLERANCE = 0.3


def bonds_of(atoms: Atoms) -> list[tuple[int, int]]:
    """Find the pairs i < j of atoms of a molecule that are no farther apart than their covalent radii and 0.3 Å."""
    radii = covalent_radii[atoms.numbers]
    near = atoms.get_all_distances() < radii[:, None] + radii[None, :] + TOLERANCE
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(near, 1))]


def far_side(atoms: Atoms, i: int, j: int) -> list[int]:
    """Find the atoms that hang on j and not on i, j among them.

    In a ring, where all hang on both, j and the atoms that are bonded to nothing else.
    """
    neighbours = _neighbours(atoms)
    reached = _reached(neighbours, i, j)
    if i in reached:
        reached = {j} | {n for n in neighbours[j] - {i} if len(neighbours[n]) == 1}
    return sorted(reached)


def in_ring(atoms: Atoms, i: int, j: int) -> bool:
    """Return whether i can be reached from j by other bonds than that between them."""
    return i in _reached(_neighbours(atoms), i, j)


def _neighbours(atoms: Atoms) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {n: set() for n in range(len(atoms))}
    for a, b in bonds_of(atoms):
        found[a].add(b)
        found[b].add(a)
    return found


def _reached(neighbours: dict[int, set[int]], i: int, j: int) -> set[int]:
    """Atoms that can be reached from j without the bond to i."""
    reached, pending = {j}, [j]
    while pending:
        here = pending.pop()
        for other in neighbours[here] - reached:
            if {here, other} != {i, j}:
                reached.add(other)
                pending.append(other)
    return reached
