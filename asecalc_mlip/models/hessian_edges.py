"""Edges in the exact Hessians of PaiNN and TensorNet: geometry, filters, products with matrices over pairs of atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.layers import edge_geometry

__all__ = ["Edges", "add_edges", "bend_edges", "completed", "cross", "dense", "mixed", "moved", "radial_blocks"]


@dataclass
class Edges:
    """Geometry of edges, and the filters of all blocks with two derivatives by the distance, (E, 3F · blocks)."""

    i: Tensor
    j: Tensor
    d: Tensor
    u: Tensor
    filters: tuple[Tensor, Tensor, Tensor]
    n_atoms: int

    @classmethod
    def of(cls, network: Any, graph: AtomGraph) -> Edges:
        """Compute distances, directions and filters, with their first two derivatives, of all edges."""
        d, u = edge_geometry(graph, network.filters.weight.dtype)
        full = torch.cat([network.filters.weight, network.filters.bias[:, None]], dim=1)
        filters = tuple(nn.functional.linear(basis, full) for basis in _basis(network, d))
        return cls(graph.centers, graph.neighbors, d[:, None], u, filters, graph.n_atoms)  # type: ignore[arg-type]

    def block(self, number: int, n_features: int) -> list[list[Tensor]]:
        """[W, W′, W″] of a block, each in its three parts (E, F)."""
        start = 3 * n_features * number
        return [list(f[:, start : start + 3 * n_features].split(n_features, dim=1)) for f in self.filters]


def bend_edges(
    edges: Edges, slope: Tensor, bend: Tensor, m: Tensor, along: Tensor, first: Tensor, second: Tensor, total: Tensor
) -> None:
    """Add two derivatives by the geometry of an edge, of α(d) and of γ(d) · v; γ' = Σ m · first, and so γ″."""
    u, d = edges.u, edges.d
    gamma1 = torch.bmm(m, first[:, :, None])  # (E, 3, 1)
    gamma1v, gamma2v = ((along * part).sum(1) * d[:, 0] for part in (first, second))
    turned = gamma1 * u[:, None, :]
    blocks = radial_blocks(edges, slope + gamma1v, bend + gamma2v)
    add_edges(total, edges, blocks + turned + turned.transpose(1, 2))


def radial_blocks(edges: Edges, slope: Tensor, bend: Tensor) -> Tensor:
    """Second derivatives (E, 3, 3) by its vector of a function of the length with these two derivatives (E,)."""
    along = edges.u[:, :, None] * edges.u[:, None, :]
    across = (torch.eye(3, dtype=along.dtype, device=along.device) - along) / edges.d[:, :, None]
    return bend[:, None, None] * along + slope[:, None, None] * across


def add_edges(total: Tensor, edges: Edges, blocks: Tensor) -> None:
    """Add second derivatives (E, 3, 3) by edge vectors r_j − r_i to those by positions."""
    n = edges.n_atoms
    found = total.new_zeros(n * n, 3, 3)
    for a, b, sign in ((edges.j, edges.j, 1), (edges.i, edges.i, 1), (edges.i, edges.j, -1), (edges.j, edges.i, -1)):
        found.index_add_(0, a * n + b, sign * blocks)
    total += found.view(n, n, 3, 3).transpose(1, 2).reshape(3 * n, 3 * n)[: len(total), : len(total)]


def completed(part: Tensor) -> Tensor:
    """Second derivatives by all atoms from those by all but the last, since each row and column of blocks is zero."""
    n = len(part) // 3
    rows = torch.cat([part, -part.view(-1, n, 3).sum(1)], dim=1)
    return torch.cat([rows, -rows.view(n, 3, -1).sum(0)])


def mixed(edges: Edges, values: Tensor, tangents: Tensor, senders: Tensor | None = None) -> Tensor:
    """(K, K) of derivatives (E, 3, M) by edge vectors and features of senders, and tangents (M, N, K) of these.

    Senders are the atoms j unless others are given.
    """
    n, senders = edges.n_atoms, edges.j if senders is None else senders
    found = values.new_zeros(n * n, 3, values.shape[2])  # of the sender by the position of any
    found.index_add_(0, senders * n + edges.j, values)
    found.index_add_(0, senders * n + edges.i, values, alpha=-1)
    return torch.bmm(found.view(n, 3 * n, -1)[:, : tangents.shape[-1]], tangents.transpose(0, 1)).sum(0)


def moved(edges: Edges, values: Tensor, k: int) -> Tensor:
    """Tangents (M, N, K) of the sums at atoms i, from their derivatives (E, 3, M) by edge vectors."""
    n = edges.n_atoms
    found = values.new_zeros(n * n, 3, values.shape[2])
    found.index_add_(0, edges.i * n + edges.j, values)
    found.index_add_(0, edges.i * n + edges.i, values, alpha=-1)
    return found.view(n, 3 * n, -1)[:, :k].permute(2, 0, 1)


def dense(edges: Edges, values: Tensor, senders: Tensor | None = None) -> Tensor:
    """Weights (E, M) of edges as matrices over atoms i and senders, (M, N, N); senders as for `mixed`."""
    n, senders = edges.n_atoms, edges.j if senders is None else senders
    found = values.new_zeros(n * n, values.shape[1]).index_add_(0, edges.i * n + senders, values)
    return found.T.reshape(-1, n, n).contiguous()


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Σ ȧ ḃᵀ over all but the last dimension, (K, K)."""
    k = a.shape[-1]
    return a.reshape(-1, k).T @ b.reshape(-1, k)


def _basis(network: Any, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Radial functions (E, R) with two derivatives by the distance."""
    with torch.enable_grad():
        d = d.detach().requires_grad_()
        value = network.radial(d)
        first = _slope(value, d)
        return value.detach(), first.detach(), _slope(first, d).detach()


def _slope(values: Tensor, d: Tensor) -> Tensor:
    """Return the derivative of each column (E, R) by d (E,): that of the linear backward pass by its own input."""
    seed = torch.zeros_like(values, requires_grad=True)
    (back,) = torch.autograd.grad(values, d, seed, create_graph=True)
    return torch.autograd.grad(back.sum(), seed, create_graph=True)[0]
