"""Small pieces that several architectures use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph

__all__ = [
    "MAX_ATOMIC_NUMBER",
    "GatedMLP",
    "GatedReadout",
    "ShiftedSoftplus",
    "all_digits",
    "at_once",
    "edge_geometry",
    "mlp",
]

MAX_ATOMIC_NUMBER = 99


class ShiftedSoftplus(nn.Module):
    """ln(½ + ½ eˣ), zero at the origin (SchNet, Schütt et al., NeurIPS 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return nn.functional.softplus(x) - 0.6931471805599453


def mlp(n_in: int, n_hidden: int, n_out: int, activation: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """Two dense layers with one non-linearity; Glorot weights and zero biases, as SchNet and PaiNN start."""
    first, last = nn.Linear(n_in, n_hidden), nn.Linear(n_hidden, n_out)
    for layer in (first, last):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, activation(), last)


class GatedMLP(nn.Module):
    """value(x) · gate(x), two stacks of dense layers of the same sizes.

    Parameters
    ----------
    sizes : sequence of int
        Widths, from input to output.
    last : callable or None
        Non-linearity after the last layer of the value; that of the gate is always a sigmoid.
    """

    def __init__(self, sizes: Sequence[int], *, last: Callable[[], nn.Module] | None = nn.SiLU):
        super().__init__()
        self.value, self.gate = _stack(sizes, last), _stack(sizes, nn.Sigmoid)

    def forward(self, x: Tensor) -> Tensor:
        """(…, sizes[0]) → (…, sizes[-1])."""
        return self.value(x) * self.gate(x)


class GatedReadout(nn.Module):
    """One number per atom by a `GatedMLP` with one more layer, whose value has nothing after it."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.mlp = GatedMLP([*sizes, 1], last=None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, sizes[0]) → (N,)."""
        return self.mlp(x).squeeze(-1)


def _stack(sizes: Sequence[int], last: Callable[[], nn.Module] | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers.append(nn.Linear(a, b))
        activation = last if number == len(sizes) - 2 else nn.SiLU
        if activation is not None:
            layers.append(activation())
    return nn.Sequential(*layers)


def edge_geometry(graph: AtomGraph, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Distances (E,) in Å and unit vectors (E, 3) from centre to neighbour, formed in float64 and then cast."""
    vectors = graph.vectors().to(dtype)
    distances = vectors.square().sum(-1).sqrt()
    return distances, vectors / distances[:, None]


@contextmanager
def all_digits(like: Tensor) -> Iterator[None]:
    """Products in the dtype of what is multiplied inside the block, also where bf16 is asked for."""
    kind = like.device.type
    if torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            yield
    else:
        yield


def at_once(function: Callable, edges: Sequence[Tensor], atoms: Sequence[Tensor | None]) -> Any:
    """`function(*edges, *atoms)`: message passing over all edges in one go.

    The default of `over_edges` of a network; engine/chunked.py puts a function in its place that takes edges in pieces.
    The function must give the sum over the edges that it gets, and use no other tensors that need a gradient then.
    """
    return function(*edges, *atoms)
