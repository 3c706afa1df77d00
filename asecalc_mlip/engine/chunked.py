"""The eager engine for structures that are too large for it: message passing goes through the edges in pieces.

Not atoms but edges fill the memory: autograd keeps several numbers per edge, block and feature. Here a block
keeps only its numbers per atom, and its edges are taken some ten thousand at a time, in the backward pass once more:

    y = Σ_pieces f(edges of the piece, atoms)        ∂L/∂atoms = Σ_pieces (∂f/∂atoms)ᵀ ∂L/∂y

The result is that of the whole. Pieces of space with a halo would need that too, but a halo of two to three cutoffs
multiplies the work by five or more, and this costs a third of a forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.engine.estimate import autograd_bytes
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.potential import Potential, Prediction, predict

__all__ = ["EDGES_PER_PIECE", "ChunkedEngine"]

# For 128 features in float32 about 0.5 GB; fewer cost time where there are many atoms, which each piece passes over.
EDGES_PER_PIECE = 65_536


class ChunkedEngine:
    """Runs a potential through autograd, its edges in pieces.

    Parameters
    ----------
    potential : Potential
        It is copied.
    edges_per_piece : int
    """

    holds_edges = False
    keeps_buffer = False

    def __init__(self, potential: Potential, *, edges_per_piece: int = EDGES_PER_PIECE):
        self.potential = copy.deepcopy(potential).requires_grad_(False)
        self.edges_per_piece = edges_per_piece
        self.potential.network.over_edges = _InPieces(edges_per_piece)

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        return predict(self.potential, graph, forces=forces, stress=stress)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself."""
        return autograd_bytes(self.potential, n_atoms, n_edges, native=False, piece=self.edges_per_piece)

    def describe(self) -> str:
        """Name the engine in a few words."""
        return f"eager in pieces of {self.edges_per_piece:,} edges"


class _InPieces:
    """Takes the place of `asecalc_mlip.models.layers.at_once`."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, function: Callable, edges: Sequence[Tensor], atoms: Sequence[Tensor | None]) -> Any:
        if len(edges[0]) <= self.size:
            return function(*edges, *atoms)
        found = _SumOverPieces.apply(function, self.size, len(edges), *edges, *atoms)
        return found[0] if len(found) == 1 else found


class _SumOverPieces(Function):
    @staticmethod
    def forward(ctx: Any, function: Callable, size: int, n_edge_tensors: int, *tensors: Tensor | None):
        ctx.function, ctx.size, ctx.n_edge_tensors = function, size, n_edge_tensors
        ctx.save_for_backward(*tensors)
        total: tuple[Tensor, ...] = ()
        for piece in _pieces(tensors, size, n_edge_tensors):
            found = function(*piece)
            found = found if isinstance(found, tuple) else (found,)
            total = tuple(a.add_(b) for a, b in zip(total, found, strict=True)) if total else found
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor):
        tensors, n = ctx.saved_tensors, ctx.n_edge_tensors
        wanted = [k for k, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        sums: dict[int, Any] = {k: [] if k < n else torch.zeros_like(tensors[k]) for k in wanted}
        for piece in _pieces(tensors, ctx.size, n):
            leaves = [t.detach().requires_grad_() if k in wanted else t for k, t in enumerate(piece)]
            with torch.enable_grad():
                found = ctx.function(*leaves)
            found = found if isinstance(found, tuple) else (found,)
            for k, part in zip(wanted, torch.autograd.grad(found, [leaves[k] for k in wanted], gradients), strict=True):
                if k < n:
                    sums[k].append(part)
                else:
                    sums[k] += part
        found = [torch.cat(sums[k]) if k in wanted and k < n else sums.get(k) for k in range(len(tensors))]
        return None, None, None, *found


def _pieces(tensors: Sequence[Tensor | None], size: int, n_edge_tensors: int) -> Any:
    """Arguments of the function for one range of edges after another."""
    edges, atoms = tensors[:n_edge_tensors], tensors[n_edge_tensors:]
    assert edges[0] is not None
    for start in range(0, len(edges[0]), size):
        yield [*(None if t is None else t[start : start + size] for t in edges), *atoms]
