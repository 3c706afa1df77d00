r"""Few frames that differ: farthest points in the atomic features of the model.

    d(S | known) = max_{i ∈ S}  min_{j ∈ known, Z_j = Z_i}  |f_i − f_j| / s(Z_i)

f is what the last block of the model says of an atom, s the root mean square distance of known atoms of the element
from their mean. The frame with the largest d is taken, becomes known, and so on; a frame whose every atom is near a
known one adds nothing and is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from scipy.spatial.distance import cdist

from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.models import Potential, parts_of
from asecalc_mlip.neighbors.pairs import pairs_within

__all__ = ["atomic_features", "farthest"]

COPY = 0.02
"""Distance below which a frame is a copy of known ones."""
WIDTHS = np.linspace(0.8, 5.0, 12)  # Å, centres of the radial functions
CHUNK = 32
PIECE = 2**22  # distances at once: those of all atoms of large cells would fill the memory


def atomic_features(potential: Potential, frames: Sequence[Atoms]) -> list[np.ndarray]:
    """Return the features of the atoms of each frame, (N, F).

    Those of the model's last block; of an architecture that has no such output, sums of Gaussians over the distances
    to the neighbours of each element.
    """
    learner = parts_of(potential)[0]
    if not hasattr(learner.network, "energies_and_vectors"):
        return [_radial(atoms, potential.elements) for atoms in frames]
    found: list[np.ndarray] = []
    for k in range(0, len(frames), CHUNK):
        part = frames[k : k + CHUNK]
        graph = batch_graphs([graph_from_atoms(atoms, learner.cutoff) for atoms in part])
        with torch.no_grad():
            scalars = potential.energies_and_vectors(graph)[2]
        found += np.split(scalars.double().cpu().numpy(), np.cumsum([len(atoms) for atoms in part])[:-1])
    return found


def farthest(
    features: Sequence[np.ndarray],
    numbers: Sequence[np.ndarray],
    known: Sequence[np.ndarray],
    known_numbers: Sequence[np.ndarray],
    most: int,
) -> list[tuple[int, float]]:
    """Choose frames that differ from known ones and from each other.

    Parameters
    ----------
    features, numbers : sequence of (N, F) and (N,) arrays
        Of the candidates.
    known, known_numbers : sequence of (N, F) and (N,) arrays
        Of the frames that have labels, or were refused by the labeller.
    most : int
        Frames at most.

    Returns
    -------
    list of (int, float)
        Index of each frame, and its distance from all that were known before it.
    """
    elements = sorted({int(z) for array in [*numbers, *known_numbers] for z in array})
    tables = [_Nearest(z, features, numbers, known, known_numbers) for z in elements]
    taken: list[tuple[int, float]] = []
    while len(taken) < min(most, len(features)):
        distances = np.max([table.by_frame for table in tables], axis=0)
        distances[[k for k, _ in taken]] = -1.0
        best = int(distances.argmax())
        if distances[best] < COPY:
            break
        taken.append((best, float(distances[best])))
        for table in tables:
            table.add(best)
    return taken


class _Nearest:
    """Distances of the atoms of one element to the nearest known atom."""

    def __init__(self, z: int, features: Any, numbers: Any, known: Any, known_numbers: Any):
        self.owner = np.concatenate([np.full((n == z).sum(), k) for k, n in enumerate(numbers)])
        self.atoms = np.concatenate([f[n == z] for f, n in zip(features, numbers, strict=True)])
        old = [f[n == z] for f, n in zip(known, known_numbers, strict=True)]
        old_atoms = np.concatenate(old) if old else self.atoms[:0]
        basis = old_atoms if len(old_atoms) > 1 else self.atoms
        centred = basis - basis.mean(axis=0) if len(basis) else basis
        self.scale = float(np.sqrt((centred**2).sum(axis=1).mean())) if len(basis) else 1.0
        self.scale = self.scale or 1.0
        self.n_frames = len(features)
        self.nearest = np.full(len(self.atoms), np.inf)
        self._closer(old_atoms)

    @property
    def by_frame(self) -> np.ndarray:
        """Largest of the distances in each frame."""
        found = np.zeros(self.n_frames)
        np.maximum.at(found, self.owner, np.minimum(self.nearest / self.scale, 1e6))
        return found

    def add(self, frame: int) -> None:
        """Make a frame known."""
        self._closer(self.atoms[self.owner == frame])

    def _closer(self, others: np.ndarray) -> None:
        rows = max(1, PIECE // max(1, len(others)))
        for k in range(0, len(self.atoms) if len(others) else 0, rows):
            near = cdist(self.atoms[k : k + rows], others).min(axis=1)
            self.nearest[k : k + rows] = np.minimum(self.nearest[k : k + rows], near)


def _radial(atoms: Atoms, elements: Sequence[int]) -> np.ndarray:
    i, j, d = pairs_within(atoms, float(WIDTHS[-1]) + 1.0)
    values = np.exp(-4.0 * (d[:, None] - WIDTHS) ** 2)
    found = np.zeros((len(atoms), len(elements), len(WIDTHS)))
    np.add.at(found, (i, np.searchsorted(elements, atoms.numbers[j])), values)
    return found.reshape(len(atoms), -1)
