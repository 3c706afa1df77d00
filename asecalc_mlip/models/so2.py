"""Parts that eSCN and EquiformerV2 share: maps of coefficients in the frames of edges, and sums over neighbours.

Coefficients (E, M, F) come in the order of `asecalc_mlip.models.spherical.EdgeRotations`: those of m = 0, then for each
m > 0 the ones of m and of −m. A pair (x_m, x_−m) is a complex number to these maps:

    y_m = W_r x_m − W_i x_−m,    y_−m = W_r x_−m + W_i x_m

which the frame's angle about the edge turns as it turns x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.layers import edge_geometry
from asecalc_mlip.models.radial import envelope_by_name
from asecalc_mlip.models.spherical import EdgeRotations, SphereGrid, orders, sphere_points

__all__ = [
    "Edges",
    "Ends",
    "Grid",
    "complex_product",
    "edge_grid",
    "edges_of",
    "end_of",
    "joined",
    "node_grid",
    "parts_by_m",
    "sum_to_centers",
]

Grid = Literal["fine", "published"]
Ends = Literal["smooth", "cosine", "none"]
# Radial functions (E, n_rbf), envelope (E, 1), rotations (E, M, S), centres and neighbours (E,).
Edges = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def end_of(name: Ends) -> Callable[[Tensor, float], Tensor]:
    """Return the function of distances (Å) and cutoff (Å) on all that an edge passes on; "none" is a step."""
    return _step if name == "none" else envelope_by_name(name)


def edges_of(
    graph: AtomGraph, dtype: torch.dtype, basis: nn.Module, end: Callable, rotations: EdgeRotations, cutoff: float
) -> Edges:
    """Tensors of the edges that every block uses."""
    distances, directions = edge_geometry(graph, dtype)
    envelope = end(distances, cutoff)[:, None]
    return basis(distances), envelope, rotations(directions), graph.centers, graph.neighbors


def node_grid(l_max: int, grid: Grid, **options: Any) -> SphereGrid:
    """Grid for the coefficients of atoms, of degree l_max; `options` are those of `SphereGrid`.

    The fine one is dense enough that the frame it stands in matters no more than about 1e-5, most often less.
    """
    if _checked(grid) == "published":
        return SphereGrid(orders(l_max), *sphere_points(2 * l_max + 2, 2 * l_max + 3, gauss=False), **options)
    return SphereGrid(orders(l_max), *sphere_points(4 * l_max + 6, 8 * l_max + 12), **options)


def edge_grid(rotations: EdgeRotations, grid: Grid, **options: Any) -> SphereGrid:
    """Grid in the frames of edges; the fine one is dense about the edge, where the angle of the frame is arbitrary."""
    l_max, m_max = rotations.l_max, rotations.m_max
    if _checked(grid) == "published":
        n_long = 2 * m_max + (3 if l_max == m_max else 1)
        return SphereGrid(rotations.orders, *sphere_points(2 * l_max + 2, n_long, gauss=False), **options)
    return SphereGrid(rotations.orders, *sphere_points(l_max + 1, 6 * m_max + 8), **options)


def parts_by_m(x: Tensor, l_max: int, m_max: int) -> list[Tensor]:
    """(E, M, F) as (E, 1, (l_max + 1) F) for m = 0, and (E, 2, (l_max + 1 − m) F) for each m > 0."""
    degrees = [l_max + 1 - m for m in range(m_max + 1)]
    parts = x.split([k * (2 if m else 1) for m, k in enumerate(degrees)], dim=1)
    found = zip(parts, degrees, strict=True)
    return [part.reshape(x.shape[0], part.shape[1] // k, k * x.shape[2]) for part, k in found]


def joined(parts: Sequence[Tensor], n_features: int) -> Tensor:
    """Back from the parts to (E, M, F)."""
    sizes = [part.shape[1] * part.shape[2] // n_features for part in parts]
    return torch.cat([part.reshape(part.shape[0], k, n_features) for part, k in zip(parts, sizes, strict=True)], dim=1)


def complex_product(real: Tensor, imaginary: Tensor) -> Tensor:
    """y from W_r x and W_i x, both (E, 2, …) with m before −m."""
    return torch.stack([real[:, 0] - imaginary[:, 1], real[:, 1] + imaginary[:, 0]], dim=1)


def sum_to_centers(messages: Tensor, centers: Tensor, n_atoms: int) -> Tensor:
    """(E, …) to (N, …)."""
    return messages.new_zeros(n_atoms, *messages.shape[1:]).index_add(0, centers, messages)


def _step(distances: Tensor, cutoff: float) -> Tensor:
    return (distances < cutoff).to(distances)


def _checked(grid: str) -> str:
    if grid not in ("fine", "published"):
        raise ValueError(f"grid {grid!r} is unknown; choose fine or published")
    return grid
