"""Bonds of a reference geometry, and their lengths in other frames, also through the faces of a periodic box."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.neighborlist import natural_cutoffs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from asecalc_mlip.neighbors.pairs import pairs_within

__all__ = [
    "BOND_MARGIN",
    "THRESHOLD",
    "bond_lengths",
    "bond_limits",
    "find_bonds",
    "holds_molecules",
    "is_boxed_molecule",
    "whole",
]

BOND_MARGIN = 0.6  # Å, added to the sum of the covalent radii
THRESHOLD = 0.5  # Å, by which the length of a bond may differ from its mean


def find_bonds(atoms: Atoms, margin: float = BOND_MARGIN) -> np.ndarray:
    """Find the pairs i < j closer than R_cov,i + R_cov,j + margin, in a periodic box by their nearest images.

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
    pairs, _ = _bonded_images(atoms, margin)
    return np.unique(pairs, axis=0)


def bond_limits(atoms: Atoms, pairs: np.ndarray, margin: float = BOND_MARGIN) -> np.ndarray:
    """Return the largest distance in Å at which each of `pairs` (n_pairs, 2) counts as bonded, shape (n_pairs,)."""
    radii = np.array(natural_cutoffs(atoms, mult=1))
    return radii[pairs[:, 0]] + radii[pairs[:, 1]] + margin


def bond_lengths(positions: np.ndarray, bonds: np.ndarray, box: Atoms | None = None) -> np.ndarray:
    """Measure the lengths in Å of `bonds` (n_bonds, 2) in one frame (n_atoms, 3) or many (n_frames, n_atoms, 3).

    Parameters
    ----------
    positions, bonds : arrays
    box : Atoms, optional
        Its cell and periodicity give the nearest image of each neighbour; for one frame only. None: no images.

    Returns
    -------
    Array of shape (n_bonds,) or (n_frames, n_bonds).
    """
    vectors = positions[..., bonds[:, 0], :] - positions[..., bonds[:, 1], :]
    if box is not None and _has_images(box):
        return _nearest(vectors, box)[1]
    return np.linalg.norm(vectors, axis=-1)


def is_boxed_molecule(atoms: Atoms) -> bool:
    """Return whether a periodic structure is one molecule: all atoms bonded to each other, and none to an image.

    A crystal or a slab is none, because its bonds run through the cell without an end; nor are several molecules.
    """
    if not holds_molecules(atoms):
        return False
    order, _ = next(_trees(len(atoms), find_bonds(atoms)))
    return len(order) == len(atoms)


def holds_molecules(atoms: Atoms) -> bool:
    """Return whether a periodic structure is one molecule or several, each of at least two atoms, and nothing else."""
    if not _has_images(atoms) or len(atoms) < 2:
        return False
    pairs, lengths = _bonded_images(atoms, BOND_MARGIN)
    bonds = np.unique(pairs, axis=0)
    if len(bonds) != len(pairs) or (bonds[:, 0] == bonds[:, 1]).any() or not np.isfinite(lengths).all():
        return False  # bonded twice, to two images, or to an image of its own
    if len(np.unique(bonds)) < len(atoms):
        return False
    found = whole(atoms.positions, bonds, atoms)
    # A ring of bonds that does not close runs through the cell.
    return bool(np.allclose(bond_lengths(found, bonds), lengths[np.lexsort(pairs.T[::-1])], atol=1e-6))


def whole(positions: np.ndarray, bonds: np.ndarray, box: Atoms) -> np.ndarray:
    """Put the atoms of molecules that a periodic box has cut together again.

    Parameters
    ----------
    positions : (n_atoms, 3) array
        Å.
    bonds : (n_bonds, 2) array of int
        What they do not reach stays where it is.
    box : Atoms
        Its cell and periodicity count.

    Returns
    -------
    (n_atoms, 3) array, Å: positions without jumps by lattice vectors; the first atom of each molecule stays.
    """
    if not _has_images(box) or len(bonds) == 0:
        return positions
    found = positions.copy()
    for order, parents in _trees(len(positions), bonds):
        children = order[1:]
        steps = _nearest(positions[children] - positions[parents[children]], box)[0]
        for child, step in zip(children, steps, strict=True):
            found[child] = found[parents[child]] + step
    return found


def _bonded_images(atoms: Atoms, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Bonded pairs (n, 2) with i ≤ j, each image by itself, and their lengths in Å."""
    radii = np.array(natural_cutoffs(atoms, mult=1))
    if not _has_images(atoms):
        atoms = Atoms(atoms.numbers, atoms.positions)
    i, j, d = pairs_within(atoms, 2.0 * float(radii.max(initial=0.0)) + margin)
    keep = (d < radii[i] + radii[j] + margin) & (i <= j)
    pairs = np.array([i[keep], j[keep]]).T.astype(np.int64).reshape(-1, 2)
    return pairs, d[keep]


def _has_images(atoms: Atoms) -> bool:
    """Whether a structure is periodic, by vectors that span its directions."""
    vectors = atoms.cell.array[atoms.pbc]
    return len(vectors) > 0 and bool(np.linalg.matrix_rank(vectors) == len(vectors))


def _trees(n_atoms: int, bonds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each molecule: atoms in the order in which bonds reach them, and the atom from which each is reached."""
    graph = coo_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n_atoms, n_atoms)).tocsr()
    _, labels = connected_components(graph, directed=False)
    for first in np.unique(labels, return_index=True)[1]:
        yield breadth_first_order(graph, int(first), directed=False)


def _nearest(vectors: np.ndarray, box: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 3) to the nearest images, and their lengths."""
    if len(vectors) == 0:
        return vectors, np.zeros(0)
    return find_mic(vectors, box.cell.complete(), box.pbc)
