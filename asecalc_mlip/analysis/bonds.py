"""Bonds of a reference geometry, and their lengths in other frames."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs

BOND_MARGIN = 0.6  # Å, added to the sum of the covalent radii


def find_bonds(atoms: Atoms, margin: float = BOND_MARGIN) -> np.ndarray:
    """Find the pairs i < j closer than R_cov,i + R_cov,j + margin, without periodic images.

    Parameters
    ----------
    atoms : Atoms
        A molecule.
    margin : float
        Å; 0.6 Å as in Fu et al., TMLR 2023 (ASE `natural_cutoffs` and its 0.3 Å skin for each atom).

    Returns
    -------
    (n_bonds, 2) integer array, sorted; shape (0, 2) when there is none.
    """
    pairs = np.array(np.triu_indices(len(atoms), 1)).T.astype(np.int64)
    return pairs[bond_lengths(atoms.positions, pairs) < bond_limits(atoms, pairs, margin)]


def bond_limits(atoms: Atoms, pairs: np.ndarray, margin: float = BOND_MARGIN) -> np.ndarray:
    """Return the largest distance in Å at which each of `pairs` (n_pairs, 2) counts as bonded, shape (n_pairs,)."""
    radii = np.array(natural_cutoffs(atoms, mult=1))
    return radii[pairs[:, 0]] + radii[pairs[:, 1]] + margin


def bond_lengths(positions: np.ndarray, bonds: np.ndarray) -> np.ndarray:
    """Measure the lengths in Å of `bonds` (n_bonds, 2) in one frame (n_atoms, 3) or many (n_frames, n_atoms, 3).

    Returns an array of shape (n_bonds,) or (n_frames, n_bonds).
    """
    return np.linalg.norm(positions[..., bonds[:, 0], :] - positions[..., bonds[:, 1], :], axis=-1)
