"""Pairs of atoms within a radius, for what looks at structures: checks of data, analysis and the monitor of runs."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from asecalc_mlip.neighbors.lists import FARTHEST, neighbor_list

__all__ = ["pairs_within", "vectors_within"]


def pairs_within(atoms: Atoms, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find atoms i, j and their distances d in Å, all directed pairs (periodic images too) closer than `radius` Å.

    Raises
    ------
    InputError
        As `neighbor_list`, for a periodic structure.
    """
    i, j, vectors = vectors_within(atoms, radius)
    return i, j, np.linalg.norm(vectors, axis=1)


def vectors_within(atoms: Atoms, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs of `pairs_within` with the vectors from i to j, (n_pairs, 3) in Å, in place of the distances."""
    if atoms.pbc.any() and len(atoms):
        # A run that explodes takes atoms farther than a list goes; where there is an image of them, that counts.
        positions = atoms.get_positions(wrap=bool(np.abs(atoms.positions).max() > FARTHEST))
        i, j, shifts = neighbor_list(positions, atoms.cell.array, atoms.pbc, radius)
        return i, j, positions[j] - positions[i] + shifts @ atoms.cell.array
    # A tree needs no cell, and no boxes, so atoms flung far away cost no memory.
    pairs = cKDTree(atoms.positions).query_pairs(radius, output_type="ndarray")
    i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
    return i, j, atoms.positions[j] - atoms.positions[i]
