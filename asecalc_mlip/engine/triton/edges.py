"""Edges as the kernels read them: rows of atoms, places in the tables, distances and directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.engine.triton import splines
from asecalc_mlip.graph import AtomGraph

__all__ = ["Edges", "edges_of"]

# Edges of a program that looks at each alone.
_EDGES = 256


@dataclass(frozen=True)
class Edges:
    """Edges of a graph, sorted by centre; of each pair both directions are there.

    Attributes
    ----------
    rows : (N + 1,) int32
        Edges of atom i are rows[i] … rows[i + 1] − 1.
    neighbors, elements : (E,) int32
        Atom at the other end, and its atomic number.
    distances : (E,)
        Å, in the dtype of the model, differentiable.
    directions : (3, E)
        Unit vectors from the centre to the neighbour, differentiable.
    place : (E,) int32
        First row in the tables; −1 beyond the cutoff.
    fraction, stretch : (E,)
        Of the way to the next node, and its derivative by the distance.
    """

    rows: Tensor
    neighbors: Tensor
    elements: Tensor
    distances: Tensor
    directions: Tensor
    place: Tensor
    fraction: Tensor
    stretch: Tensor

    @property
    def n_atoms(self) -> int:
        """Number of atoms N."""
        return self.rows.shape[0] - 1

    @property
    def n_edges(self) -> int:
        """Number of edges E."""
        return self.place.shape[0]


def edges_of(graph: AtomGraph, spline: Tensor, dtype: torch.dtype) -> Edges:
    """Edges of a graph on its device; nothing waits for the GPU.

    Parameters
    ----------
    graph : AtomGraph
    spline : (4,) float64
        See `splines.locate`.
    dtype : torch.dtype
        Of distances and directions; they are formed in float64.
    """
    atoms = torch.arange(graph.n_atoms + 1, device=graph.centers.device)
    return Edges(
        torch.searchsorted(graph.centers, atoms, out_int32=True),
        graph.neighbors.to(torch.int32),
        graph.numbers.index_select(0, graph.neighbors).to(torch.int32),
        *_Locate.apply(graph.vectors().double(), spline, dtype),
    )


class _Locate(Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, spline: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        vectors = vectors.contiguous()
        n = vectors.shape[0]
        distances, fraction, stretch = (vectors.new_empty(n, dtype=dtype) for _ in range(3))
        directions = vectors.new_empty(3, n, dtype=dtype)
        place = vectors.new_empty(n, dtype=torch.int32)
        if n:
            made = (distances, directions, place, fraction, stretch)
            splines.locate[(-(-n // _EDGES),)](vectors, spline, *made, n, EDGES=_EDGES)
        ctx.save_for_backward(vectors, place)
        ctx.mark_non_differentiable(place, fraction, stretch)
        ctx.set_materialize_grads(False)
        return distances, directions, place, fraction, stretch

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_distance: Tensor | None, by_direction: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, ...]:
        vectors, place = ctx.saved_tensors
        n = vectors.shape[0]
        if by_distance is None:
            return None, None, None
        if by_direction is None:
            by_direction = by_distance.new_zeros(3, n)
        gradient = torch.empty_like(vectors)
        if n:
            given = (vectors, place, by_distance.contiguous(), by_direction.contiguous(), gradient)
            splines.locate_backward[(-(-n // _EDGES),)](*given, n, EDGES=_EDGES)
        return gradient, None, None
