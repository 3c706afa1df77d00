r"""Real spherical harmonics as polynomials, and their rotation by their values at fixed points.

    Y_lm(v̂) = N_lm Π_l^m(z) C_m(x, y)  for m ≥ 0,   N_lm Π_l^|m|(z) S_|m|(x, y)  for m < 0,   C_m + i S_m = (x + iy)^m

Π_l^m is the m-th derivative of the Legendre polynomial P_l, and N_lm makes the mean of Y² over the sphere 1. Everything
is a polynomial of the unit vector, so nothing is singular at the poles.

A function f = Σ c_lm Y_lm has other coefficients after a rotation R, Y(R v̂) = D(R) Y(v̂). With points X_k, as many as
there are harmonics, D(R) = Y(R X) Y(X)⁻¹: so q = Y(X)⁻¹ c is made once, and Y(R X) q for each rotation.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.models.constants import Places, Table

__all__ = [
    "by_order",
    "columns_by_order",
    "fixed_points",
    "harmonic_tables",
    "orders_by_m",
    "point_weights",
    "real_harmonics",
]


def real_harmonics(directions: Tensor, n_angular: int, square: Tensor | float = 1.0) -> Tensor:
    """Y_lm of unit vectors (…, 3) for l < `n_angular`, (…, n_angular²), that of (l, m) at l² + l + m.

    Of vectors of another length r, whose `square` (…) must be told, they are r^l times as large.
    """
    x, y, z = directions.unbind(-1)
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)
    found: list[Tensor] = [x] * n_angular**2
    for m in range(n_angular):
        if m:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
        for n, legendre in zip(range(m, n_angular), _derivatives(z, m, n_angular, square), strict=True):
            size = math.sqrt((2 * n + 1) * math.factorial(n - m) / math.factorial(n + m) * (2 if m else 1))
            found[n * n + n + m] = size * legendre * cosine
            if m:
                found[n * n + n - m] = size * legendre * sine
    return torch.stack(found, dim=-1)


@cache
def fixed_points(n_angular: int) -> Tensor:
    """X, n_angular² unit vectors, float64, at which harmonics are well told apart."""
    best, size = np.zeros((0, 3)), math.inf
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.normal(size=(n_angular**2, 3))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        condition = float(np.linalg.cond(real_harmonics(torch.from_numpy(points), n_angular).numpy()))
        if condition < size:
            best, size = points, condition
    return torch.from_numpy(best)


@cache
def point_weights(n_angular: int) -> Tensor:
    """Y(X)⁻¹ with the harmonics as its columns, (points, n_angular²) float64."""
    return torch.linalg.inv(real_harmonics(fixed_points(n_angular), n_angular).T)


def columns_by_order(n_angular: int) -> list[int]:
    """Places l² + l + m of harmonics in the order of `orders_by_m`."""
    return [degree * degree + degree + m for degree, m in orders_by_m(n_angular - 1, n_angular - 1)]


def orders_by_m(l_max: int, m_max: int) -> list[tuple[int, int]]:
    """(l, m) of all l ≤ l_max and |m| ≤ m_max in the order m = 0, 1, −1, 2, −2, …, with l ascending in each."""
    ms = [0, *(sign * m for m in range(1, m_max + 1) for sign in (1, -1))]
    return [(degree, m) for m in ms for degree in range(abs(m), l_max + 1)]


class HarmonicTables(NamedTuple):
    """X and Y(X)⁻¹ as above, and `columns_by_order`, where they are needed."""

    points: Table
    weights: Table
    columns: Places


@cache
def harmonic_tables(n_angular: int) -> HarmonicTables:
    """Return them for l < `n_angular`, one set for all networks."""
    points, weights = Table(fixed_points(n_angular)), Table(point_weights(n_angular))
    return HarmonicTables(points, weights, Places(columns_by_order(n_angular)))


def by_order(x: Tensor, axis: int, n_angular: int) -> Tensor:
    """Put harmonics along an axis in the order of `columns_by_order`."""
    return x.index_select(axis, harmonic_tables(n_angular).columns.like(x))


def _derivatives(z: Tensor, m: int, n_angular: int, square: Tensor | float) -> list[Tensor]:
    """Return the m-th derivatives of the Legendre polynomials P_m, P_m+1 … at z, made homogeneous by r²."""
    found = [torch.full_like(z, math.prod(range(1, 2 * m, 2)))]
    if m + 1 < n_angular:
        found.append((2 * m + 1) * z * found[0])
    for n in range(m + 2, n_angular):
        found.append(((2 * n - 1) * z * found[-1] - (n + m - 1) * square * found[-2]) / (n - m))
    return found
