r"""How far a structure is from the data, by the nearest neighbours of its atoms, and the weight that follows.

For an atom i of element a and an element b, r_ib is the distance to the nearest b, at most the cutoff. The data have
these distances in a range [l_ab, u_ab]. The structure is

    x = max_{i, b} max(l_ab − r_ib, r_ib − u_ab, 0)

from the data: how much closer two atoms are than any in the data, or how much farther an atom is from the next b than
any atom in the data. An isolated dimer is far at every distance, as its atoms lack the other neighbours that the data
give them. The weight rises from 0 at x = 0 to 1 at the width w, smoothly: t²(3 − 2t) with t = x/w. So the labels of a
teacher say nothing where those of the data do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from asecalc_mlip.neighbors.lists import neighbor_list
from training.data.split import spread

__all__ = ["Nearest", "weight"]

# Frames that the ranges are taken from, spread evenly; and frames of each two elements, where these have fewer.
MOST, EACH = 1000, 100


class Nearest:
    """Ranges of the nearest neighbours of each element in some frames.

    Parameters
    ----------
    frames : sequence of Atoms
        The data.
    cutoff : float
        Å.
    """

    def __init__(self, frames: Sequence[Atoms], cutoff: float):
        self.cutoff = cutoff
        self.elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
        n = len(self.elements)
        self.low, self.high = np.full((n, n), np.inf), np.full((n, n), -np.inf)
        for atoms in _counted(frames):
            kinds, nearest = np.searchsorted(self.elements, atoms.numbers), self._nearest(atoms)
            np.minimum.at(self.low, kinds, nearest)
            np.maximum.at(self.high, kinds, nearest)

    def excess(self, atoms: Atoms) -> float:
        """Return how far a structure is from the data, Å; infinite with an element that they do not have."""
        if not set(atoms.numbers.tolist()) <= set(self.elements):
            return float("inf")
        kinds, nearest = np.searchsorted(self.elements, atoms.numbers), self._nearest(atoms)
        return float(np.max(np.maximum(self.low[kinds] - nearest, nearest - self.high[kinds]), initial=0.0))

    def _nearest(self, atoms: Atoms) -> np.ndarray:
        """Return the distance of each atom to the nearest one of each element, (N, elements) Å."""
        i, j, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff)
        vectors = atoms.positions[j] - atoms.positions[i]
        if shifts is not None:
            vectors = vectors + shifts @ np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
        nearest = np.full((len(atoms), len(self.elements)), self.cutoff)
        np.minimum.at(nearest, (i, np.searchsorted(self.elements, atoms.numbers[j])), np.linalg.norm(vectors, axis=1))
        return nearest


def weight(excess: float, width: float) -> float:
    """Return the weight of a structure that is `excess` Å from the data: 0 on them, 1 from `width` Å on."""
    t = min(1.0, max(0.0, excess / width))
    return t * t * (3.0 - 2.0 * t)


def _counted(frames: Sequence[Atoms]) -> list[Atoms]:
    """Return frames spread evenly, and those with two elements that few of these have together.

    Without them two atoms that are neighbours in a few frames alone would be far from the data.
    """
    places = set(spread(frames, MOST))
    found = Counter(pair for i in places for pair in _pairs(frames[i]))
    for i, atoms in enumerate(frames):
        if i not in places and any(found[pair] < EACH for pair in _pairs(atoms)):
            places.add(i)
            found.update(_pairs(atoms))
    return [frames[i] for i in sorted(places)]


def _pairs(atoms: Atoms) -> list[tuple[int, int]]:
    return list(combinations_with_replacement(np.unique(atoms.numbers).tolist(), 2))
