"""Layers of EquiformerV2 that know nothing of neighbours: convolutions of orders, maps of degrees, norms.

They start as fairchem's do: normal weights of deviation one over the root of what comes in, no biases.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from asecalc_mlip.models.activation import silu
from asecalc_mlip.models.constants import Places, Table
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.so2 import Grid, complex_product, edge_grid, joined, parts_by_m
from asecalc_mlip.models.spherical import EdgeRotations, SphereGrid

__all__ = [
    "DegreeNorm",
    "EdgeScalars",
    "FeedForward",
    "SO2Convolution",
    "SO3Linear",
    "component_factors",
    "normal_start",
    "row_scales",
    "scaled_edge_grid",
    "smooth_leaky_relu",
    "with_scalars",
]


def smooth_leaky_relu(x: Tensor) -> Tensor:
    """0.6 x + 0.4 x (2 sigmoid(x) − 1): slope 0.2 far below zero, 1 far above."""
    return x * (0.2 + 0.8 * torch.sigmoid(x))


def with_scalars(scalars: Tensor, x: Tensor) -> Tensor:
    """x (N, M, F) with other coefficients (N, F) in the first place, that of degree 0."""
    return torch.cat([scalars[:, None], x[:, 1:]], dim=1)


def normal_start(module: nn.Module) -> None:
    """Give a linear layer normal weights of deviation 1/√(width of its input), and no bias."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.in_features))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def component_factors(l_max: int) -> list[float]:
    """Factors of each degree that e3nn calls "component": values have variance 1 where coefficients have."""
    return [math.sqrt(4 * math.pi / ((2 * degree + 1) * (l_max + 1))) for degree in range(l_max + 1)]


def _scale(degree: int, m_max: int) -> float:
    """√((2l + 1)/(2 m_max + 1)) of degrees of which rows are left out, else 1."""
    return math.sqrt((2 * degree + 1) / (2 * m_max + 1)) if degree > m_max else 1.0


def row_scales(rotations: EdgeRotations) -> Tensor:
    """Factors of the rows on the way back from the frames of edges, (M, 1)."""
    scales = [_scale(degree, rotations.m_max) for degree, _ in rotations.orders]
    return torch.tensor(scales, dtype=torch.float64)[:, None]


def scaled_edge_grid(rotations: EdgeRotations, grid: Grid) -> SphereGrid:
    """Grid whose coefficients of high degree are scaled on both ways, as published."""
    scales = [_scale(degree, rotations.m_max) for degree in range(rotations.l_max + 1)]
    factors = component_factors(rotations.l_max)
    there = [s * f for s, f in zip(scales, factors, strict=True)]
    return edge_grid(rotations, grid, factors=there, back=[s / f for s, f in zip(scales, factors, strict=True)])


class EdgeScalars(nn.Module):
    """R(b): two hidden layers with norms, from radial functions and embeddings of both elements."""

    def __init__(self, n_edge: int, n_rbf: int, n_out: int):
        super().__init__()
        self.neighbor = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_edge)
        self.center = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_edge)
        for table in (self.neighbor, self.center):
            nn.init.uniform_(table.weight, -0.001, 0.001)
        first, middle, last = nn.Linear(n_rbf + 2 * n_edge, n_edge), nn.Linear(n_edge, n_edge), nn.Linear(n_edge, n_out)
        for layer in (first, middle, last):
            bound = 1.0 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
        norms = nn.LayerNorm(n_edge), nn.LayerNorm(n_edge)
        self.radial = nn.Sequential(first, norms[0], nn.SiLU(), middle, norms[1], nn.SiLU(), last)

    def of_ends(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (N, n_edge) of atoms as neighbours and as centres."""
        return self.neighbor(numbers), self.center(numbers)

    def forward(self, basis: Tensor, of_neighbor: Tensor, of_center: Tensor) -> Tensor:
        """(E, n_rbf) and twice (E, n_edge) to (E, n_out)."""
        return self.radial(torch.cat([basis, of_neighbor, of_center], dim=1))


class SO2Convolution(nn.Module):
    """S: coefficients in the frames of edges to others, for each |m| by itself.

    Parameters
    ----------
    n_in, n_out : int
        Features of each coefficient.
    rotations : EdgeRotations
    n_more : int
        Numbers that come out besides, from m = 0.
    """

    def __init__(self, n_in: int, n_out: int, rotations: EdgeRotations, *, n_more: int = 0):
        super().__init__()
        self.l_max, self.m_max = rotations.l_max, rotations.m_max
        self.n_out, self.n_more = n_out, n_more
        degrees = [self.l_max + 1 - m for m in range(self.m_max + 1)]
        self.widths = [k * n_in for k in degrees]
        self.n_radial = sum(self.widths)
        self.maps = nn.ModuleList([nn.Linear(self.widths[0], degrees[0] * n_out + n_more)])
        # Real weights and then imaginary ones.
        self.maps.extend(nn.Linear(k * n_in, 2 * k * n_out, bias=False) for k in degrees[1:])
        self.apply(normal_start)

    def forward(self, x: Tensor, radial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(E, M, n_in) and factors (E, n_radial) or None to (E, M, n_out) and (E, n_more)."""
        parts = parts_by_m(x, self.l_max, self.m_max)
        if radial is not None:
            factors = radial.split(self.widths, dim=1)
            parts = [part * factor[:, None] for part, factor in zip(parts, factors, strict=True)]
        found = [layer(part) for layer, part in zip(self.maps, parts, strict=True)]
        first = found[0].squeeze(1)
        more, scalars = first[:, : self.n_more], first[:, None, self.n_more :]
        pairs = [complex_product(*part.chunk(2, dim=-1)) for part in found[1:]]
        return joined([scalars, *pairs], self.n_out), more


class SO3Linear(nn.Module):
    """One matrix for each degree, and a bias for degree 0."""

    def __init__(self, n_in: int, n_out: int, l_max: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(l_max + 1, n_out, n_in))
        nn.init.normal_(self.weight, std=1.0 / math.sqrt(n_in))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self._sizes = [2 * degree + 1 for degree in range(l_max + 1)]

    def forward(self, x: Tensor) -> Tensor:
        """(N, (l_max + 1)², n_in) to (N, (l_max + 1)², n_out)."""
        parts = [part @ w.T for part, w in zip(x.split(self._sizes, dim=1), self.weight, strict=True)]
        return torch.cat([parts[0] + self.bias, *parts[1:]], dim=1)


class DegreeNorm(nn.Module):
    """Coefficients divided by the root of their mean square, with a factor for each degree and feature.

    Parameters
    ----------
    kind : {"layer", "rms"}
        "layer" norms degree 0 by itself and the others together; "rms" all together, with degree 0 about its mean.
    l_max, n_features : int
    """

    def __init__(self, kind: str, l_max: int, n_features: int):
        super().__init__()
        if kind not in ("layer", "rms"):
            raise ValueError(f"norm {kind!r} is unknown; choose layer or rms")
        self.scalars = nn.LayerNorm(n_features) if kind == "layer" else None
        self.weight = nn.Parameter(torch.ones(l_max + (self.scalars is None), n_features))
        if self.scalars is None:
            self.bias = nn.Parameter(torch.zeros(n_features))
        degrees = range(l_max + 1) if self.scalars is None else range(1, l_max + 1)
        # Of each coefficient, the row of `weight`, and a share that makes each degree count the same.
        sizes = torch.tensor([2 * degree + 1 for degree in degrees])
        self._rows = Places(torch.arange(len(degrees)).repeat_interleave(sizes))
        self._shares = Table((1.0 / sizes.double() / len(degrees)).repeat_interleave(sizes)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, (l_max + 1)², F) to the same."""
        if self.scalars is not None:
            return with_scalars(self.scalars(x[:, 0]), torch.cat([x[:, :1], self._scaled(x[:, 1:])], dim=1))
        x = with_scalars(x[:, 0] - x[:, 0].mean(-1, keepdim=True), x)
        x = self._scaled(x)
        return with_scalars(x[:, 0] + self.bias, x)

    def _scaled(self, x: Tensor) -> Tensor:
        size = (x.square() * self._shares.like(x)).sum(1, keepdim=True).mean(2, keepdim=True)
        weights = self.weight.index_select(0, self._rows.like(x))
        return x * (torch.rsqrt(size + 1e-5) * weights)


class FeedForward(nn.Module):
    """A function of the signals of one atom, at the points of the sphere; scalars by themselves.

    Parameters
    ----------
    n_features, n_hidden, l_max : int
    grid : SphereGrid
    on_points : {"grid", "activation"}
        Three maps with silu between them at each point, or silu alone.
    """

    def __init__(self, n_features: int, n_hidden: int, l_max: int, grid: SphereGrid, *, on_points: str):
        super().__init__()
        if on_points not in ("grid", "activation"):
            raise ValueError(f"feed_forward {on_points!r} is unknown; choose grid or activation")
        self.grid = grid
        self.scalars = nn.Linear(n_features, n_hidden)
        self.first = SO3Linear(n_features, n_hidden, l_max)
        n_maps = 3 if on_points == "grid" else 0
        self.maps = nn.ModuleList(nn.Linear(n_hidden, n_hidden, bias=False) for _ in range(n_maps))
        self.last = SO3Linear(n_hidden, n_features, l_max)
        self.scalars.apply(normal_start)
        self.maps.apply(normal_start)

    def forward(self, x: Tensor) -> Tensor:
        """(N, (l_max + 1)², F) to the same."""
        y = self.first(x)
        if self.maps:
            # The outer maps have no bias, so they may act on coefficients, which are fewer than points.
            first, middle, last = self.maps
            y = silu(middle(silu(self.grid.values(first(y)))))
            y = last(self.grid.coefficients(y))
        else:
            y = self.grid.coefficients(silu(self.grid.values(y)))
        return self.last(with_scalars(silu(self.scalars(x[:, 0])), y))
