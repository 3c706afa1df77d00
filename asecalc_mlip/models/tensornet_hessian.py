r"""The exact Hessian of TensorNet by forward tangents, as that of PaiNN (models/painn_hessian.py).

With y = f(z) for every non-linear step and ȳ = ∂E/∂y from one backward pass, H = Σ_steps Σ_y ȳ · żᵀ (∂²f/∂z²) ż. Only
the tangents ż = ∂z/∂r go through the network, all 3N − 3 columns at once, forwards. The steps are those of an atom and
channel, on nine numbers each,

    X/(‖X‖² + 1),     P = Y M + M Y,     X + D + D D,     q V,     ‖X‖² of the parts

those of an atom, from its norms to scales or to the energy, and the messages Σ_e w(d_e) Y_j, whose geometry touches two
atoms each. Products have constant structure, P_a = Σ_bc C_abc Y_b M_c, and ‖X‖² = Σ_bc G_bc X_b X_c.

    symbol   variable                               symbol   variable
    ż        (F, N, numbers, K) for K = 3N − 3      ȳ        a bar in names, as y in `bars`
    C        `_structure`                           G        `_metric`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vjp, vmap

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import plain_kernels
from asecalc_mlip.kernels.plain_tensor import PARTS, ROWS, rows_of
from asecalc_mlip.kernels.tensor import bounded, mixed, spread_message, squares, tensor_message, tensor_product
from asecalc_mlip.models.hessian_edges import Edges, add_edges, completed, cross, dense, moved, radial_blocks
from asecalc_mlip.models.hessian_edges import mixed as mixed_edges
from asecalc_mlip.models.layers import edge_geometry
from asecalc_mlip.models.tabulated import derivatives
from asecalc_mlip.models.tensornet_parts import filters_of, weights_of

__all__ = ["tensornet_bytes", "tensornet_hessian"]


def tensornet_bytes(network: Any, n_atoms: int) -> float:
    """Memory that `tensornet_hessian` takes."""
    # Some ten tangents of 9 F numbers by 3N coordinates, and the messages' matrices over pairs of atoms.
    return 8.0 * 9 * network.n_features * n_atoms**2 * (3 * 12 + 8)


@torch.no_grad()
def tensornet_hessian(network: Any, graph: AtomGraph) -> Tensor:
    """Second derivatives of the sum of its output by the positions of one structure, (3N, 3N) in its dtype."""
    n, k = graph.n_atoms, 3 * (graph.n_atoms - 1)
    if n == 1:  # it moves with all its images, or is alone
        return graph.positions.new_zeros(3, 3, dtype=network.scalars.weight.dtype)
    with plain_kernels():
        values, bars = _forward(network, graph)
    edges = _Edges(network, graph)
    total = values["u"].new_zeros(k, k)
    tangents = _embedding(network, edges, values, bars, total)
    for number, block in enumerate(network.blocks):
        tangents = _block(block, edges, number, values, bars, tangents, total)
    _readout(network, values, tangents, total)
    return completed(total)


def _forward(network: Any, graph: AtomGraph) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values of the steps by name, and derivatives of the energy by them."""
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        found[name] = value
        return value

    with torch.enable_grad():
        distances, directions = (t.detach() for t in edge_geometry(graph, network.scalars.weight.dtype))
        e = network.embedding
        u = keep("u", _spread(network, graph, distances, directions).requires_grad_())
        norms = keep("norms", squares(u).sum(1))
        q = keep("q", e.scales(e.norm(norms)))
        v = keep("v", mixed(u, weights_of(e.mix)))
        x = keep("x0", v * q.unflatten(-1, (-1, 3)).movedim(-1, 1)[:, PARTS])
        for k, block in enumerate(network.blocks):
            bound = keep(f"bound{k}", bounded(x))
            y = keep(f"y{k}", mixed(bound, weights_of(block.mix[:3])))
            radial = network.radial_basis(distances), network.envelope(distances, network.cutoff)[:, None]
            ends = graph.centers, graph.centers if block.own else graph.neighbors
            m = keep(f"m{k}", tensor_message(filters_of(block.weights(), *radial), y, *ends))
            p = keep(f"p{k}", _product(block, y, m))
            d = keep(f"d{k}", mixed(keep(f"s{k}", bounded(p)), weights_of(block.mix[3:])))
            x = keep(f"x{k + 1}", bound + d + tensor_product(d, d, symmetric=False))
        energy = _energy(network)(squares(x).flatten(1)).sum()
        gradients = torch.autograd.grad(energy, list(found.values()), allow_unused=True, materialize_grads=True)
    return {name: value.detach() for name, value in found.items()}, dict(zip(found, gradients, strict=True))


# --- steps ----------------------------------------------------------------------------------------------------------


def _embedding(network: Any, edges: _Edges, values: dict, bars: dict, total: Tensor) -> Tensor:
    """Tangents of X_0; adds the share of the embedding to the Hessian."""
    z, w = edges.elements, edges.e.filters
    shape = edges.shape  # s(û) of each edge (E, 9), with two derivatives by its vector
    weights = [by_part[:, PARTS] * z[:, None] for by_part in (part.unflatten(1, (3, -1)) for part in w)]  # (E, 9, F)
    u, bar = edges.e.u, bars["u"].index_select(0, edges.e.i)
    # U_e = w(d) s(v): w′ u s + w ∂s.
    by_vector = u[:, :, None, None] * (weights[1] * shape[0][:, :, None])[:, None]
    by_vector += shape[1].transpose(1, 2)[..., None] * weights[0][:, None]
    tangents = edges.moved(by_vector)
    # Ū · U_e, twice by v: its nine radial factors and their derivatives, (E, 9).
    a, a1, a2 = ((bar * part).sum(2) for part in weights)
    turned = torch.einsum("ea,eax,ey->exy", a1, shape[1], u)
    slope, bend = (a1 * shape[0]).sum(1), (a2 * shape[0]).sum(1)
    blocks = (
        radial_blocks(edges.e, slope, bend)
        + turned
        + turned.transpose(1, 2)
        + torch.einsum("ea,eaxy->exy", a, shape[2])
    )
    add_edges(total, edges.e, blocks)

    # ‖U‖² of each channel, and from all of them the scales.
    metric = _metric(u)
    along = 2.0 * (values["u"].transpose(1, 2) @ metric)  # (N, F, 9)
    norms = _apply(along.unsqueeze(-2), tangents)[:, :, 0]  # (F, N, K)
    _add(total, tangents, torch.matmul(2.0 * metric, tangents) * _columns(bars["norms"])[:, :, None])
    e = network.embedding
    scales: Callable = lambda n: e.scales(e.norm(n))  # noqa: E731
    q = _atoms(scales, values["norms"], bars["q"], norms, total)  # (3F, N, K)
    v = _mix_tangents(e.mix, tangents)
    # X = q V: both change.
    q = q.unflatten(0, (-1, 3)).movedim(1, 2)[:, :, PARTS]  # (F, N, 9, K)
    value = values["q"].unflatten(-1, (-1, 3)).movedim(0, 1)[:, :, PARTS, None]
    half = cross(q * _rows(bars["x0"]), v)
    total += half + half.T
    return v.mul_(value).addcmul_(q, _rows(values["v"]))


def _block(block: Any, edges: _Edges, k: int, values: dict, bars: dict, x: Tensor, total: Tensor) -> Tensor:
    """Tangents of the next X; adds the share of a block to the Hessian."""
    bound = _bound(values[f"x{k}"], bars[f"bound{k}"], x, total)
    y = _mix_tangents(block.mix[:3], bound)
    m = edges.message(block, k, values[f"y{k}"], bars[f"m{k}"], y, total)
    structure = _structure(block, x)
    half = cross(_apply(_contracted(structure, bars[f"p{k}"]), m), y)  # Σ_a p̄_a C_abc
    total += half + half.T
    p = _apply(_left(structure, values[f"m{k}"]), y) + _apply(_right(structure, values[f"y{k}"]), m)
    d = _mix_tangents(block.mix[3:], _bound(values[f"p{k}"], bars[f"s{k}"], p, total))
    square = _structure(None, x)
    both = _left(square, values[f"d{k}"]) + _right(square, values[f"d{k}"])
    bent = _contracted(square, bars[f"x{k + 1}"])
    _add(total, d, _apply(bent + bent.transpose(2, 3), d))
    return bound.add_(d).add_(_apply(both, d))


def _readout(network: Any, values: dict, x: Tensor, total: Tensor) -> None:
    last = values[f"x{len(network.blocks)}"]
    invariants = squares(last).flatten(1)
    energy = _energy(network)
    slopes = vmap(grad(energy))(invariants)  # (N, 3F)
    metric = _metric(last)
    of_part = torch.nn.functional.one_hot(torch.tensor(PARTS, device=last.device), 3).T.to(last.dtype)  # (3, 9)
    by = 2.0 * (last.transpose(1, 2) @ metric)[:, :, None] * of_part  # (N, F, 3, 9)
    moved_by = _apply(by, x).permute(2, 0, 1, 3).flatten(0, 1)  # (3F, N, K), by part
    weights = slopes.unflatten(-1, (3, -1))[:, PARTS]  # (N, 9, F)
    _add(total, x, torch.matmul(2.0 * metric, x) * _rows(weights))
    columns = moved_by.transpose(0, 1)
    total += cross(_curved(grad(energy), invariants, columns), columns)


def _bound(x: Tensor, bar: Tensor, tangents: Tensor, total: Tensor) -> Tensor:
    """Tangents of X/(‖X‖² + 1); adds its share to the Hessian."""
    x, bar, metric = x.transpose(1, 2), bar.transpose(1, 2), _metric(x)  # (N, F, 9)
    g = x @ metric
    s = (1.0 / ((x * g).sum(-1) + 1.0))[..., None, None]
    along = (bar * x).sum(-1)[..., None, None]
    outer = bar[..., :, None] * g[..., None, :]
    bent = 8.0 * s**3 * along * g[..., :, None] * g[..., None, :]
    bent = bent - 2.0 * s**2 * (outer + outer.transpose(2, 3) + along * metric)
    _add(total, tangents, _apply(bent, tangents))
    slopes = s * torch.eye(9, dtype=x.dtype, device=x.device) - 2.0 * s**2 * x[..., :, None] * g[..., None, :]
    return _apply(slopes, tangents)


def _atoms(function: Callable, at: Tensor, bar: Tensor, tangents: Tensor, total: Tensor) -> Tensor:
    """Tangents (Q, N, K) of a function of all channels of an atom, from those (P, N, K) of its argument."""
    columns = tangents.transpose(0, 1)
    both = torch.cat([at, bar], dim=1)
    split = at.shape[1]

    def gradient(pair: Tensor) -> Tensor:
        return grad(lambda z: (function(z) * pair[split:]).sum())(pair[:split])

    total += cross(_curved(gradient, both, columns), columns)
    along = lambda z, c: jvp(function, (z,), (c,))[1]  # noqa: E731
    return vmap(vmap(along, (None, 1), 1))(at, columns).transpose(0, 1)


def _curved(gradient: Callable, at: Tensor, columns: Tensor) -> Tensor:
    """Second derivatives of a function of an atom times columns (N, P, K); its gradient may have more arguments."""
    width, number = columns.shape[1:]

    def products(z: Tensor, directions: Tensor) -> Tensor:
        back = vjp(gradient, z)[1]
        return vmap(lambda one: back(one)[0][:width], 1, 1)(directions)

    if number < width:
        return vmap(products)(at, columns)
    basis = torch.eye(width, dtype=columns.dtype, device=columns.device).expand(len(at), -1, -1)
    return torch.bmm(vmap(products)(at, basis), columns)


class _Edges:
    """Geometry and filters of all edges, and what tangents gain from them."""

    def __init__(self, network: Any, graph: AtomGraph):
        dtype = network.scalars.weight.dtype
        d, u = edge_geometry(graph, dtype)
        self.n_features = network.n_features
        project, basis = network.embedding.projections, network.radial_basis
        envelope = lambda r: network.envelope(r, network.cutoff)[:, None]  # noqa: E731

        def filters(block: Any) -> Callable[[Tensor], Tensor]:
            return lambda r: filters_of(block.weights(), basis(r), envelope(r))

        projected, first, second = derivatives(lambda r: project(basis(r)) * envelope(r), d, 3)
        ends = graph.centers, graph.neighbors
        self.e = Edges(*ends, d[:, None], u, (projected, first, second), graph.n_atoms)
        self.filters = [derivatives(filters(block), d, 3) for block in network.blocks]
        other, own = _of_elements(network, graph)
        self.elements = other.index_select(0, graph.neighbors) + own.index_select(0, graph.centers)
        vectors = graph.vectors().to(dtype)
        self.shape = [vmap(_shape)(vectors), vmap(jacrev(_shape))(vectors), vmap(jacrev(jacrev(_shape)))(vectors)]

    def moved(self, by_vector: Tensor) -> Tensor:
        """Tangents (F, N, 9, K) from derivatives (E, 3, 9, F) of what ends in atoms i."""
        found = moved(self.e, by_vector.transpose(2, 3).flatten(2), 3 * (self.e.n_atoms - 1))
        return found.unflatten(0, (self.n_features, 9)).transpose(1, 2).contiguous()

    def message(self, block: Any, k: int, y: Tensor, bar: Tensor, tangents: Tensor, total: Tensor) -> Tensor:
        """Tangents of M; adds its share to the Hessian."""
        e, w = self.e, [part.unflatten(1, (3, -1)) for part in self.filters[k]]  # (E, 3, F)
        senders = e.i if block.own else e.j
        sent, heard = y.index_select(0, senders), bar.index_select(0, e.i)
        slope, bend = ((heard * sent * part[:, PARTS]).sum((1, 2)) for part in w[1:])
        add_edges(total, e, radial_blocks(e, slope, bend))
        u = e.u[:, :, None, None]
        by_y = u * (w[1][:, PARTS] * heard)[:, None]  # (E, 3, 9, F)
        columns = tangents.permute(1, 0, 2, 3).flatten(1, 2).transpose(0, 1)  # (9F, N, K)
        half = mixed_edges(e, by_y.transpose(2, 3).flatten(2), columns, senders)
        total += half + half.T
        found = self.moved(u * (w[1][:, PARTS] * sent)[:, None])
        pairs = dense(e, w[0].flatten(1), senders).unflatten(0, (3, -1))  # (3, F, N, N)
        for part, rows in enumerate(ROWS):
            heard_from = torch.bmm(pairs[part], tangents[:, :, rows].flatten(2))
            found[:, :, rows] += heard_from.unflatten(2, (-1, tangents.shape[-1]))
        return found


# --- parts of the network -------------------------------------------------------------------------------------------


def _product(block: Any, y: Tensor, m: Tensor) -> Tensor:
    product = tensor_product(y, m, symmetric=block is not None and block.symmetric)
    return product if block is None or block.symmetric else 2.0 * product


def _energy(network: Any) -> Callable[[Tensor], Tensor]:
    """Energy of an atom from its invariants (3F,)."""
    return lambda invariants: network.readout(network.scalars(network.norm(invariants)))


def _shape(vector: Tensor) -> Tensor:
    """Nine numbers of an edge (3,) away from the atom."""
    return rows_of(-(vector / vector.square().sum().sqrt())[None])[0]


def _of_elements(network: Any, graph: AtomGraph) -> tuple[Tensor, Tensor]:
    """Return a and b of `spread_message`, (N, F) each."""
    elements = network.embedding.element(graph.numbers)
    return network.embedding.of_neighbor(elements), network.embedding.of_center(elements)


def _spread(network: Any, graph: AtomGraph, distances: Tensor, directions: Tensor) -> Tensor:
    """Return U (N, 9, F), as a leaf."""
    envelope = network.envelope(distances, network.cutoff)[:, None]
    filters = network.embedding.projections(network.radial_basis(distances)) * envelope
    ends = graph.centers, graph.neighbors
    return spread_message(filters, rows_of(-directions), *_of_elements(network, graph), *ends).detach()


# --- algebra of nine numbers, tangents as (F, N, numbers, K) ----------------------------------------------------------


def _metric(like: Tensor) -> Tensor:
    """G (9, 9), by which ‖X‖² = Σ G_bc X_b X_c."""
    found = torch.diag(torch.tensor([3.0] + [2.0] * 8, dtype=like.dtype, device=like.device))
    found[4, 5] = found[5, 4] = 1.0
    return found


def _structure(block: Any, like: Tensor) -> Tensor:
    """C (9, 9, 9) of the product of a block, or of A B: P_a = Σ C_abc Y_b M_c."""
    basis = torch.eye(9, dtype=like.dtype, device=like.device)
    left, right = (t.reshape(81, 9, 1) for t in (basis[:, None].expand(9, 9, 9), basis[None].expand(9, 9, 9)))
    with plain_kernels():
        return _product(block, left, right).view(9, 9, 9).permute(2, 0, 1)


def _contracted(structure: Tensor, bar: Tensor) -> Tensor:
    """Σ_a ȳ_a C_abc, (N, F, 9, 9)."""
    return torch.einsum("naf,abc->nfbc", bar, structure)


def _left(structure: Tensor, right: Tensor) -> Tensor:
    """∂P/∂Y, (N, F, 9, 9)."""
    return torch.einsum("abc,ncf->nfab", structure, right)


def _right(structure: Tensor, left: Tensor) -> Tensor:
    """∂P/∂M, (N, F, 9, 9)."""
    return torch.einsum("abc,nbf->nfac", structure, left)


def _apply(matrices: Tensor, tangents: Tensor) -> Tensor:
    """(N, F, A, 9) times (F, N, 9, K): (F, N, A, K)."""
    found = torch.bmm(matrices.transpose(0, 1).flatten(0, 1), tangents.flatten(0, 1))
    return found.unflatten(0, tangents.shape[:2])


def _mix_tangents(layers: Any, tangents: Tensor) -> Tensor:
    found = torch.empty_like(tangents)
    for layer, rows in zip(layers, ROWS, strict=True):
        part = tangents[:, :, rows]
        found[:, :, rows] = (layer.weight @ part.flatten(1)).view(part.shape)
    return found


def _rows(values: Tensor) -> Tensor:
    """(N, 9, F) as the tangents are ordered, (F, N, 9, 1)."""
    return values.permute(2, 0, 1)[..., None]


def _columns(values: Tensor) -> Tensor:
    """(N, F) as (F, N, 1)."""
    return values.T[..., None]


def _add(total: Tensor, tangents: Tensor, bent: Tensor) -> None:
    """Add żᵀ S ż, from ż and S ż."""
    total += cross(bent, tangents)
