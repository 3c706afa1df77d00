"""Functions of the distance as tables for the native kernels: derivatives at nodes, between them Hermite polynomials.

With values and slopes at both ends of an interval (order 2) the polynomial is cubic, with curvatures too (order 3)
quintic. Its own derivative gives the forces, so energies and forces fit each other whatever the table's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["derivatives", "hermite_tables", "hermite_weights"]

# (n,) distances in Å, float64 → (n, W), differentiable
Tabulated = Callable[[Tensor], Tensor]
# Å; no structure has atoms closer than this, so the table need not be exact there.
_CLOSEST = 0.1
_MOST_NODES = 65_537


def hermite_tables(
    functions: Sequence[Tabulated], cutoff: float, *, order: int, tolerance: float, first: int = 513
) -> tuple[list[Tensor], int]:
    """Tables of functions over 0 … cutoff on the same nodes, as many as `tolerance` asks for.

    Parameters
    ----------
    functions : sequence of callable
    cutoff : float
        Å.
    order : {2, 3}
        Numbers at a node for each function.
    tolerance : float
        Largest error of the derivative, relative to its largest value.
    first : int
        Nodes to begin with; intervals are halved until the tables are good, or have 65 537 nodes.

    Returns
    -------
    tables : list of (nodes, order, W) float64
        The k-th derivative times the k-th power of the step.
    nodes : int
    """
    nodes = first
    while True:
        # Not from zero itself, where a Bessel function is 0/0, nor to the cutoff, beyond which derivatives are zero.
        distances = torch.linspace(0.0, cutoff, nodes, dtype=torch.float64).clamp(1e-3, cutoff * (1.0 - 1e-12))
        step = cutoff / (nodes - 1)
        tables = [_table(f, distances, step, order) for f in functions]
        errors = [_slope_error(table, f, distances, step) for table, f in zip(tables, functions, strict=True)]
        if max(errors) < tolerance or 2 * nodes - 1 > _MOST_NODES:
            return tables, nodes
        nodes = 2 * nodes - 1


def derivatives(function: Tabulated, distances: Tensor, order: int) -> list[Tensor]:
    """Values and the first `order` − 1 derivatives at distances (n,), each (n, W)."""
    with torch.enable_grad():
        distances = distances.clone().requires_grad_()
        values = function(distances)
        # Σ_f c_f w_f'(d) is linear in c, so its derivative in c is w_f'(d), for all columns at once.
        c = torch.ones_like(values).requires_grad_()
        found, along = [values.detach()], (values * c).sum()
        for _ in range(order - 1):
            (slopes,) = torch.autograd.grad(along, distances, create_graph=True)
            along = slopes.sum()
            found.append(torch.autograd.grad(along, c, retain_graph=True)[0].detach())
    return found


def hermite_weights(t: float, order: int) -> list[float]:
    """Weights, for the derivative by t at 0 ≤ t ≤ 1, of the numbers of both ends: those of one, then of the other."""
    if order == 2:
        s = 1.0 - t
        return [-6 * t * s, s * (1 - 3 * t), 6 * t * s, t * (3 * t - 2)]
    q = t * t
    first = [q * (-30 + t * (60 - 30 * t)), 1 + q * (-18 + t * (32 - 15 * t)), t + q * (-4.5 + t * (6 - 2.5 * t))]
    return [*first, -first[0], q * (-12 + t * (28 - 15 * t)), q * (1.5 - t * (4 - 2.5 * t))]


def _table(function: Tabulated, distances: Tensor, step: float, order: int) -> Tensor:
    found = derivatives(function, distances, order)
    return torch.stack([values * step**k for k, values in enumerate(found)], dim=1)


def _slope_error(table: Tensor, function: Tabulated, distances: Tensor, step: float) -> float:
    """Largest error of the derivative a quarter way between nodes, relative to the largest derivative.

    There it is near its largest; half-way it vanishes by symmetry.
    """
    order = table.shape[1]
    exact = derivatives(function, distances[:-1] + 0.25 * step, 2)[1]
    ends = torch.cat([table[:-1], table[1:]], dim=1)
    weights = torch.tensor(hermite_weights(0.25, order), dtype=table.dtype)
    between = torch.einsum("nkw,k->nw", ends, weights) / step
    error = (between - exact).abs()[distances[:-1] > _CLOSEST]
    return float(error.max() / exact.abs().max().clamp(min=1e-30))
