"""Labelled structures as samples of SchNetPack, with our neighbour lists, and its batches as graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from ase import Atoms
from schnetpack import properties
from torch import Tensor
from torch.utils.data import Dataset

from asecalc_mlip.engine.memory import available_bytes
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.neighbors.lists import neighbor_list
from training.processes.ranks import PER_ATOM

__all__ = ["FRAME_WEIGHT", "ROWS", "FramesDataset", "graph_from_batch", "make_sample", "row_weights"]

SHIFTS = "_shifts"
FRAME_WEIGHT = "_frame_weight"
ROWS = "_rows"
MOST_KEPT = 0.3  # of the free memory, for the lists of neighbours of all frames


def graph_from_batch(batch: dict[str, Tensor], reach: float | None = None) -> AtomGraph:
    """Return the AtomGraph of a batch of SchNetPack's loader, whose lists hold all pairs shorter than `reach` (Å)."""
    periodic = bool(batch[properties.pbc].any())
    return AtomGraph(
        numbers=batch[properties.Z],
        positions=batch[properties.R].double(),
        batch=batch[properties.idx_m],
        centers=batch[properties.idx_i],
        neighbors=batch[properties.idx_j],
        cell=batch[properties.cell].double().view(-1, 3, 3),
        shifts=batch[SHIFTS] if periodic else None,
        reach=reach,
    )


def row_weights(batch: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return the factors on the loss of the rows of an output, its structures or atoms; None where frames have none."""
    weights = batch.get(FRAME_WEIGHT)
    return weights if weights is None or name not in PER_ATOM else weights.index_select(0, batch[properties.idx_m])


class FramesDataset(Dataset):
    """Frames as samples of SchNetPack, made when first asked for and kept while memory allows: a list is paid once.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        As `asecalc_mlip.data.readers.read_frames` returns them.
    labels : sequence of str
        Of "energy", "forces", "stress".
    cutoff : float
        Å; how far the neighbour lists reach.
    weights : sequence of float, optional
        Factor on the loss of each frame.
    more : callable, optional
        From place and frame to further entries of its sample, the same ones of every frame.
    """

    def __init__(
        self,
        frames: Sequence[Atoms],
        labels: Sequence[str],
        cutoff: float,
        weights: Sequence[float] | None = None,
        more: Callable[[int, Atoms], dict[str, Tensor]] | None = None,
    ):
        self._frames, self._labels, self._cutoff, self._weights, self._more = frames, labels, cutoff, weights, more
        self._samples: dict[int, dict[str, Tensor]] = {}
        self._room = MOST_KEPT * available_bytes("cpu")

    def __len__(self) -> int:
        return len(self._frames)

    def sizes(self, indices: Sequence[int]) -> list[int]:
        """Return the number of atoms of frames."""
        return [len(self._frames[i]) for i in indices]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index in self._samples:
            return self._samples[index]
        sample = make_sample(self._frames[index], index, self._labels, self._cutoff)
        if self._weights is not None:
            sample[FRAME_WEIGHT] = torch.tensor([self._weights[index]], dtype=torch.float64)
        if self._more is not None:
            sample |= self._more(index, self._frames[index])
        self._room -= sum(value.nbytes for value in sample.values())
        if self._room >= 0:
            self._samples[index] = sample
        return sample


def make_sample(atoms: Atoms, index: int, labels: Sequence[str], cutoff: float) -> dict[str, Tensor]:
    """Make SchNetPack's dictionary of a frame, with our neighbour list: all pairs shorter than `cutoff` (Å), by centre.

    Returns
    -------
    dict of Tensor
        `_idx`, `_n_atoms`, `_atomic_numbers`, `_positions` (Å), `_cell` (zero along open directions), `_pbc`, `_idx_i`,
        `_idx_j`, `_shifts`, and the labels in eV and Å, with `energy_per_atom` if there is an energy.
    """
    cell, pbc = np.array(atoms.cell.array), np.array(atoms.pbc)
    centers, neighbors, shifts = neighbor_list(atoms.positions, cell, pbc, cutoff)
    sample = {
        properties.idx: torch.tensor([index]),
        properties.n_atoms: torch.tensor([len(atoms)]),
        properties.Z: torch.tensor(atoms.numbers, dtype=torch.long),
        properties.R: torch.tensor(atoms.positions),
        properties.cell: torch.from_numpy(cell * pbc[:, None])[None],
        properties.pbc: torch.from_numpy(pbc),
        properties.idx_i: torch.from_numpy(centers),
        properties.idx_j: torch.from_numpy(neighbors),
        SHIFTS: torch.zeros(len(centers), 3).double() if shifts is None else torch.from_numpy(shifts),
    }
    if "energy" in labels:
        sample["energy"] = torch.tensor([atoms.info["energy"]], dtype=torch.float64)
        sample["energy_per_atom"] = sample["energy"] / sample[properties.n_atoms]
    if "forces" in labels:
        sample["forces"] = torch.tensor(atoms.arrays["forces"], dtype=torch.float64)
    if "stress" in labels:
        sample["stress"] = torch.tensor(atoms.info["stress"], dtype=torch.float64).reshape(1, 3, 3)
    return sample
