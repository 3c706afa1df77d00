"""Structures of a set that are close to each other: copies, and neighbours whose labels can be compared.

Frames are comparable where they have the same atoms in the same order, and the same cell if they are periodic. Cells
may differ by a strain where both frames have a stress, whose work is counted too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from asecalc_mlip.data.sampling import evenly

__all__ = ["ClosePairs", "close_pairs", "near_copies"]

MOST_FRAMES = 600  # of one group, evenly spread, for pairs; all of them for copies
FAR = 0.5  # Å, rms displacement; over a longer way the trapezoid rule is no longer good
MOST_STRAIN = 0.06
COPY = 5e-4  # Å, the same; two time steps of dynamics are ten times further apart
SAME_CELL = 2  # decimals of Å


@dataclass(frozen=True)
class ClosePairs:
    """Neighbours among the frames of a set.

    Attributes
    ----------
    first, second : (n,) arrays
        Places of the frames in the set.
    moved : (n,) array
        Rms displacement of an atom between the two, Å.
    farthest : (n,) array
        Displacement of the atom that moves most, Å.
    sizes : (n,) array
        Number of atoms.
    energies : (n,) array
        Energy of the second less that of the first, eV.
    work : (n,) array
        What the forces say that this difference is, −½ (F₁ + F₂)·Δx, eV; NaN without forces.
    stress_work : (n,) array
        What the stresses say for the change of the cell, ½ V (σ₁ + σ₂):ε, eV; 0 in the same cell.
    stiffness : (n,) array
        −(F₂ − F₁)·Δx / Δx², the curvature along the way, eV/Å²; NaN without forces.
    """

    first: np.ndarray
    second: np.ndarray
    moved: np.ndarray
    farthest: np.ndarray
    sizes: np.ndarray
    energies: np.ndarray
    work: np.ndarray
    stress_work: np.ndarray
    stiffness: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def close_pairs(frames: Sequence[Atoms]) -> ClosePairs:
    """Pair frames that have an energy with their nearest neighbours, no copies, and compare their labels."""
    rows: list[tuple[float, ...]] = []
    for places in _comparable(frames, with_cell=True):
        places = [places[k] for k in evenly(len(places), MOST_FRAMES)]
        group = [frames[i] for i in places]
        for a, b in _nearest(_shapes(group)):
            rows.append((places[a], places[b], *_compare(group[a], group[b])))
    table = np.array(rows, dtype=float).reshape(-1, 9)
    table = table[(table[:, 2] > COPY) & (table[:, 2] < FAR)]
    first, second, *rest = table.T
    return ClosePairs(first.astype(int), second.astype(int), *rest)


def near_copies(frames: Sequence[Atoms]) -> list[tuple[int, int]]:
    """Return pairs of frames whose structures are the same to 5·10⁻⁴ Å, turned as a whole or not: (earlier, later).

    Each later frame comes once, with the first that it repeats.
    """
    found: dict[int, int] = {}
    for places in _comparable(frames, with_cell=False, energy=False):
        for a, b in _repeats(_chains([frames[i] for i in places])):
            found[places[b]] = places[a]
    return sorted(((i, j) for j, i in found.items()), key=lambda pair: pair[1])


def _comparable(frames: Sequence[Atoms], *, with_cell: bool, energy: bool = True) -> Iterator[list[int]]:
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, atoms in enumerate(frames):
        if len(atoms) > 1 and np.isfinite(atoms.positions).all() and (not energy or "energy" in atoms.info):
            strained = not with_cell or not atoms.pbc.any() or (atoms.pbc.all() and "stress" in atoms.info)
            cell = np.zeros(0) if strained else atoms.cell.array.round(SAME_CELL) + 0.0
            groups[atoms.numbers.tobytes(), atoms.pbc.tobytes(), cell.tobytes()].append(i)
    return (places for places in groups.values() if len(places) > 1)


def _shapes(group: Sequence[Atoms]) -> np.ndarray:
    """Numbers that are alike where structures are: all distances of a molecule, phases of atoms in a cell."""
    positions = np.array([atoms.positions for atoms in group])
    if group[0].pbc.any():
        cells = np.array([np.asarray(atoms.cell.complete()) for atoms in group])
        phases = 2 * np.pi * positions @ np.linalg.inv(cells)
        phases -= phases[:, :1]
        # A strain of 1 % counts as much as a phase of one atom that moves by 1 % of the cell.
        strains = 2 * np.pi * (np.linalg.inv(cells[0]) @ cells)
        return np.concatenate([np.sin(phases), np.cos(phases), strains], axis=1).reshape(len(group), -1)
    i, j = np.triu_indices(positions.shape[1], 1)
    if len(i) > 5000:
        i, j = i[:: len(i) // 5000], j[:: len(j) // 5000]
    return np.linalg.norm(positions[:, i] - positions[:, j], axis=2)


def _nearest(shapes: np.ndarray) -> list[tuple[int, int]]:
    shapes = shapes - shapes.mean(axis=0)
    squares = np.einsum("ij,ij->i", shapes, shapes)
    distances = squares[:, None] + squares - 2 * shapes @ shapes.T
    np.fill_diagonal(distances, np.inf)
    return sorted({(min(a, b), max(a, b)) for a, b in enumerate(distances.argmin(axis=1).tolist())})


def _compare(a: Atoms, b: Atoms) -> tuple[float, ...]:
    """Displacements, size, energies, works and stiffness of a pair."""
    moved, turn, strain = _displacement(a, b)
    energies = float(b.info["energy"] - a.info["energy"])
    square, most = float(np.sum(moved**2)), float(np.linalg.norm(moved, axis=1).max())
    far = np.inf if np.abs(strain).max() > MOST_STRAIN else np.sqrt(square / len(a) + np.sum(strain**2))
    if not ("forces" in a.arrays and "forces" in b.arrays) or square == 0:
        return far, most, len(a), energies, np.nan, 0.0, np.nan
    first, second = a.arrays["forces"], b.arrays["forces"] @ turn
    work = -0.5 * float(np.sum((first + second) * moved))
    stress_work = 0.0
    if strain.any():
        volume = 0.5 * (a.get_volume() + b.get_volume())
        stress_work = 0.5 * volume * float(np.sum((a.info["stress"] + b.info["stress"]) * strain))
    return far, most, len(a), energies, work, stress_work, -float(np.sum((second - first) * moved)) / square


def _displacement(a: Atoms, b: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the way of the atoms from a to b (n, 3), without what moves, turns or strains all; turn and strain."""
    if a.pbc.any():
        return _displacement_in_cell(a, b)
    start, end = a.positions - a.positions.mean(axis=0), b.positions - b.positions.mean(axis=0)
    left, _, right = np.linalg.svd(end.T @ start)  # Kabsch
    turn = left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right
    return end @ turn - start, turn, np.zeros((3, 3))


def _displacement_in_cell(a: Atoms, b: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    strain = _strain(a, b)
    first = np.asarray(a.cell.complete())
    second = np.asarray(b.cell.complete()) if strain.any() else first
    way = b.positions @ np.linalg.inv(second) - a.positions @ np.linalg.inv(first)
    moved = (way - np.round(way) * a.pbc) @ (0.5 * (first + second))
    return moved - moved.mean(axis=0), np.eye(3), strain


def _strain(a: Atoms, b: Atoms) -> np.ndarray:
    """Return the strain from a to b, (3, 3); 0 where a stress is missing, because such frames have the same cell."""
    if not (a.pbc.all() and "stress" in a.info and "stress" in b.info):
        return np.zeros((3, 3))
    change = np.linalg.inv(a.cell.array) @ b.cell.array - np.eye(3)
    return np.where(np.abs(change) < 1e-9, 0.0, 0.5 * (change + change.T))


def _chains(group: Sequence[Atoms]) -> np.ndarray:
    """Distances along the list of atoms and from their centre, of a molecule; positions and cell in a box, Å."""
    positions = np.array([atoms.positions for atoms in group])
    if group[0].pbc.any():
        cells = np.array([atoms.cell.array for atoms in group])
        return np.concatenate([positions, cells], axis=1).reshape(len(group), -1)
    n = positions.shape[1]
    ways = [positions[:, k:] - positions[:, :-k] for k in (1, 2, 3) if k < n]
    ways.append(positions - positions.mean(axis=1, keepdims=True))
    return np.concatenate([np.linalg.norm(way, axis=2) for way in ways], axis=1)


def _repeats(shapes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Give each row that is close to an earlier one, with the first of these: (earlier, later).

    Rows that were given are no longer looked for. The pairs among thousands of copies of one frame would be millions.
    """
    rough, reach = shapes @ _directions(shapes.shape[1]), COPY * np.sqrt(shapes.shape[1])
    # A projection is never longer than what it projects, so that no copy is lost.
    tree = cKDTree(rough)
    left = np.flatnonzero(np.isfinite(tree.query(rough, k=2, distance_upper_bound=reach)[0][:, 1]))
    seen, in_vain = np.zeros(len(shapes), dtype=bool), len(shapes)
    for a in left.tolist():
        if in_vain >= len(left):
            left = left[~seen[left] & (left >= a)]
            if not len(left):
                return
            tree, in_vain = cKDTree(rough[left]), 0
        near = left[tree.query_ball_point(rough[a], reach)]
        later = near[(near > a) & ~seen[near]]
        later = later[np.sqrt(np.mean((shapes[later] - shapes[a]) ** 2, axis=1)) < COPY]
        seen[later] = True
        yield from ((a, int(b)) for b in later)
        in_vain += len(near) - len(later)


def _directions(dimensions: int) -> np.ndarray:
    """Return a few directions at right angles, the same every time."""
    few = min(6, dimensions)
    return np.linalg.qr(np.random.default_rng(0).normal(size=(dimensions, few)))[0]
