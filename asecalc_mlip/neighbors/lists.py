"""Neighbour lists by vesin, in a fixed order: (centre, neighbour, shift) depends on the structure alone."""

from __future__ import annotations

import numpy as np
import vesin

from asecalc_mlip.errors import InputError

__all__ = ["check_structure", "compact_list", "complete_box", "neighbor_list"]

# Float64 has 1e-8 Å left at this distance from the origin; beyond, forces are noise.
FARTHEST = 1e8
# A cell whose images within the cutoff are more than this has an atom within 0.1 Å of its own image.
MOST_IMAGES = 1e5
# Extents beyond this many cutoffs are shortened before vesin sees them: its boxes do not end well there.
LONG = 100.0
# Boxes of one cutoff for each atom, beyond which gaps are shortened too: vesin looks at all boxes
EMPTY = 10.0
# Up to so many atoms without a periodic direction, all distances are found in less time than boxes.
FEW = 40


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Find all directed pairs shorter than `cutoff`, periodic images included, sorted by centre, neighbour and shift.

    Parameters
    ----------
    positions : (N, 3)
        Å; atoms may lie outside the cell.
    cell : (3, 3)
        Rows are lattice vectors in Å; rows of directions that are not periodic are not used.
    pbc : (3,) bool
    cutoff : float
        Å; may exceed the cell.

    Returns
    -------
    centers, neighbors : (E,) int64
    shifts : (E, 3) float64 or None
        Lattice vectors to add to the neighbour; None when no direction is periodic.

    Raises
    ------
    InputError
        For an empty structure, positions or cell that are not finite or out of all proportion, or periodic directions
        that span no volume.
    """
    centers, neighbors, shifts = compact_list(positions, cell, pbc, cutoff)
    return centers, neighbors, None if shifts is None else shifts.astype(np.float64)


def compact_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Do as `neighbor_list`, with shifts in the smallest integers that hold them, mostly int8."""
    positions, pbc = np.ascontiguousarray(positions, dtype=np.float64), np.asarray(pbc, dtype=bool)
    box = check_structure(positions, cell, pbc, cutoff)
    if len(positions) <= FEW and not pbc.any():
        return *_by_all_distances(positions, cutoff), None
    points, box, jumps = _compact(positions, box, pbc, cutoff)
    # Each pair once and without copies, as these lists are most of the memory that is taken here.
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=False, n_threads=1)
    i, j, shifts = calculator.compute(
        points=points, box=box if pbc.any() else np.zeros((3, 3)), periodic=pbc, quantities="ijS", copy=False
    )
    i, j = i.view(np.int64), j.view(np.int64)
    if jumps is not None:
        shifts = shifts + (jumps[i] - jumps[j])
    span = 2 * int(max(shifts.max(), -shifts.min())) + 1 if len(i) else 1
    if len(positions) ** 2 * span**3 >= 2**63:
        i, j, shifts = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([shifts, -shifts])
        order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], j, i))
        i, j, shifts = i[order], j[order], shifts[order]
    else:
        key = np.empty((2, len(i)), dtype=np.int64)
        _fill_key(key[0], i, j, shifts, 1, span, len(positions))
        _fill_key(key[1], j, i, shifts, -1, span, len(positions))
        del i, j, shifts, calculator
        i, j, shifts = _from_key(key.reshape(-1), span, len(positions))
    return i, j, shifts.astype(np.min_scalar_type(-span), copy=False) if pbc.any() else None


def check_structure(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> np.ndarray:
    """Return the completed cell of a structure that has a neighbour list; arguments and errors of `neighbor_list`."""
    box = _checked_box(positions, np.asarray(cell, dtype=np.float64), pbc)
    if pbc.any():
        _check_images(box, pbc, cutoff)
    return box


def _checked_box(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    if len(positions) == 0:
        raise InputError("the structure has no atoms; an energy needs at least one")
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise InputError(
            f"the positions of atoms {bad[:10].tolist()} are not finite (NaN or inf); look at the step that made them, "
            "often a time step that is too long or a start structure with overlapping atoms"
        )
    if not np.isfinite(cell).all():
        raise InputError(f"the cell is not finite: {cell.tolist()}")
    far = np.flatnonzero((np.abs(positions) > FARTHEST).any(axis=1))
    if len(far):
        raise InputError(
            f"atoms {far[:10].tolist()} are more than {FARTHEST:g} Å from the origin; a run that exploded, or "
            "positions in another unit"
        )
    if not pbc.any():
        return np.eye(3)
    box = complete_box(cell, pbc)
    if abs(np.linalg.det(box)) < 1e-6 * np.prod(np.linalg.norm(box, axis=1)) or not _pbc_spanned(cell, pbc):
        raise InputError(
            f"pbc is {pbc.tolist()}, but the cell {np.round(cell, 6).tolist()} has no volume in those directions; "
            "set the cell, or pbc=False"
        )
    return box


def _pbc_spanned(cell: np.ndarray, pbc: np.ndarray) -> bool:
    """Whether every periodic direction has a lattice vector and these are linearly independent."""
    lattice = cell[pbc]
    return bool(np.linalg.matrix_rank(lattice, tol=1e-6) == len(lattice))


def complete_box(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Complete the cell by unit vectors normal to the others where it is not periodic, so that it can be inverted."""
    box = np.where(pbc[:, None], cell, 0.0)
    missing = np.flatnonzero(~pbc)
    if len(missing):
        _, _, basis = np.linalg.svd(box[pbc].reshape(-1, 3))
        box[missing] = basis[pbc.sum() :]
    return box


def _check_images(box: np.ndarray, pbc: np.ndarray, cutoff: float) -> None:
    """Refuse cells so small that their images alone would fill the memory."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    if np.prod(2.0 * cutoff / heights[pbc] + 1.0) > MOST_IMAGES:
        raise InputError(
            f"the cell {np.round(box, 6).tolist()} is only {heights[pbc].min():.3g} Å thick, so atoms overlap with "
            "their own images; is it in another unit, or scaled?"
        )


def _by_all_distances(positions: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a structure that is not periodic, sorted."""
    vectors = positions[None] - positions[:, None]
    near = np.einsum("ijk,ijk->ij", vectors, vectors) < cutoff**2
    np.fill_diagonal(near, False)
    centers, neighbors = np.nonzero(near)
    # Kernels read them from memory, one after another; these are columns of one array.
    return centers.copy(), neighbors.copy()


def _compact(
    positions: np.ndarray, box: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Positions and box with the same neighbours and no gap longer than two cutoffs, for structures of huge extent.

    vesin divides space into boxes and slows down, or ends the process, when one atom is far away. Along each lattice
    direction atoms move only together with all that are within reach, so the pairs stay what they are.

    Returns
    -------
    points (N, 3), box (3, 3), jumps (N, 3) int64 or None
        The lattice vectors by which each atom was wrapped.
    """
    inverse = np.linalg.inv(box)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    fractions = positions @ inverse
    extents = np.maximum(np.ptp(fractions, axis=0), pbc) * heights
    boxes = np.prod(np.maximum(extents / cutoff, 1.0))
    if extents.max() <= LONG * cutoff and boxes <= EMPTY * len(positions):
        return positions, box, None
    jumps = np.floor(fractions) * pbc
    fractions -= jumps
    compact = box.copy()
    for axis in range(3):
        order = np.argsort(fractions[:, axis], kind="stable")
        heights_sorted = fractions[order, axis] * heights[axis]
        gaps = np.diff(heights_sorted)
        removed = np.concatenate([[0.0], np.cumsum(np.maximum(gaps - 2 * cutoff, 0.0))])
        fractions[order, axis] = (heights_sorted - heights_sorted[0] - removed) / heights[axis]
        if pbc[axis]:
            last = heights[axis] - (heights_sorted[-1] - heights_sorted[0])
            length = heights[axis] - removed[-1] - max(last - 2 * cutoff, 0.0)
            fractions[:, axis] *= heights[axis] / length
            compact[axis] *= length / heights[axis]
    return np.ascontiguousarray(fractions @ compact), compact, jumps.astype(np.int64)


def _fill_key(
    key: np.ndarray, i: np.ndarray, j: np.ndarray, shifts: np.ndarray, sign: int, span: int, n_atoms: int
) -> None:
    """Write one number for each pair, in the order of the list; shifts times `sign` have `span` values."""
    np.multiply(i, n_atoms, out=key)
    key += j
    for axis in range(3):
        key *= span
        key += span // 2
        key += sign * shifts[:, axis]


def _from_key(key: np.ndarray, span: int, n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs and shifts, in their order, of the numbers that `_fill_key` made, which are used up."""
    key.sort()
    shifts = np.empty((len(key), 3), dtype=np.min_scalar_type(-span))
    for axis in (2, 1, 0):
        rest = key % span
        rest -= span // 2
        shifts[:, axis] = rest
        key //= span
    j = key % n_atoms
    key //= n_atoms
    return key, j, shifts
