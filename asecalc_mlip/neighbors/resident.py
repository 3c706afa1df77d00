"""Lists of structures that are on a GPU: made there, kept there, and checked there with one number for the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.neighbors.device_lists import DeviceLists
from asecalc_mlip.neighbors.lists import complete_box

__all__ = ["ResidentLists"]

Check = Callable[[np.ndarray], None]


class ResidentLists:
    """Lists of a batch with a Verlet skin; all are made anew when one is too old.

    Pairs that are not in a list were R = cutoff + skin apart or more. A strain F of their cell leaves of that at least
    (1 − |F − 1|) R, by the norm of Frobenius, which needs no decomposition; what remains above the cutoff is the room
    in which atoms may move.

    Parameters
    ----------
    cutoff, skin : float
        Å.

    Attributes
    ----------
    builds : int
        How many lists of single structures were made.
    closest : float
        Å; no two atoms of the structures last asked for are closer.
    """

    def __init__(self, cutoff: float, skin: float):
        self.cutoff, self.skin = cutoff, skin
        self.builds, self.closest = 0, np.inf
        self._lists = DeviceLists()
        self._graph: AtomGraph | None = None
        self._box = self._inverse = torch.empty(0)
        # On the CPU, to compare with, and beside the positions.
        self._pbc = self._periodic = torch.zeros(3, dtype=torch.bool)

    def graph(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor, check: Check | None
    ) -> AtomGraph:
        """Return the graph with all edges shorter than the cutoff, and some in the skin, whose filters are zero.

        Parameters
        ----------
        numbers, batch : (N,) int64
        positions : (N, 3) float64
            Å.
        cell : (B, 3, 3) float64
            Å; zeros in directions that are not periodic.
        pbc : (3,) bool
            On the CPU.
        check : callable or None
            Gets the atomic numbers where structures change.
        """
        ref = self._graph
        same_kind = ref is not None and ref.cell.shape == cell.shape and ref.numbers.shape == numbers.shape
        if same_kind and self.skin > 0 and torch.equal(self._pbc, pbc):
            unwrapped, same, good = self._look(numbers, positions, cell, batch)
            # The one thing that the host waits for.
            known, kept = torch.stack([same, good]).tolist()
            if known and kept:
                assert ref is not None
                return replace(ref, positions=unwrapped, cell=cell)
            if known:
                check = None
        return self._made(AtomGraph(numbers, positions, batch, batch, batch, cell), pbc, check)

    def _look(self, numbers: Tensor, positions: Tensor, cell: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Positions without jumps by lattice vectors; whether the structures are the same; whether the lists hold."""
        ref = self._graph
        assert ref is not None
        periodic = self._periodic
        same = (ref.numbers == numbers).all() & (ref.batch == batch).all()
        box = torch.where(periodic[:, None], cell, self._box)
        strain = self._inverse @ (box - self._box)
        room = (1.0 - strain.flatten(1).norm(dim=1)) * (self.cutoff + self.skin) - self.cutoff
        carried = ref.positions + torch.einsum("ni,nij->nj", ref.positions, strain.index_select(0, batch))
        displacement = positions - carried
        if bool(self._pbc.any()):
            inverse = torch.linalg.inv_ex(box).inverse
            jumps = torch.einsum("ni,nij->nj", displacement, inverse.index_select(0, batch)).round() * periodic
            jumps = torch.einsum("ni,nij->nj", jumps, box.index_select(0, batch))
            positions, displacement = positions - jumps, displacement - jumps
        # What all atoms do together changes no distance.
        means = ref.sum_over_atoms(displacement) / self._counts
        squares = (displacement - means.index_select(0, batch)).square().sum(-1)
        moved = squares.new_zeros(len(cell)).scatter_reduce(0, batch, squares, "amax")
        # Written so that NaN counts as moved.
        return positions, same, ((room > 0) & (moved < (0.5 * room) ** 2)).all()

    def _made(self, state: AtomGraph, pbc: Tensor, check: Check | None) -> AtomGraph:
        if check is not None:
            _check_all(state, check)
        number, reach = state.n_structures, self.cutoff + self.skin
        device = state.cell.device
        periodic = pbc.to(device)
        i, j, shifts = self._lists(state.positions, state.cell, periodic.expand(number, 3), state.batch, reach)
        graph = self._graph = replace(state, centers=i, neighbors=j, shifts=shifts, reach=reach)
        self._pbc, self._periodic, self.builds = pbc, periodic, self.builds + number
        self._counts = graph.counts()[:, None]
        self.closest = (graph.shortest() if len(i) else reach) - self.skin
        self._box = torch.from_numpy(_complete(state.cell.cpu().numpy(), pbc.numpy())).to(device)
        self._inverse = torch.linalg.inv_ex(self._box).inverse
        return graph


def _complete(cells: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Complete cells by vectors for the directions that are not periodic."""
    if pbc.all():
        return cells
    kinds, which = np.unique(cells, axis=0, return_inverse=True)
    return np.stack([complete_box(cell, pbc) for cell in kinds])[which.reshape(-1)]


def _check_all(state: AtomGraph, check: Any) -> None:
    numbers, owner = state.numbers.cpu().numpy(), state.batch.cpu().numpy()
    try:
        check(numbers)
    except InputError:
        for index in range(state.n_structures):
            try:
                check(numbers[owner == index])
            except InputError as error:
                raise InputError(f"structure {index} of {state.n_structures}: {error}") from None
        raise
