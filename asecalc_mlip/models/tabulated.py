"""Functions of the distance as tables for the native kernels: Hermite polynomials, or quintic B-splines.

Hermite: derivatives are stored at nodes; with values and slopes at both ends of an interval (order 2) the polynomial is
cubic, with curvatures too (order 3) quintic. Splines: one number a node makes a quintic, so that tables are a third as
large, and the nodes lie densest where atoms are close and functions steep:

    x = (c + r_c) r / (r_c (c + r)),     f(r) = Σ_k a_k B(x (nodes − 1) − k)

Their own derivative gives the forces, so energies and forces fit each other whatever the table's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.linalg import solve_banded
from torch import Tensor

__all__ = ["derivatives", "hermite_tables", "hermite_weights", "spline_tables", "spline_weights"]

# (n,) distances in Å, float64 → (n, W), differentiable
Tabulated = Callable[[Tensor], Tensor]
# Å; no structure has atoms closer than this, so the table need not be exact there.
_CLOSEST = 0.1
_MOST_NODES = 65_537
# Å; a smaller one for functions that are steepest where atoms are close.
_BENDS = (2.0, 4.0, 1.0)
# Numbers of nodes to try, each a third more than the one before.
_SPLINE_NODES = tuple(int(64 * (4 / 3) ** k) + 1 for k in range(24))


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


def spline_tables(
    functions: Sequence[Tabulated], cutoff: float, *, tolerance: float
) -> tuple[list[Tensor], int, float]:
    """Coefficients of quintic B-splines over 0 … cutoff on the same nodes, as few as `tolerance` allows.

    Parameters
    ----------
    functions : sequence of callable
    cutoff : float
        Å.
    tolerance : float
        Largest error of the derivative, relative to its largest value, beyond 0.1 Å.

    Returns
    -------
    tables : list of (nodes + 4, W) float64
    nodes : int
    bend : float
        The c of the coordinate, Å.
    """
    last = _SPLINE_NODES[-1]
    # Slopes get better with the fifth power of the nodes, at first faster, hardly ever with the eighth.
    needed = dict.fromkeys(_BENDS, 0.0)
    # The function that needed more nodes last comes first.
    order = list(range(len(functions)))
    for nodes in _SPLINE_NODES:
        for bend in _BENDS:
            if nodes < needed[bend] and nodes != last:
                continue
            places = _Places(cutoff, nodes, bend)
            tables: dict[int, Tensor] = {}
            for k in order:
                tables[k] = _spline(functions[k], places)
                error = _spline_error(tables[k], functions[k], places)
                if error > tolerance and nodes != last:
                    needed[bend] = nodes * (error / tolerance) ** (1 / 8)
                    order.insert(0, order.pop(order.index(k)))
                    break
            else:
                return [tables[k] for k in range(len(functions))], nodes, bend
    raise AssertionError("the last number of nodes is taken whatever its error")


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


def spline_weights(t: float, derivative: int) -> list[float]:
    """Weights of the six coefficients for the value, or a derivative by t, at 0 ≤ t ≤ 1 between two nodes."""
    pieces = [
        [1, -5, 10, -10, 5, -1],
        [26, -50, 20, 20, -20, 5],
        [66, 0, -60, 0, 30, -10],
        [26, 50, 20, -20, -20, 10],
        [1, 5, 10, 10, 5, -5],
        [0, 0, 0, 0, 0, 1],
    ]
    return [float(np.polynomial.Polynomial(piece).deriv(derivative)(t)) / 120.0 for piece in pieces]


class _Places:
    """Nodes of splines, and the coordinate in which they are evenly spaced."""

    def __init__(self, cutoff: float, nodes: int, bend: float):
        self.cutoff, self.nodes, self.bend = cutoff, nodes, bend
        self.scale = (nodes - 1) * (cutoff + bend) / cutoff

    def distances(self, x: Tensor) -> Tensor:
        """Å, of places counted in nodes; not zero itself, where a Bessel function is 0/0, nor quite the cutoff."""
        return (self.bend * x / (self.scale - x)).clamp(1e-3, self.cutoff * (1.0 - 1e-12))

    def slopes(self, distances: Tensor) -> Tensor:
        """dx/dr."""
        return self.scale * self.bend / (distances + self.bend) ** 2


def _spline(function: Tabulated, places: _Places) -> Tensor:
    """Coefficients of the spline with the values of a function at nodes, and two derivatives of it at both ends."""
    distances = places.distances(torch.arange(places.nodes, dtype=torch.float64))
    values = derivatives(function, distances, 1)[0].numpy()
    ends = distances[[0, -1]]
    at_ends, first, second = (d.numpy() for d in derivatives(function, ends, 3))
    # To zero itself and to the cutoff, from where the function was evaluated.
    off = float(ends[0])
    values[0] = at_ends[0] - off * first[0] + 0.5 * off**2 * second[0]
    values[-1] = at_ends[-1] + (places.cutoff - float(ends[-1])) * first[-1]
    first[0] -= off * second[0]
    # By x: dr/dx = 1/x', d²r/dx² = −x''/x'³ with x'' = −2 x'/(r + c).
    r = np.array([0.0, places.cutoff])[:, None]
    by_x = (r + places.bend) ** 2 / (places.scale * places.bend)
    second = second * by_x**2 + first * 2.0 * by_x**2 / (r + places.bend)
    first = first * by_x
    rows = np.concatenate([first[:1], second[:1], values, second[1:], first[1:]])
    return torch.from_numpy(solve_banded((4, 4), _collocation(places.nodes), rows))


def _collocation(nodes: int) -> np.ndarray:
    """Weights of coefficients in the equations of `_spline`, as the diagonals of a matrix; row 4 is the main one."""
    n = nodes + 4
    value, first, second = (spline_weights(0.0, k)[:5] for k in range(3))
    bands = np.zeros((9, n))

    def put(row: int, start: int, weights: list[float]) -> None:
        for k, weight in enumerate(weights):
            bands[4 + row - (start + k), start + k] = weight

    put(0, 0, first)
    put(1, 0, second)
    for k, weight in enumerate(value):
        bands[6 - k, k : k + nodes] = weight
    put(n - 2, n - 5, second)
    put(n - 1, n - 5, first)
    return bands


def _spline_error(table: Tensor, function: Tabulated, places: _Places) -> float:
    """Largest error of the derivative near where it is largest, as `_slope_error`."""
    at = torch.arange(places.nodes - 1, dtype=torch.float64) + 0.25
    distances = places.distances(at)
    exact = derivatives(function, distances, 2)[1]
    rows = table.unfold(0, 6, 1)
    found = rows @ torch.tensor(spline_weights(0.25, 1), dtype=table.dtype) * places.slopes(distances)[:, None]
    error = (found - exact).abs()[distances > _CLOSEST]
    return float(error.max() / exact.abs().max().clamp(min=1e-30))


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
