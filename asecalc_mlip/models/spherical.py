r"""Signals on the sphere: real spherical harmonics, rotations that turn edges onto one axis, and grids of points.

The convention is that of e3nn: the y axis is the polar one, a point is (sin β sin α, cos β, sin β cos α), and Y_lm has
sin |m|α for m < 0 and cos mα for m > 0. Y_1 is therefore (x, y, z) but for a factor. The harmonics are orthonormal.

A rotation R turns coefficients by D: Y_l(R v) = D_l(R) Y_l(v). With R û = y the coefficients of an atom turn into the
frame of one of its edges, where those of order m change by nothing but an angle m γ if the frame turns about the edge;
so a map that mixes only coefficients of one |m|, as a complex number, is equivariant (Passaro, Zitnick, ICML 2023,
arXiv 2302.03655). Only the rows |m| ≤ m_max are made, by the coupling C of 1 and l − 1 to l, without any angle:

    D_l = C (R ⊗ D_{l−1}) Cᵀ,  of which row m < l is  (û ⊗ row m of D_{l−1}) Cᵀ / C_{m, ym}

These are polynomials of R, and R is a smooth function of û on each half of the sphere (`edge_frames`), so that
derivatives of any order exist, at the poles too. Between the halves the frame turns about the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from asecalc_mlip.models.constants import Places, Table
from asecalc_mlip.models.harmonics import orders_by_m, real_harmonics

__all__ = [
    "EdgeRotations",
    "SphereGrid",
    "SphereMean",
    "edge_frames",
    "orders",
    "spherical_harmonics",
    "sphere_points",
]

# Points of the spiral that eSCN is published with.
_SPIRAL = 128
# (l, m) of each coefficient
Orders = Sequence[tuple[int, int]]


def orders(l_max: int, m_max: int | None = None) -> list[tuple[int, int]]:
    """(l, m) of the coefficients of a signal: l = 0 … l_max and in each m = −l … l, those with |m| ≤ m_max."""
    most = l_max if m_max is None else m_max
    return [(degree, m) for degree in range(l_max + 1) for m in range(-min(degree, most), min(degree, most) + 1)]


def spherical_harmonics(l_max: int, points: Tensor) -> Tensor:
    """Y_lm of points (P, 3), (P, (l_max + 1)²) in the order of `orders`; on a sphere of radius r times r^l."""
    # Those of harmonics.py have z for the polar axis, and their squares have the mean 1.
    turned, square = points[:, [2, 0, 1]], points.square().sum(-1)
    return real_harmonics(turned, l_max + 1, square) / math.sqrt(4 * math.pi)


def sphere_points(n_lat: int, n_long: int, *, gauss: bool = True) -> tuple[Tensor, Tensor]:
    """Points (P, 3) of latitudes times longitudes, latitude the slower, and weights (P,), which sum to 4π; float64.

    Parameters
    ----------
    n_lat, n_long : int
        With Gauss's latitudes, harmonics are summed exactly up to degree 2 n_lat − 1, and order n_long − 1.
    gauss : bool
        False takes latitudes at equal angles (Driscoll, Healy, Adv. Appl. Math. 15 (1994) 202), as e3nn does; exact
        up to degree n_lat − 1. Their number must be even.
    """
    if gauss:
        cosines, weights = _gauss(n_lat)
    else:
        beta = (torch.arange(n_lat, dtype=torch.float64) + 0.5) * (math.pi / n_lat)
        odd = 2 * torch.arange(n_lat // 2, dtype=torch.float64) + 1
        series = (torch.sin(odd * beta[:, None]) / odd).sum(-1)
        cosines, weights = torch.cos(beta), (4.0 / n_lat) * torch.sin(beta) * series
    alpha = torch.arange(n_long, dtype=torch.float64) * (2 * math.pi / n_long)
    sines = (1.0 - cosines.square()).sqrt()[:, None]
    height = cosines[:, None].expand(-1, n_long)
    points = torch.stack([sines * torch.sin(alpha), height, sines * torch.cos(alpha)], dim=-1)
    return points.flatten(0, 1), (weights * (2 * math.pi / n_long)).repeat_interleave(n_long)


class SphereGrid:
    """Coefficients to values on points of the sphere and back, where the sums over points are integrals.

    Parameters
    ----------
    of : sequence of (int, int)
        (l, m) of the coefficients.
    points : (P, 3)
    weights : (P,)
    factors : sequence of float, optional
        On the coefficients of each degree on the way to the points; default 1.
    back : sequence of float, optional
        On those of each degree on the way back; default: one over `factors`, so that back is the inverse.
    """

    def __init__(
        self,
        of: Orders,
        points: Tensor,
        weights: Tensor,
        *,
        factors: Sequence[float] | None = None,
        back: Sequence[float] | None = None,
    ):
        l_max = max(degree for degree, _ in of)
        there = [1.0] * (l_max + 1) if factors is None else factors
        again = [1.0 / factor for factor in there] if back is None else back
        columns = [degree * degree + degree + m for degree, m in of]
        values = spherical_harmonics(l_max, points.double())[:, columns]
        self.n_points = len(points)
        self._to = Table(values * torch.tensor([there[degree] for degree, _ in of], dtype=torch.float64))
        scaled = values * torch.tensor([again[degree] for degree, _ in of], dtype=torch.float64)
        self._back = Table((scaled * weights.double()[:, None]).T.contiguous())

    def values(self, x: Tensor) -> Tensor:
        """Coefficients (N, M, F) to values (N, P, F)."""
        return self._to.like(x) @ x

    def coefficients(self, values: Tensor) -> Tensor:
        """Return the coefficients (N, M, F) of values (N, P, F)."""
        return self._back.like(values) @ values


class SphereMean:
    """Values on the sphere that the heads read, and means over them.

    Parameters
    ----------
    l_max : int
    fine : bool
        Whether the sums over points are integrals; else as published: points on a spiral, each at a radius by the
        density of points around it (Zitnick et al., NeurIPS 2022, arXiv 2206.14331).
    """

    def __init__(self, l_max: int, *, fine: bool):
        if not fine:
            points = _spiral(_SPIRAL)
            weights = torch.full((_SPIRAL,), 1.0 / _SPIRAL, dtype=torch.float64)
        else:
            points, weights = sphere_points(4 * l_max + 2, 8 * l_max + 4)
            weights = weights / (4 * math.pi)
        self._grid = SphereGrid(orders(l_max), points, weights)
        self._weights = Table(weights)
        self._points = Table(points * weights[:, None])

    def values(self, x: Tensor) -> Tensor:
        """(N, (l_max + 1)², F) to (N, P, F)."""
        return self._grid.values(x)

    def mean(self, values: Tensor) -> Tensor:
        """(N, P, 1) to (N,)."""
        return values.squeeze(-1) @ self._weights.like(values)

    def vector(self, values: Tensor) -> Tensor:
        """Mean of values (N, P, 1) times the points, (N, 3)."""
        return values.squeeze(-1) @ self._points.like(values)


def edge_frames(directions: Tensor) -> Tensor:
    """Rotations (E, 3, 3) that turn unit vectors (E, 3) onto the y axis, smooth on each half of the sphere.

    Where y ≥ 0 it is the shortest one; where y < 0 the shortest onto −y and then half a turn about x.
    """
    sign = torch.where(directions[:, 1] < 0, -1.0, 1.0).to(directions)
    x, y, z = (directions * sign[:, None]).unbind(-1)
    near = 1.0 / (1.0 + y)
    first = torch.stack([1.0 - x * x * near, -x, -x * z * near], dim=-1)
    last = torch.stack([-x * z * near, -z, 1.0 - z * z * near], dim=-1)
    return torch.stack([first, directions, last * sign[:, None]], dim=1)


class EdgeRotations:
    """Matrices that turn coefficients into the frames of edges, and keep those with |m| ≤ m_max.

    Parameters
    ----------
    l_max, m_max : int

    Attributes
    ----------
    orders : list of (int, int)
        (l, m) of the rows: m = 0 first, then 1, −1, 2, … ; columns are as in `orders(l_max)`.
    """

    def __init__(self, l_max: int, m_max: int):
        if not (isinstance(l_max, int) and isinstance(m_max, int) and 1 <= l_max and 0 <= m_max <= l_max):
            raise ValueError(f"l_max is {l_max!r} and m_max {m_max!r}; l_max is at least 1 and m_max 0 to l_max")
        self.l_max, self.m_max = l_max, m_max
        self.orders = orders_by_m(l_max, m_max)
        of_rows = orders(l_max, m_max)
        self._order = Places([of_rows.index(order) for order in self.orders])
        self._couplings = [Table(coupling(degree)) for degree in range(2, l_max + 1)]
        self._factors = [Table(_row_factors(degree, min(degree - 1, m_max))) for degree in range(2, l_max + 1)]

    def __call__(self, directions: Tensor) -> Tensor:
        """Return the matrices (E, M, (l_max + 1)²) of unit vectors (E, 3)."""
        return self.of_frames(edge_frames(directions))

    def of_frames(self, frames: Tensor) -> Tensor:
        """Rotations (E, 3, 3) to matrices (E, M, (l_max + 1)²)."""
        rows = [torch.ones_like(frames[:, :1, :1]), frames if self.m_max else frames[:, 1:2]]
        for degree in range(2, self.l_max + 1):
            rows.append(self._next(degree, frames, rows[-1]))
        size = (self.l_max + 1) ** 2
        wide = [
            torch.nn.functional.pad(part, (degree**2, size - (degree + 1) ** 2)) for degree, part in enumerate(rows)
        ]
        rows_by_m = self._order.like(frames)
        return torch.cat(wide, dim=1).index_select(1, rows_by_m)

    def _next(self, degree: int, frames: Tensor, before: Tensor) -> Tensor:
        """Rows (E, ≤ 2l + 1, 2l + 1) of D_l from those of D_{l−1}."""
        coupling = self._couplings[degree - 2].like(frames)
        flat = coupling.flatten(1).T
        short = (frames[:, 1, None, :, None] * before[:, :, None, :]).flatten(2) @ flat
        short = short * self._factors[degree - 2].like(frames)
        if degree > self.m_max:
            return short
        ends = torch.einsum("cab,eai,ebj->ecij", coupling[:: 2 * degree], frames, before).flatten(2) @ flat
        return torch.cat([ends[:, :1], short, ends[:, 1:]], dim=1)


@lru_cache
def coupling(degree: int) -> Tensor:
    """C of 1 ⊗ (l − 1) → l, (2l + 1, 3, 2l − 1) float64, with orthonormal rows: the integrals of Y_1 Y_{l−1} Y_l."""
    points, weights = sphere_points(degree + 1, 2 * degree + 2)
    values = spherical_harmonics(degree, points)
    one, low, high = (values[:, k**2 : (k + 1) ** 2] for k in (1, degree - 1, degree))
    found = torch.einsum("p,pa,pb,pc->cab", weights, one, low, high)
    return found / found[0].norm()


def _row_factors(degree: int, m_max: int) -> Tensor:
    """One over C_{m, ym} for m = −m_max … m_max, (2 m_max + 1, 1)."""
    table = coupling(degree)
    found = [[1.0 / float(table[degree + m, 1, degree - 1 + m])] for m in range(-m_max, m_max + 1)]
    return torch.tensor(found, dtype=torch.float64)


def _spiral(n: int) -> Tensor:
    """Points (n, 3) float64 along a golden spiral, at radii by the number of others around each."""
    i = torch.arange(n, dtype=torch.float64)[:, None]
    theta, phi = 4 * math.pi / (1 + math.sqrt(5)) * i, torch.arccos(1 - 2 * (i + 0.5) / n)
    points = torch.cat([torch.cos(theta) * torch.sin(phi), torch.sin(theta) * torch.sin(phi), torch.cos(phi)], dim=1)
    squares = (points[None] - points[:, None]).square().sum(-1)
    radii = 1.0 / torch.exp(-squares / 0.15).sum(1)
    return points * (radii * (n / radii.sum()))[:, None]


def _gauss(n: int) -> tuple[Tensor, Tensor]:
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights)
