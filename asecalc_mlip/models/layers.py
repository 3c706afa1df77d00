"""Small pieces that several architectures use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph

__all__ = ["MAX_ATOMIC_NUMBER", "ShiftedSoftplus", "at_once", "edge_geometry", "mlp"]

MAX_ATOMIC_NUMBER = 99


class ShiftedSoftplus(nn.Module):
    """ln(½ + ½ eˣ), zero at the origin (SchNet, Schütt et al., NeurIPS 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x) - 0.6931471805599453


def mlp(n_in: int, n_hidden: int, n_out: int, activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """Two dense layers with one non-linearity; Glorot weights and zero biases, as SchNet and PaiNN start."""
    first, last = nn.Linear(n_in, n_hidden), nn.Linear(n_hidden, n_out)
    for layer in (first, last):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, activation(), last)


def edge_geometry(graph: AtomGraph, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Distances (E,) in Å and unit vectors (E, 3) from centre to neighbour, formed in float64 and then cast."""
    vectors = graph.vectors().to(dtype)
    distances = vectors.square().sum(-1).sqrt()
    return distances, vectors / distances[:, None]


def at_once(function: Callable, edges: Sequence[Tensor], atoms: Sequence[Tensor | None]) -> Any:
    """`function(*edges, *atoms)`: message passing over all edges in one go.

    The default of `over_edges` of a network; engine/chunked.py puts a function in its place that takes edges in pieces.
    The function must give the sum over the edges that it gets, and use no other tensors that need a gradient then.
    """
    return function(*edges, *atoms)
