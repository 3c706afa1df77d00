"""AtomGraph: the one input type of every model, and batching.

A graph holds one structure or many. Edges are directed and come in both directions (i→j and j→i), sorted by centre, so
that sums over neighbours run over contiguous rows and give the same floating-point result however the list came about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["AtomGraph", "EdgeGraph", "batch_graphs", "graph_from_atoms", "graph_without_edges"]

# Edges at once where arrays of all of them would fill the memory: a few MB, and few calls.
_PIECE = 2**17


@dataclass(frozen=True)
class AtomGraph:
    """Structures and their neighbour lists as tensors; N atoms, E edges, B structures.

    Attributes
    ----------
    numbers : (N,) int64
        Atomic numbers.
    positions : (N, 3) float64
        Å. Kept in double precision, so that edge vectors do not lose digits far from the origin.
    batch : (N,) int64
        Index of the structure of each atom, ascending.
    centers, neighbors : (E,) int64
        Atoms i and j of each edge, sorted by i.
    cell : (B, 3, 3) float64
        Rows are lattice vectors in Å; zeros for molecules.
    shifts : (E, 3) float64 or integers, or None
        Whole lattice vectors to add to atom j, so that r_ij = r_j − r_i + shift · cell. None when no structure is
        periodic.
    reach : float or None
        Å; all pairs shorter than this are among the edges. None where nobody kept count.
    """

    numbers: Tensor
    positions: Tensor
    batch: Tensor
    centers: Tensor
    neighbors: Tensor
    cell: Tensor
    shifts: Tensor | None = None
    reach: float | None = None

    @property
    def n_atoms(self) -> int:
        """Number of atoms N."""
        return self.numbers.shape[0]

    @property
    def n_edges(self) -> int:
        """Number of edges E."""
        return self.centers.shape[0]

    @property
    def n_structures(self) -> int:
        """Number of structures B."""
        return self.cell.shape[0]

    @property
    def is_periodic(self) -> bool:
        """Whether any structure is periodic."""
        return self.shifts is not None

    def vectors(self) -> Tensor:
        """Edge vectors r_j − r_i + shift · cell in Å, (E, 3) float64, differentiable in positions and cell."""
        vectors = self.positions.index_select(0, self.neighbors) - self.positions.index_select(0, self.centers)
        if self.shifts is None:
            return vectors
        shifts = self.shifts.to(self.cell.dtype)
        if self.n_structures == 1:
            return vectors + shifts @ self.cell[0]
        cells = self.cell.index_select(0, self.batch.index_select(0, self.centers))
        return vectors + torch.einsum("ei,eij->ej", shifts, cells)

    def fixed_vectors(self) -> Tensor:
        """Edge vectors as `vectors` gives them, without derivatives and with no other array of their size."""
        with torch.no_grad():
            if self.n_edges <= _PIECE:
                return self.vectors()
            out = self.positions.new_empty(self.n_edges, 3)
            for start, piece in self._pieces():
                out[start : start + piece.n_edges] = piece.vectors()
        return out

    def shortest(self) -> float:
        """Length of the shortest edge in Å."""
        with torch.no_grad():
            # By torch's minimum, which keeps NaN.
            return float(torch.stack([p.vectors().square().sum(-1).min() for _, p in self._pieces()]).min().sqrt())

    def sum_over_atoms(self, values: Tensor) -> Tensor:
        """Sum a per-atom quantity (N, …) over the atoms of each structure: (B, …)."""
        out = torch.zeros((self.n_structures, *values.shape[1:]), dtype=values.dtype, device=values.device)
        return out.index_add(0, self.batch, values)

    def counts(self) -> Tensor:
        """Return the number of atoms of each structure, (B,) int64."""
        return self.sum_over_atoms(torch.ones_like(self.batch))

    def within(self, cutoff: float) -> AtomGraph:
        """Return the graph with only the edges shorter than `cutoff` (Å), without those that a Verlet skin adds."""
        with torch.no_grad():
            near = [
                (piece.vectors().square().sum(-1) < cutoff * cutoff).nonzero().squeeze(-1).add_(start)
                for start, piece in self._pieces()
            ]
        keep = near[0] if len(near) == 1 else torch.cat(near)
        if keep.shape[0] == self.n_edges:
            return self
        reach = None if self.reach is None else min(self.reach, cutoff)
        shifts = None if self.shifts is None else self.shifts.index_select(0, keep)
        return replace(
            self,
            centers=self.centers.index_select(0, keep),
            neighbors=self.neighbors.index_select(0, keep),
            shifts=shifts,
            reach=reach,
        )

    def _pieces(self) -> Iterator[tuple[int, AtomGraph]]:
        """Graphs with all atoms and a range of edges each, and where it starts, at least one."""
        if self.n_edges <= _PIECE:
            yield 0, self
            return
        for start in range(0, self.n_edges, _PIECE):
            part = slice(start, start + _PIECE)
            shifts = None if self.shifts is None else self.shifts[part]
            yield start, replace(self, centers=self.centers[part], neighbors=self.neighbors[part], shifts=shifts)

    def to(self, device: torch.device | str) -> AtomGraph:
        """Return the graph on another device."""
        moved: dict[str, Any] = {k: value.to(device) for k, value in self.__dict__.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def __repr__(self) -> str:
        kind = "periodic" if self.is_periodic else "open"
        return (
            f"AtomGraph({self.n_structures} structures, {self.n_atoms} atoms, {self.n_edges} edges, {kind}, "
            f"{self.positions.device})"
        )


@dataclass(frozen=True)
class EdgeGraph(AtomGraph):
    """A graph whose edge vectors are given, so that they can be the variables of a derivative."""

    edge_vectors: Any = None

    def vectors(self) -> Tensor:
        """Return the edge vectors (E, 3) in Å that were given."""
        return self.edge_vectors


def graph_from_atoms(atoms: Atoms | Sequence[Atoms], cutoff: float, *, device: torch.device | str = "cpu") -> AtomGraph:
    """Graph of one `ase.Atoms` or of a list of them, with all edges shorter than `cutoff` (Å).

    Raises
    ------
    InputError
        For an empty structure, positions or cells that are not finite, or a periodic direction without a lattice
        vector.
    """
    from asecalc_mlip.neighbors.lists import neighbor_list

    structures = cast("list[Atoms]", [atoms] if hasattr(atoms, "get_positions") else list(atoms))
    graphs = []
    for structure in structures:
        centers, neighbors, shifts = neighbor_list(
            structure.positions, np.asarray(structure.cell), structure.pbc, cutoff
        )
        graphs.append(replace(_single(structure, centers, neighbors, shifts), reach=cutoff))
    graph = graphs[0] if len(graphs) == 1 else batch_graphs(graphs)
    return graph.to(device)


def graph_without_edges(atoms: Atoms) -> AtomGraph:
    """Graph of one `ase.Atoms` whose neighbours are still to be found."""
    none = np.zeros(0, dtype=np.int64)
    return _single(atoms, none, none, np.zeros((0, 3)) if any(atoms.pbc) else None)


def batch_graphs(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """One graph that holds all structures of `graphs`, which may differ in size, periodicity and elements."""
    # The last offset is the end, which no graph starts at: hence strict=False below.
    atom_offsets = np.cumsum([0] + [g.n_atoms for g in graphs])
    structure_offsets = np.cumsum([0] + [g.n_structures for g in graphs])
    shifts = None
    if any(g.is_periodic for g in graphs):
        shifts = torch.cat([g.positions.new_zeros(g.n_edges, 3) if g.shifts is None else g.shifts for g in graphs])
    reaches = [g.reach for g in graphs if g.reach is not None]
    return AtomGraph(
        numbers=torch.cat([g.numbers for g in graphs]),
        positions=torch.cat([g.positions for g in graphs]),
        batch=torch.cat([g.batch + int(o) for g, o in zip(graphs, structure_offsets, strict=False)]),
        centers=torch.cat([g.centers + int(o) for g, o in zip(graphs, atom_offsets, strict=False)]),
        neighbors=torch.cat([g.neighbors + int(o) for g, o in zip(graphs, atom_offsets, strict=False)]),
        cell=torch.cat([g.cell for g in graphs]),
        shifts=shifts,
        reach=min(reaches) if len(reaches) == len(graphs) else None,
    )


def _single(atoms: Atoms, centers: np.ndarray, neighbors: np.ndarray, shifts: np.ndarray | None) -> AtomGraph:
    cell = np.where(np.asarray(atoms.pbc)[:, None], np.asarray(atoms.cell), 0.0)
    return AtomGraph(
        numbers=torch.from_numpy(atoms.numbers.astype(np.int64)),
        positions=torch.from_numpy(np.array(atoms.positions, dtype=np.float64)),
        batch=torch.zeros(len(atoms), dtype=torch.int64),
        centers=torch.from_numpy(centers),
        neighbors=torch.from_numpy(neighbors),
        cell=torch.from_numpy(cell.astype(np.float64))[None],
        shifts=None if shifts is None else torch.from_numpy(shifts),
    )
