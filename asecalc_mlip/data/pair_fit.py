"""A pair potential with an embedding term, fitted to forces alone, which energies and stresses must agree with.

E = Σ_pairs φ_ab(r) + Σ_atoms F_a(ρ), linear in its coefficients, so that one least-squares solve fits it. Half of the
frames are predicted by the fit to the other half. It describes no bond angles; correlations of forces are 0.75 to 0.99
for real sets of one kind of matter, and the slope of energies against its own is 0.55 to 1.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.neighbors.pairs import vectors_within

__all__ = ["PairFit", "exchanged_axes", "fit_pairs"]

MOST_PAIRS, MOST_FRAMES, LEAST_FRAMES = 300_000, 300, 16
# Of a pair function, in sums of covalent radii; Å at most; powers of the density.
BUMPS, INNER, OUTER, REACH, POWERS = 14, 0.5, 2.6, 6.0, (0.5, 1.5, 2.0)
MOST_KINDS = 15  # of pairs of elements; a set of more is too rich for this
RIDGE, LEAST_SCALE = 1e-4, 1e-3
BETTER = 0.3  # of a correlation; real sets: 0.9 as they are, below 0.35 with exchanged axes
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class PairFit:
    """Predictions of the fit, for frames that it has not seen.

    Attributes
    ----------
    places : (n,) array
        Which frames of the set.
    half : (n,) array
        0 or 1; energies of one half have one constant.
    forces : float
        Correlation of predicted forces with the labels, limited to eight times the typical one.
    energies : (n,) array
        eV, up to a constant of each composition.
    stresses : (n, 6) array
        eV/Å³, Voigt order; NaN where there is no full cell.
    composition : (n, k) array
        Number of atoms of each element.
    """

    places: np.ndarray
    half: np.ndarray
    forces: float
    energies: np.ndarray
    stresses: np.ndarray
    composition: np.ndarray


def fit_pairs(frames: Sequence[Atoms]) -> PairFit | None:
    """Fit some frames of a set; None where there are too few, or too many kinds of pairs."""
    places = _some(frames)
    chosen = [frames[i] for i in places]
    elements = sorted({int(z) for atoms in chosen for z in atoms.numbers})
    if len(chosen) < LEAST_FRAMES or len(elements) * (len(elements) + 1) // 2 > MOST_KINDS:
        return None
    features = _Features(chosen, elements)
    forces = np.concatenate([atoms.arrays["forces"] for atoms in chosen])
    half = np.arange(len(chosen)) % 2
    energies, stresses, predicted = np.zeros(len(chosen)), np.zeros((len(chosen), 6)), np.zeros_like(forces)
    for h in (0, 1):
        seen = half[features.frame] != h
        solution = _solve(features.forces[seen].reshape(-1, features.size), forces[seen].reshape(-1))
        energies[half == h] = features.energies[half == h] @ solution
        stresses[half == h] = features.virials[half == h] @ solution
        predicted[~seen] = features.forces[~seen] @ solution
    volumes = np.array([atoms.get_volume() if atoms.pbc.all() else np.nan for atoms in chosen])
    return PairFit(
        places, half, _correlation(predicted, forces), energies, stresses / volumes[:, None], features.composition
    )


def exchanged_axes(frames: Sequence[Atoms]) -> tuple[int, ...] | None:
    """Return the order of the axes in which forces follow the structures far better than as they are, if there is one.

    The forces of unseen frames are predicted for each order; their correlation with the labels is what counts.
    """
    places = _some(frames)
    chosen = [frames[i] for i in places]
    elements = sorted({int(z) for atoms in chosen for z in atoms.numbers})
    if len(chosen) < LEAST_FRAMES or len(elements) * (len(elements) + 1) // 2 > MOST_KINDS:
        return None
    features, half = _Features(chosen, elements), np.arange(len(chosen)) % 2
    forces = np.concatenate([atoms.arrays["forces"] for atoms in chosen])
    found = {}
    for axes in permutations(range(3)):
        turned, predicted = forces[:, axes], np.zeros_like(forces)
        for h in (0, 1):
            seen = half[features.frame] != h
            solution = _solve(features.forces[seen].reshape(-1, features.size), turned[seen].reshape(-1))
            predicted[~seen] = features.forces[~seen] @ solution
        found[axes] = _correlation(predicted, turned)
    best = max(found, key=found.__getitem__)
    return best if found[best] > found[0, 1, 2] + BETTER else None


def _some(frames: Sequence[Atoms]) -> np.ndarray:
    """Places of frames, at random, until their pairs are enough."""
    usable = [i for i, a in enumerate(frames) if len(a) > 1 and "forces" in a.arrays and _good(a)]
    order = np.random.default_rng(0).permutation(usable)[:MOST_FRAMES]
    taken, pairs = 0, 0.0
    for i in order:
        taken, pairs = taken + 1, pairs + _expected_pairs(frames[i])
        if pairs > MOST_PAIRS and taken >= LEAST_FRAMES:
            break
    return np.sort(order[:taken]).astype(int)


def _good(atoms: Atoms) -> bool:
    return bool(np.isfinite(atoms.positions).all() and np.isfinite(atoms.arrays["forces"]).all())


def _expected_pairs(atoms: Atoms) -> float:
    if not atoms.pbc.all():
        return len(atoms) * min(len(atoms) - 1, 60)
    reach = min(2 * OUTER * float(covalent_radii[atoms.numbers].max()), REACH)
    return len(atoms) ** 2 * 4.19 * reach**3 / max(atoms.get_volume(), 1.0)


class _Features:
    """Derivatives of energies, forces and virials with respect to the coefficients."""

    def __init__(self, frames: Sequence[Atoms], elements: Sequence[int]):
        self.n = len(frames)
        numbers = np.concatenate([atoms.numbers for atoms in frames])
        self.frame = np.repeat(np.arange(self.n), [len(atoms) for atoms in frames])
        index = np.searchsorted(elements, numbers)
        self.composition = np.zeros((self.n, len(elements)))
        np.add.at(self.composition, (self.frame, index), 1.0)
        self._pairs(frames, numbers)
        self._columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._pair_functions(index)
        self._densities(index, len(elements))
        self.energies = np.stack([column[0] for column in self._columns], axis=-1)
        self.forces = np.stack([column[1] for column in self._columns], axis=-1)
        self.virials = np.stack([column[2] for column in self._columns], axis=-1)
        self.size = len(self._columns)

    def _pairs(self, frames: Sequence[Atoms], numbers: np.ndarray) -> None:
        lists, start = [], 0
        for atoms in frames:
            reach = min(2 * OUTER * float(covalent_radii[atoms.numbers].max()), REACH)
            i, j, vectors = vectors_within(atoms, reach)
            lists.append((i + start, j + start, vectors))
            start += len(atoms)
        i, j, vectors = (np.concatenate(parts) for parts in zip(*lists, strict=True))
        d = np.linalg.norm(vectors, axis=1)
        radii = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
        near = (d < OUTER * radii) & (d > 1e-6)
        self.i, self.j, self.vectors, self.radii = i[near], j[near], vectors[near], radii[near]
        self.x = d[near] / self.radii
        self.units = self.vectors / d[near][:, None]

    def _add(self, energies: np.ndarray, slopes: np.ndarray, some: np.ndarray | slice) -> None:
        """Add a column: energies of the frames, and dE/dr of these directed pairs, eV/Å per coefficient."""
        i, units, vectors = self.i[some], self.units[some], self.vectors[some]
        forces = [np.bincount(i, slopes * units[:, c], minlength=len(self.frame)) for c in range(3)]
        virials = [
            0.5 * np.bincount(self.frame[i], slopes * units[:, a] * vectors[:, b], minlength=self.n) for a, b in VOIGT
        ]
        self._columns.append((energies, np.stack(forces, axis=-1), np.stack(virials, axis=-1)))

    def _pair_functions(self, index: np.ndarray) -> None:
        """Smooth bumps of width 2w along the scaled distance, for each pair of elements."""
        low, high = np.minimum(index[self.i], index[self.j]), np.maximum(index[self.i], index[self.j])
        kinds = low * (index.max() + 1) + high
        centres = np.linspace(INNER, OUTER, BUMPS + 2)[1:-1]
        width = 2 * (centres[1] - centres[0])
        for kind in np.unique(kinds):
            for centre in centres:
                some = np.flatnonzero((kinds == kind) & (np.abs(self.x - centre) < width))
                t = (self.x[some] - centre) / width
                energies = 0.5 * np.bincount(self.frame[self.i[some]], (1 - t**2) ** 3, minlength=self.n)
                self._add(energies, -6 * t * (1 - t**2) ** 2 / (width * self.radii[some]), some)

    def _densities(self, index: np.ndarray, n_elements: int) -> None:
        """Powers of a density that falls off with the scaled distance, for each element."""
        fall, rest = np.exp(-3 * (self.x - 1)), 1 - self.x / OUTER
        slope = -fall * rest * (3 * rest + 2 / OUTER) / self.radii
        density = np.bincount(self.i, fall * rest**2, minlength=len(index)) + 1e-6
        for power in POWERS:
            for element in range(n_elements):
                value = np.where(index == element, density**power, 0.0)
                rise = np.where(index == element, power * density ** (power - 1), 0.0)
                energies = np.bincount(self.frame, value, minlength=self.n)
                self._add(energies, (rise[self.i] + rise[self.j]) * slope, slice(None))


def _solve(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    normal = rows.T @ rows
    # Columns that hardly act on any atom, as by symmetry, must not take part by rounding.
    scale = np.sqrt(np.diag(normal))
    scale = np.maximum(scale, LEAST_SCALE * scale.max(initial=1e-12))
    normal = normal / scale / scale[:, None]
    normal[np.diag_indices(len(normal))] += RIDGE
    return np.linalg.solve(normal, rows.T @ values / scale) / scale


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    limit = 8 * float(np.median(np.abs(b)))
    a, b = np.clip(a, -limit, limit).ravel(), np.clip(b, -limit, limit).ravel()
    return float(a @ b / np.sqrt(max((a @ a) * (b @ b), 1e-300)))
