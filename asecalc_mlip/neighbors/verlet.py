"""The Verlet skin, which spares most neighbour lists of a structure that moves.

After the skin's surplus pairs are dropped, a list that was kept for a hundred steps is the same as a fresh one to the
last bit, so restarted dynamics repeat exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.neighbors.device_lists import DeviceLists, made_on
from asecalc_mlip.neighbors.lists import compact_list, complete_box

__all__ = ["NeighborCache"]


@dataclass
class _Reference:
    positions: np.ndarray
    lattice: np.ndarray  # zeros where not periodic
    box: np.ndarray  # with a vector for every direction
    inverse: np.ndarray
    pbc: np.ndarray
    numbers: np.ndarray
    graph: AtomGraph
    closest: float


class NeighborCache:
    """Neighbour list of one structure that is kept until an atom has moved skin/2 (Verlet, 1967).

    The list is made anew when the periodicity, the elements or the number of atoms change. Positions that were wrapped
    back into the cell are recognised and cost nothing. A cell that changes carries its atoms along: what counts is how
    far they moved beyond that, and what a cell that shrinks has taken of the skin.

    Parameters
    ----------
    cutoff, skin : float
        Å. A skin of 0 makes every list anew.

    Attributes
    ----------
    calls, builds : int
        How often a list was asked for, and how often one had to be made.
    """

    def __init__(self, cutoff: float, skin: float):
        if not 0 <= skin < np.inf:
            raise InputError(f"skin is {skin} Å; it must be 0 (a new list every step) or more, usually 0.3 to 1")
        self.cutoff, self.skin = cutoff, skin
        self.calls = self.builds = 0
        self._reference: _Reference | None = None
        self._lists = DeviceLists()

    @property
    def hit_rate(self) -> float:
        """Share of calls that needed no new list."""
        return 1.0 - self.builds / self.calls if self.calls else 0.0

    @property
    def closest(self) -> float:
        """Å; no two atoms of the structure last asked for are closer than this, known without a look at them."""
        return np.inf if self._reference is None else self._reference.closest - self.skin

    def graph(
        self,
        numbers: np.ndarray,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        device: torch.device | str = "cpu",
        *,
        trim: bool = True,
    ) -> AtomGraph:
        """Make the graph of a structure on a device; the first four arguments as for `neighbor_list`.

        With `trim` it has exactly the edges shorter than the cutoff. Without, those in the skin too: their filters are
        zero, and as long as the list holds all tensors but the positions are the same objects, so that nothing else
        travels to a GPU, which need not be waited for.
        """
        self.calls += 1
        lattice = np.where(np.asarray(pbc, dtype=bool)[:, None], cell, 0.0)
        unwrapped = self._still_valid(numbers, positions, lattice, pbc)
        if unwrapped is None:
            self.builds += 1
            unwrapped = np.array(positions, dtype=np.float64)
            # The old list goes first: two of them would be in memory while the new one is made.
            self._reference = None
            self._reference = self._build(numbers, unwrapped, cell, pbc, device)
        assert self._reference is not None
        graph = replace(self._reference.graph, positions=torch.from_numpy(unwrapped).to(device))
        if not np.array_equal(lattice, self._reference.lattice):
            graph = replace(graph, cell=torch.from_numpy(lattice)[None].to(device))
        return graph.within(self.cutoff) if self.skin > 0 and trim else graph

    def _still_valid(
        self, numbers: np.ndarray, positions: np.ndarray, lattice: np.ndarray, pbc: np.ndarray
    ) -> np.ndarray | None:
        """Positions without jumps by whole lattice vectors, or None when the list is too old."""
        ref = self._reference
        if ref is None or self.skin == 0 or not (np.isfinite(positions).all() and np.isfinite(lattice).all()):
            return None
        if not (np.array_equal(numbers, ref.numbers) and np.array_equal(pbc, ref.pbc)):
            return None
        box, inverse, carried, room = ref.box, ref.inverse, ref.positions, self.skin
        strained = not np.array_equal(lattice, ref.lattice)
        if strained:
            box = np.where(ref.pbc[:, None], lattice, ref.box)
            strain = ref.inverse @ box
            # Pairs that are not in the list were cutoff + skin apart or more; this much of the skin is left of it. A
            # cell that grows leaves no more than the skin, on which `closest` counts.
            least = min(np.linalg.svd(strain, compute_uv=False)[-1], 1.0)
            room = least * (self.cutoff + self.skin) - self.cutoff
            if room <= 0:
                return None
            inverse, carried = np.linalg.inv(box), ref.positions @ strain
        unwrapped = np.array(positions, dtype=np.float64)
        displacement = unwrapped - carried
        if ref.pbc.any():
            jumps = np.round(displacement @ inverse) * ref.pbc
            if jumps.any():
                unwrapped -= jumps @ box
                displacement = unwrapped - carried
        if strained:
            # A barostat may scale about any point; what all atoms do together changes no distance.
            displacement -= displacement.mean(axis=0)
        moved = np.einsum("ij,ij->i", displacement, displacement).max()
        return unwrapped if moved < (0.5 * room) ** 2 else None

    def _build(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, device: torch.device | str
    ) -> _Reference:
        pbc, cell = np.array(pbc, dtype=bool), np.array(cell, dtype=np.float64)
        lattice = np.where(pbc[:, None], cell, 0.0)
        make = self._graph_there if made_on(torch.device(device)) else self._graph_here
        graph = make(np.asarray(numbers, dtype=np.int64), positions, cell, pbc, device)
        graph = replace(graph, cell=torch.from_numpy(lattice)[None].to(device))
        closest = graph.shortest() if graph.n_edges else self.cutoff
        box = complete_box(cell, pbc)
        return _Reference(
            positions=positions.copy(),
            lattice=lattice,
            box=box,
            inverse=np.linalg.inv(box),
            pbc=pbc,
            numbers=np.array(numbers),
            graph=graph.to(device),
            closest=closest,
        )

    def _graph_here(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, device: torch.device | str
    ) -> AtomGraph:
        centers, neighbors, shifts = compact_list(positions, cell, pbc, self.cutoff + self.skin)
        return AtomGraph(
            numbers=torch.from_numpy(numbers),
            positions=torch.from_numpy(positions),
            batch=torch.zeros(len(positions), dtype=torch.int64),
            centers=torch.from_numpy(centers),
            neighbors=torch.from_numpy(neighbors),
            cell=torch.from_numpy(cell)[None],
            shifts=None if shifts is None else torch.from_numpy(shifts),
        )

    def _graph_there(
        self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, device: torch.device | str
    ) -> AtomGraph:
        there, box = torch.from_numpy(positions).to(device), torch.from_numpy(cell)[None].to(device)
        batch = torch.zeros(len(positions), dtype=torch.int64, device=device)
        periodic = torch.from_numpy(pbc)[None].to(device)
        centers, neighbors, shifts = self._lists(there, box, periodic, batch, self.cutoff + self.skin)
        known = torch.from_numpy(numbers).to(device)
        return AtomGraph(known, there, batch, centers, neighbors, box, shifts)
