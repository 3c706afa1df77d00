r"""The exact Hessian of PaiNN by forward tangents: a fraction of the work of one backward pass for each row.

With y = f(z) for every non-linear step, z linear in what came before, and ȳ = ∂E/∂y from one backward pass,

    H = Σ_steps  Σ_y ȳ · żᵀ (∂²f/∂z²) ż,       ż = ∂z/∂r, all columns at once

so that only ż is carried through the network, forwards, and everything else are products of matrices (K, M)(M, K) with
K = 3N − 3: no row goes back through the network. The steps are silu, the norms of vectors, products of scalars and
vectors, and the messages Σ_e x_j W(d_e), whose geometry touches two atoms each.

    symbol   variable                  symbol     variable
    q̇, μ̇     q, mu: (F, N, K), (3, F, N, K)      W, W′, W″  filters of edges, (E, 3F) each
    r_j−r_i  v, of length d, along u   x          message of an atom, in three parts of F
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import painn_message
from asecalc_mlip.models.hessian_edges import Edges, bend_edges, completed, cross, dense, mixed, moved
from asecalc_mlip.models.layers import edge_geometry
from asecalc_mlip.models.vector_head import norms

__all__ = ["painn_bytes", "painn_hessian"]


def painn_bytes(network: Any, n_atoms: int) -> float:
    """Memory that `painn_hessian` takes."""
    # Tangents of 3N coordinates for some thirty features' worth of intermediates; matrices over pairs of atoms.
    return 8.0 * network.n_features * n_atoms**2 * (3 * 30 + 3 * 6 + 10)


@torch.no_grad()
def painn_hessian(network: Any, graph: AtomGraph) -> Tensor:
    """Second derivatives of the sum of a PaiNN's output by the positions of one structure, (3N, 3N) in its dtype."""
    if graph.n_atoms == 1:  # it moves with all its images, or is alone
        return graph.positions.new_zeros(3, 3, dtype=network.filters.weight.dtype)
    steps, readout = _forward(network, graph)
    edges = Edges.of(network, graph)
    # Nothing changes when all atoms move alike, so the columns of the last atom follow from the others.
    n, k = graph.n_atoms, 3 * (graph.n_atoms - 1)
    q = edges.u.new_zeros(network.n_features, n, k)
    mu = edges.u.new_zeros(3, network.n_features, n, k)
    total = edges.u.new_zeros(k, k)
    for block, step in enumerate(steps):
        q, mu = _message_tangents(network, block, step, edges, q, mu, total)
        q, mu = _mixing_tangents(network, block, step, q, mu, total, last=block == len(steps) - 1)
    first: Any = network.readout[0]
    p = _linear(first, q)
    total += _pairs(p, _silu2(readout.p) * readout.adjoint)
    return completed(total)


@dataclass
class _Readout:
    p: Tensor
    adjoint: Tensor


@dataclass
class _Step:
    """Values of a block, (N, …), and derivatives of the energy by some of them, with a bar in the equations."""

    p1: Tensor
    s1: Tensor
    x: Tensor
    mu: Tensor
    message_q: Tensor
    message_mu: Tensor
    v: Tensor
    u: Tensor
    norm: Tensor
    p2: Tensor
    s2: Tensor
    b: Tensor
    c: Tensor
    q_out: Tensor
    mu_out: Tensor
    bars: dict[str, Tensor]


_BARRED = ("s1", "message_q", "message_mu", "norm", "s2", "q_out", "mu_out")


def _forward(network: Any, graph: AtomGraph) -> tuple[list[_Step], _Readout]:
    """One pass forwards that keeps the values, one backwards for the bars."""
    with torch.enable_grad():
        d, u = edge_geometry(graph, network.filters.weight.dtype)
        d, u = d.detach(), u.detach()
        basis, weight = network.radial(d), torch.cat([network.filters.weight, network.filters.bias[:, None]], dim=1)
        q = network.embedding(graph.numbers).detach().requires_grad_()
        mu = q.new_zeros(graph.n_atoms, 3, network.n_features)
        steps = []
        for block, (message, mixing) in enumerate(zip(network.messages, network.mixings, strict=True)):
            p1 = message[0](q)
            s1 = message[1](p1)
            x = message[2](s1)
            width = 3 * network.n_features
            filters = nn.functional.linear(basis, weight[width * block : width * (block + 1)])
            message_q, message_mu = painn_message(filters, u, x, mu, graph.centers, graph.neighbors)
            mu_in, q, mu = mu, q + message_q, mu + message_mu
            v, w = mixing.channels(mu).chunk(2, dim=-1)
            norm = norms(v)
            p2 = mixing.context[0](torch.cat([q, norm], dim=-1))
            s2 = mixing.context[1](p2)
            a, b, c = mixing.context[2](s2).chunk(3, dim=-1)
            q, mu = q + a + c * (v * w).sum(dim=1), mu + b[:, None, :] * w
            steps.append(_Step(p1, s1, x, mu_in, message_q, message_mu, v, w, norm, p2, s2, b, c, q, mu, {}))
        p = network.readout[0](q)
        s = network.readout[1](p)
        wanted = [getattr(step, name) for step in steps for name in _BARRED]
        found = torch.autograd.grad(
            network.readout[2](s).sum(), [*wanted, s], allow_unused=True, materialize_grads=True
        )
    for number, step in enumerate(steps):
        step.bars = dict(zip(_BARRED, found[len(_BARRED) * number :], strict=False))
    return steps, _Readout(p, found[-1])


def _message_tangents(
    network: Any, block: int, step: _Step, edges: Edges, q: Tensor, mu: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """Tangents after the messages of a block, in place; adds its steps' share to the Hessian."""
    size, d, u = network.n_features, edges.d, edges.u
    x1, x2, x3 = (part.index_select(0, edges.j) for part in step.x.split(size, dim=1))
    w, w1, w2 = edges.block(block, size)
    g, m = (step.bars[name].index_select(0, edges.i) for name in ("message_q", "message_mu"))
    over, over1, over2 = w[1] / d, w1[1] / d - w[1] / d**2, w2[1] / d - 2 * w1[1] / d**2 + 2 * w[1] / d**3
    along = (m * u[:, :, None]).sum(1)  # m · u

    # Geometry enters as α(d) + γ(d) · v, and its derivatives by v.
    by_q = x1 * w1[0]
    by_mu = (x2 * over1 * d)[:, None, :] * u[:, :, None]
    slope, bend = (g * by_q).sum(1), (g * x1 * w2[0]).sum(1)
    if block:  # before the first one μ is zero, and nothing depends on positions
        mu_j = step.mu.index_select(0, edges.j)
        by_mu.addcmul_((x3 * w1[2])[:, None, :], mu_j)
        with_mu = (m * mu_j).sum(1)
        slope, bend = slope + (with_mu * x3 * w1[2]).sum(1), bend + (with_mu * x3 * w2[2]).sum(1)
    bend_edges(edges, slope, bend, m, along, x2 * over1, x2 * over2, total)
    if block:
        by_x = u[:, :, None] * torch.cat([g * w1[0], along * d * over1, with_mu * w1[2]], dim=1)[:, None, :]
        by_x[:, :, size : 2 * size] += m * over[:, None, :]
        by_vector = u[:, :, None, None] * ((x3 * w1[2])[:, None, :] * m)[:, None]
        x = _x_tangents(network.messages[block], step, q, total)
        half = mixed(edges, by_x, x.flatten(0, 1)) + mixed(edges, by_vector.flatten(2), mu.flatten(0, 1))
        # x₃ and μ of the same atom.
        weights = torch.zeros_like(step.mu).index_add(0, edges.j, w[2][:, None, :] * m)
        half += cross(x[2], _dot(mu, weights))
        total += half + half.T
        _pass_on(edges, w, step, x, q, mu)
    by_geometry = u[:, :, None, None] * by_mu[:, None]
    by_geometry.diagonal(dim1=1, dim2=2).add_((x2 * over)[:, :, None])
    q += moved(edges, u[:, :, None] * by_q[:, None, :], q.shape[-1])
    mu += moved(edges, by_geometry.flatten(2), q.shape[-1]).unflatten(0, (3, size))
    return q, mu


def _x_tangents(message: Any, step: _Step, q: Tensor, total: Tensor) -> Tensor:
    """Tangents (3, F, N, K) of the messages that atoms send; adds the share of the silu before it to the Hessian."""
    p = _linear(message[0], q)
    total += _pairs(p, _silu2(step.p1) * step.bars["s1"])
    return _linear(message[2], p.mul_(_columns(_silu1(step.p1)))).view(3, *q.shape)


def _pass_on(edges: Edges, w: list[Tensor], step: _Step, x: Tensor, q: Tensor, mu: Tensor) -> None:
    """Tangents of x and μ through the messages, added to those of the atoms that receive them."""
    n, size = edges.n_atoms, q.shape[0]
    weights = torch.cat([w[0], *(w[1] * edges.u[:, c, None] for c in range(3)), w[2]], dim=1)
    pairs = dense(edges, weights).view(5, size, n, n)
    third, old = _columns(step.x[:, 2 * size :]), _columns(step.mu)
    q.baddbmm_(pairs[0], x[0])
    for c in range(3):
        mu[c].baddbmm_(pairs[4], (mu[c] * third).addcmul_(x[2], old[c]))
        mu[c].baddbmm_(pairs[1 + c], x[1])


def _mixing_tangents(
    network: Any, block: int, step: _Step, q: Tensor, mu: Tensor, total: Tensor, *, last: bool
) -> tuple[Tensor, Tensor]:
    """Tangents after the mixing of a block; adds its steps' share to the Hessian."""
    size, mixing = network.n_features, network.mixings[block]
    first, second = mixing.context[0], mixing.context[2].weight
    v, u = (torch.matmul(part, mu.flatten(2)).view(mu.shape) for part in mixing.channels.weight.chunk(2))
    bar_n, bar_q, bar_mu = step.bars["norm"], step.bars["q_out"], step.bars["mu_out"]
    inner, product = _dot(v, step.v), _dot(u, step.v)
    norm = inner.div_(_columns(step.norm))
    total += _pairs(norm, -bar_n / step.norm)
    p = torch.addmm(first.weight[:, :size] @ q.flatten(1), first.weight[:, size:], norm.flatten(1)).view(q.shape)
    total += _pairs(p, _silu2(step.p2) * step.bars["s2"])
    p.mul_(_columns(_silu1(step.p2)))
    a, c = ((part @ p.flatten(1)).view(q.shape) for part in (second[:size], second[2 * size :]))
    # Of the norm ½ V̇ · V̇ and of c ⟨V, U⟩, both with V̇.
    half = cross(v, (v * _columns((0.5 * bar_n / step.norm)[:, None])).addcmul_(u, _columns((step.c * bar_q)[:, None])))
    _dot(v, step.u, product)  # of ⟨V, U⟩
    half += cross(c * _columns(bar_q), product)
    if not last:  # which does not pass vectors on
        b = (second[size : 2 * size] @ p.flatten(1)).view(q.shape)
        half += cross(b, _dot(u, bar_mu))
        mu += u.mul_(_columns(step.b[:, None])).addcmul_(b[None], _columns(step.u))
    total += half + half.T
    q += a.addcmul_(c, _columns((step.v * step.u).sum(1))).addcmul_(product, _columns(step.c))
    return q, mu


def _dot(tangents: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """Σ_c of tangents (3, F, N, K) times vectors (N, 3, F): (F, N, K), added to `out` if there is one."""
    columns = _columns(values)
    found = tangents[0] * columns[0] if out is None else out.addcmul_(tangents[0], columns[0])
    return found.addcmul_(tangents[1], columns[1]).addcmul_(tangents[2], columns[2])


def _linear(layer: nn.Linear, tangents: Tensor) -> Tensor:
    """(F, N, K) → (F', N, K); a tangent has no bias."""
    return (layer.weight @ tangents.flatten(1)).view(-1, *tangents.shape[1:])


def _columns(values: Tensor) -> Tensor:
    """(N, F), (N, 3, F) or (N, 1, F) → (F, N, 1), (3, F, N, 1) or (1, F, N, 1), as the tangents are ordered."""
    return values.movedim(0, -1).unsqueeze(-1)


def _pairs(tangents: Tensor, weights: Tensor) -> Tensor:
    """Σ w ṫ ṫᵀ, (K, K)."""
    return cross(tangents * _columns(weights), tangents)


def _silu1(p: Tensor) -> Tensor:
    s = torch.sigmoid(p)
    return s * (1.0 + p * (1.0 - s))


def _silu2(p: Tensor) -> Tensor:
    s = torch.sigmoid(p)
    return s * (1.0 - s) * (2.0 + p * (1.0 - 2.0 * s))
