"""Message passing operations: native on the CPU, plain torch everywhere else, with the same result.

`painn_message` and `schnet_message` are differentiable twice, which is what a force loss needs. Where only energies and
forces of a trained model are wanted (`first_derivatives_only`), `painn_convolution` makes the filters on the way instead
of storing them. The native library is optional (setup.py builds it where there is a C++ compiler); `native_library()`
says whether it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from asecalc_mlip.kernels import native, plain
from asecalc_mlip.kernels.native import native_library

__all__ = [
    "RadialExpansion",
    "expand",
    "first_derivatives_only",
    "native_library",
    "painn_convolution",
    "painn_message",
    "schnet_message",
]

_first_only: ContextVar[bool] = ContextVar("first_derivatives_only", default=False)


@contextmanager
def first_derivatives_only(active: bool = True) -> Iterator[None]:
    """Promise that no second derivative will be taken inside, so that faster operations may serve."""
    token = _first_only.set(active)
    try:
        yield
    finally:
        _first_only.reset(token)


class RadialFunctions(Protocol):
    """Radial functions with the cutoff in them, such as `asecalc_mlip.models.radial.EnvelopedBasis`."""

    def __call__(self, distances: Tensor) -> Tensor:
        """(E,) → (E, K)."""

    def with_slopes(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """The same and its derivatives."""


@dataclass(frozen=True)
class RadialExpansion:
    """Radial functions of all edges; made by `expand`.

    Attributes
    ----------
    function : RadialFunctions
    distances : (E,)
    values : (E, K)
    slopes : (E, K) or None
        Derivatives of the values, which then carry no gradient of their own; None where autograd keeps track of it.
    rows : (N + 1,) int64 or None
        Offsets of each atom's edges, with the slopes.
    """

    function: RadialFunctions
    distances: Tensor
    values: Tensor
    slopes: Tensor | None = None
    rows: Tensor | None = None


def expand(function: RadialFunctions, distances: Tensor, centers: Tensor, n_atoms: int) -> RadialExpansion:
    """Radial functions (cutoff included) of the distances (E,), in the form that the operations below want."""
    if not (_first_only.get() and native.serves(distances)):
        return RadialExpansion(function, distances, function(distances))
    with torch.no_grad():
        values, slopes = function.with_slopes(distances)
        rows = torch.searchsorted(centers, torch.arange(n_atoms + 1, device=centers.device))
    return RadialExpansion(function, distances, values, slopes, rows)


def painn_convolution(
    expansion: RadialExpansion,
    weights: Tensor,
    directions: Tensor,
    x: Tensor,
    mu: Tensor | None,
    centers: Tensor,
    neighbors: Tensor,
) -> tuple[Tensor, Tensor]:
    """`painn_message` with the filters expansion · weightsᵀ, of which none is stored where one derivative is enough.

    Parameters
    ----------
    weights : (3F, K), or (2F, K) without `mu`
    directions, x, mu, centers, neighbors
        As for `painn_message`; every pair must be there in both directions.
    """
    values = expansion.values
    if expansion.slopes is not None and expansion.rows is not None:
        n_features = weights.shape[0] // (2 if mu is None else 3)
        if native.serves_convolution(x, weights, n_features):
            inputs = (expansion.distances, values, expansion.slopes, weights, directions, x, mu)
            return native.painn_convolution(*inputs, expansion.rows, neighbors)
        values = expansion.function(expansion.distances)
    filters = torch.nn.functional.linear(values, weights)
    return painn_message(filters, directions, x, mu, centers, neighbors)


def painn_message(
    filters: Tensor, directions: Tensor, x: Tensor, mu: Tensor | None, centers: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    """q_i = Σ_j (W x_j)_1 and μ_i = Σ_j (W x_j)_2 u_ij + (W x_j)_3 μ_j, the sums of PaiNN over neighbours.

    Parameters
    ----------
    filters : (E, 3F), or (E, 2F) without `mu`
    directions : (E, 3)
    x : (N, 3F), or (N, 2F) without `mu`
    mu : (N, 3, F) or None
        None stands for vectors that are all zero, as before the first block.
    centers, neighbors : (E,) int64
        Sorted by centre.

    Returns
    -------
    q, mu : (N, F) and (N, 3, F)
    """
    module = native if native.serves(filters) else plain
    return module.painn_message(filters, directions, x, mu, centers, neighbors)


def schnet_message(filters: Tensor, x: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """y_i = Σ_j W_ij x_j, the continuous-filter convolution of SchNet: (E, F) and (N, F) → (N, F)."""
    module = native if native.serves(filters) else plain
    return module.schnet_message(filters, x, centers, neighbors)
