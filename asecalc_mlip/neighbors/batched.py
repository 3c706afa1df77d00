"""Neighbour lists of many structures that move together: batched dynamics, torch-sim's or ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph, batch_graphs
from asecalc_mlip.neighbors.device_lists import made_on
from asecalc_mlip.neighbors.lists import neighbor_list
from asecalc_mlip.neighbors.resident import ResidentLists

__all__ = ["BatchedNeighborCache"]


class BatchedNeighborCache:
    """Neighbour lists of the structures of a batch, each kept until one of its atoms has moved skin/2.

    Cells that change carry their atoms along, as in `NeighborCache`. Everything but the making of a list runs on the
    device of the state and for all structures at once. On a GPU lists are made there too, see `ResidentLists`.

    Parameters
    ----------
    cutoff, skin : float
        Å. A skin of 0 makes every list anew.

    Attributes
    ----------
    calls, builds : int
        How many lists of single structures were asked for, and how many had to be made.
    """

    def __init__(self, cutoff: float, skin: float):
        self.cutoff, self.skin = cutoff, skin
        self.calls = self.builds = 0
        self._graphs: dict[int, AtomGraph] = {}
        self._pbc = torch.zeros(3, dtype=torch.bool)
        # The periodicity last asked for, on the host and beside the positions.
        self._periodic = self._pbc, self._pbc
        # A tensor on the device that said so, as torch-sim has it, its version, and what it said.
        self._given: tuple[Tensor, int, Tensor] | None = None
        self._inverse = torch.empty(0)
        self._resident = ResidentLists(cutoff, skin)
        self._closest = np.inf
        # All of `_graphs` in one, with the positions for which the lists were made.
        self._batch: AtomGraph | None = None

    @property
    def closest(self) -> float:
        """Å; no two atoms of the structures last asked for are closer than this, known without a look at them."""
        return self._closest

    def graph(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, batch: Tensor, pbc: Any, check: Any = None
    ) -> AtomGraph:
        """Make the graph with exactly the edges shorter than the cutoff; on a GPU some longer ones are left in it.

        Parameters
        ----------
        numbers, batch : (N,)
            Atomic number and structure of each atom; structures in ascending order.
        positions : (N, 3)
            Å.
        cell : (B, 3, 3)
            Rows are lattice vectors in Å.
        pbc : bool or (3,) bool
        check : callable, optional
            Gets the atomic numbers of each structure that was not there before.
        """
        pbc = self._here(pbc)
        positions = positions.detach().to(torch.float64, copy=True)
        numbers, cell = numbers.long(), torch.where(self._there(pbc, cell.device)[:, None], cell.detach().double(), 0.0)
        if made_on(cell.device):
            graph = self._resident.graph(numbers, positions, cell, batch, pbc, check)
            self.calls, self.builds = self.calls + len(cell), self._resident.builds
            self._closest = self._resident.closest
            return graph
        stale, positions = self._stale(numbers, positions, cell, batch, pbc)
        self.calls += len(cell)
        indices = stale.nonzero().squeeze(-1).tolist()
        if indices:
            self._rebuild(indices, AtomGraph(numbers, positions, batch, batch, batch, cell), pbc, check)
        assert self._batch is not None
        graph = replace(self._batch, positions=positions, cell=cell)
        return graph.within(self.cutoff) if self.skin > 0 else graph

    def _here(self, pbc: Any) -> Tensor:
        """Return the periodicity (3,) on the host, from a tensor on a device only when that is another or changed."""
        if not isinstance(pbc, Tensor) or pbc.device.type == "cpu" or pbc.is_inference():
            return torch.as_tensor(pbc).cpu().expand(3)
        if self._given is None or self._given[0] is not pbc or self._given[1] != pbc._version:
            self._given = pbc, pbc._version, pbc.cpu().expand(3)
        return self._given[2]

    def _there(self, pbc: Tensor, device: torch.device) -> Tensor:
        """Return the periodicity on a device, where it is copied to only when it changes."""
        host, there = self._periodic
        if there.device != device or not torch.equal(host, pbc):
            host = pbc.clone()
            self._periodic = host, host.to(device)
        return self._periodic[1]

    def _stale(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which structures need a new list (B,), and positions without jumps by whole lattice vectors."""
        ref = self._batch
        everything = torch.ones(len(cell), dtype=torch.bool, device=cell.device)
        if ref is None or ref.cell.shape != cell.shape or not torch.equal(self._pbc, pbc):
            return everything, positions
        if not (torch.equal(ref.numbers, numbers) and torch.equal(ref.batch, batch)):
            return everything, positions
        carried, inverse, room = ref.positions, self._inverse, torch.full_like(cell[:, 0, 0], self.skin)
        strained = not torch.equal(cell, ref.cell)
        if strained:
            # Directions that are not periodic stay as they are.
            strain = inverse @ (cell - ref.cell) + torch.eye(3, dtype=cell.dtype, device=cell.device)
            carried = torch.einsum("ni,nij->nj", carried, strain.index_select(0, batch))
            least = torch.linalg.svdvals(strain.nan_to_num()).amin(-1).clamp(max=1.0)
            room = least * (self.cutoff + self.skin) - self.cutoff
            inverse = torch.linalg.pinv(cell.nan_to_num())
        displacement = positions - carried
        if pbc.any():
            jumps = torch.einsum("ni,nij->nj", displacement, inverse.index_select(0, batch)).round()
            jumps = torch.einsum("ni,nij->nj", jumps, cell.index_select(0, batch))
            positions, displacement = positions - jumps, displacement - jumps
        if strained:
            means = ref.sum_over_atoms(displacement) / ref.counts()[:, None]
            displacement = displacement - means.index_select(0, batch)
        squares = displacement.square().sum(-1)
        moved = squares.new_zeros(len(cell)).scatter_reduce(0, batch, squares, "amax")
        # Written so that NaN counts as moved.
        return ~((room > 0) & (moved < (0.5 * room) ** 2)), positions

    def _rebuild(self, indices: list[int], state: AtomGraph, pbc: Tensor, check: Any) -> None:
        new = len(indices) == state.n_structures
        graphs = {} if new else dict(self._graphs)
        for index in indices:
            mine = (state.batch == index).nonzero().squeeze(-1)
            numbers, positions = state.numbers[mine].cpu(), state.positions[mine].cpu()
            try:
                if new and check is not None:
                    check(numbers.numpy())
                graphs[index] = self._single(numbers, positions, state.cell[index].cpu(), pbc)
            except InputError as error:
                raise InputError(f"structure {index} of {state.n_structures}: {error}") from None
        self.builds += len(indices)
        self._graphs, self._pbc = graphs, pbc
        self._batch = batch_graphs([graphs[k] for k in range(state.n_structures)]).to(state.positions.device)
        shortest = self._batch.shortest() if self._batch.n_edges else self.cutoff + self.skin
        self._closest = shortest - self.skin
        # Directions that are not periodic have rows of zeros, which a pseudo-inverse leaves out.
        self._inverse = torch.linalg.pinv(self._batch.cell)

    def _single(self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Tensor) -> AtomGraph:
        reach = self.cutoff + self.skin
        i, j, shifts = neighbor_list(positions.numpy(), cell.numpy(), pbc.numpy(), reach)
        return AtomGraph(
            numbers=numbers,
            positions=positions,
            batch=torch.zeros_like(numbers),
            centers=torch.from_numpy(i),
            neighbors=torch.from_numpy(j),
            cell=cell[None],
            shifts=None if shifts is None else torch.from_numpy(shifts),
            reach=reach,
        )
