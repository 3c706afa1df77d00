r"""TorchMD-ET, the equivariant transformer of TorchMD-NET (Thölke, De Fabritiis, ICLR 2022, arXiv 2202.02541).

Each atom carries F scalars x and F vectors v. With one embedding e of atoms and one of neighbours, n, at first
x_i = C [e(z_i), Σ_j f_c W(φ) n(z_j)] and v = 0. Every layer then does, with x̂ the layer norm of x, D = silu(W φ(d) + b)
anew for keys and for values, and the features divided among heads, each with its own attention A:

    A_ij = silu(Σ_head Q(x̂_i) K(x̂_j) D_K);    (s_1, s_2, s_3)_ij = V(x̂_j) D_V
    y_i = Σ_j f_c A_ij s_1;    w_i = Σ_j f_c (s_2 u_ij + s_3 v_j)
    (o_1, o_2, o_3) = O(y);    (p_1, p_2, p_3) = v P;    x ← x + o_1 + o_2 ⟨p_1, p_2⟩;    v ← v + w + o_3 p_3

    symbol       variable                      symbol   variable       symbol   variable
    e, n         embedding, of_neighbors       A        attention      φ        basis
    Q, K, V      queries, keys, values         O        outputs        f_c      envelope
    D_K, D_V     key_filters, value_filters    P        channels       u_ij     directions

As in TorchMD-NET an atom is among its own neighbours in every layer, at distance zero and without direction. One
thing differs from the paper, f_c in w: the paper has it on A alone, so that a neighbour that leaves changes vectors,
and with them the energy, by a step (the later option `vector_cutoff` of TorchMD-NET is the same). Energies are read
from x, as in the paper's trainings on MD17, so that the last layer makes no vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import painn_message, schnet_message
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, edge_geometry, mlp
from asecalc_mlip.models.radial import cosine_cutoff, make_radial_basis
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["TorchMDET"]

# No Bessel functions: they are 0/0 at the distance of an atom from itself.
BasisName = Literal["expnorm", "gaussian"]
# Basis (E, n_rbf), envelope (E, 1), directions (E, 3), centres and neighbours (E,).
Edges = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]


class TorchMDET(Network):
    """Equivariant message passing with attention; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width F of scalars and vectors, a multiple of `n_heads`.
    n_interactions : int
        Number of attention layers.
    n_heads : int
        Groups of features, each with its own attention.
    n_rbf : int
        Number of radial functions.
    radial_basis : {"expnorm", "gaussian"}
    """

    traits = Traits(
        native=None,
        native_messages=True,
        memory=Memory(native=(16.0, 30.0), plain=(26.0, 30.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=True,
        # The embedding of neighbours is one block more, before the others.
        halo=None,
        train_instead=None,
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 128,
        *,
        n_interactions: int = 8,
        n_heads: int = 8,
        n_rbf: int = 50,
        radial_basis: BasisName = "expnorm",
    ):
        super().__init__()
        if n_features % n_heads:
            raise ValueError(f"{n_heads} heads cannot share {n_features} features; take a multiple of n_heads")
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions
        self.radial_basis = make_radial_basis(radial_basis, n_rbf, cutoff, among=BasisName)
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.of_neighbors = NeighborEmbedding(n_features, n_rbf)
        self.layers = nn.ModuleList(EquivariantAttention(n_features, n_heads, n_rbf) for _ in range(n_interactions))
        self.norm = nn.LayerNorm(n_features)
        self.readout = mlp(n_features, n_features // 2, 1)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        distances, directions = edge_geometry(graph, self.embedding.weight.dtype)
        envelope = cosine_cutoff(distances, self.cutoff)[:, None]
        edges = (self.radial_basis(distances), envelope, directions, graph.centers, graph.neighbors)
        at_zero = self.radial_basis(distances.new_zeros(1))
        x = self.of_neighbors(self.embedding(graph.numbers), graph, edges, self.over_edges)
        # The vectors are zero before the first layer; None lets that layer skip the terms they would enter.
        v: Tensor | None = None
        last = len(self.layers) - 1
        for k, layer in enumerate(self.layers):
            x, v = layer(x, v, edges, at_zero, self.over_edges, scalars_only=k == last)
        return self.readout(self.norm(x)).squeeze(-1)


class NeighborEmbedding(nn.Module):
    """Embedding of an atom together with the elements around it (eq. 3 of the paper)."""

    def __init__(self, n_features: int, n_rbf: int):
        super().__init__()
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.filters = _dense(n_rbf, n_features)
        self.combine = _dense(2 * n_features, n_features)

    def forward(self, x: Tensor, graph: AtomGraph, edges: Edges, over_edges: Callable) -> Tensor:
        """Features (N, F) from those of the atoms themselves."""
        basis, envelope, _, centers, neighbors = edges
        elements = self.embedding(graph.numbers)
        around = over_edges(self._message, (basis, envelope, centers, neighbors), (elements,))
        return self.combine(torch.cat([x, around], dim=-1))

    def _message(self, basis: Tensor, envelope: Tensor, centers: Tensor, neighbors: Tensor, x: Tensor) -> Tensor:
        return schnet_message(self.filters(basis) * envelope, x, centers, neighbors)


class EquivariantAttention(nn.Module):
    """One layer; the parts of s, o and p lie one after another in the rows of V and D_V, of O, and of P."""

    def __init__(self, n_features: int, n_heads: int, n_rbf: int):
        super().__init__()
        self.n_features = n_features
        self.heads = (n_heads, n_features // n_heads)
        self.norm = nn.LayerNorm(n_features)
        self.queries, self.keys = _dense(n_features, n_features), _dense(n_features, n_features)
        self.values = _dense(n_features, 3 * n_features)
        self.key_filters, self.value_filters = _dense(n_rbf, n_features), _dense(n_rbf, 3 * n_features)
        self.outputs = _dense(n_features, 3 * n_features)
        self.channels = _dense(n_features, 3 * n_features, bias=False)

    def forward(
        self, x: Tensor, v: Tensor | None, edges: Edges, at_zero: Tensor, over_edges: Callable, *, scalars_only: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(N, F) scalars and (N, 3, F) vectors after this layer.

        Parameters
        ----------
        x, v : (N, F) and (N, 3, F) or None
            None stands for vectors that are all zero.
        edges : tuple of Tensor
            Basis (E, n_rbf), envelope (E, 1), directions (E, 3), centres and neighbours (E,).
        at_zero : (1, n_rbf)
            Basis at the distance of an atom from itself.
        over_edges : callable
        scalars_only : bool
            Whether vectors are of no use any more; None is returned for them.
        """
        y, w = self._gather(self.norm(x), v, edges, at_zero, over_edges, scalars_only)
        if v is None:
            return x + _rows(self.outputs, y, self.n_features), w
        parts = 2 if scalars_only else 3
        o = _rows(self.outputs, y, parts * self.n_features).chunk(parts, dim=-1)
        p = linear(v, self.channels.weight[: parts * self.n_features]).chunk(parts, dim=-1)
        x = x + o[0] + o[1] * (p[0] * p[1]).sum(dim=1)
        return x, None if w is None else v + w + o[2][:, None, :] * p[2]

    def _gather(
        self, x: Tensor, v: Tensor | None, edges: Edges, at_zero: Tensor, over_edges: Callable, scalars_only: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Sum y (N, F) and w (N, 3, F) over neighbours and the atom itself, from features after the norm."""
        v = None if scalars_only else v
        parts = 1 if scalars_only else 2 if v is None else 3
        q, k, values = self.queries(x), self.keys(x), _rows(self.values, x, parts * self.n_features)
        if scalars_only:
            # Directions are of no use here, and `over_edges` would ask for their gradient.
            edges = (edges[0], edges[1], None, *edges[3:])
        found = over_edges(self._messages, edges, (q, k, values, v))
        y, w = found if isinstance(found, tuple) else (found, None)
        filters = self._value_filters(at_zero, parts) * values
        own = self._attention(at_zero, q, k)[:, :, None] * filters[:, : self.n_features].unflatten(-1, self.heads)
        if v is not None and w is not None:
            w = w + filters[:, None, 2 * self.n_features :] * v
        return y + own.flatten(1), w

    def _messages(self, *arguments: Any) -> Any:
        """y, and w where there are directions, without the atom itself, from edges, q, k, values and v."""
        basis, envelope, directions, centers, neighbors, q, k, values, v = arguments
        parts = values.shape[1] // self.n_features
        attention = self._attention(basis, q.index_select(0, centers), k.index_select(0, neighbors)) * envelope
        # One number for each head and part: the attention for s_1, nothing but the envelope for the others.
        factors = torch.cat([attention, envelope.expand(-1, (parts - 1) * self.heads[0])], dim=1)[:, :, None]
        filters = self._value_filters(basis, parts).unflatten(-1, (parts * self.heads[0], self.heads[1]))
        filters = (filters * factors).flatten(1)
        if directions is None:
            return schnet_message(filters, values, centers, neighbors)
        # With these filters the sums are those of PaiNN.
        return painn_message(filters, directions, values, v, centers, neighbors)

    def _attention(self, basis: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Return the A for each head, (E, heads), from the basis and the q and k of both ends."""
        return silu((silu(self.key_filters(basis)) * q * k).unflatten(-1, self.heads).sum(-1))

    def _value_filters(self, basis: Tensor, parts: int) -> Tensor:
        """D_V for the first parts of s, (E, parts · F)."""
        return silu(_rows(self.value_filters, basis, parts * self.n_features))


def _rows(layer: nn.Linear, x: Tensor, width: int) -> Tensor:
    """Return the first `width` outputs of a dense layer, without making the others."""
    return linear(x, layer.weight[:width], layer.bias[:width])


def _dense(n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
    """Dense layer with Glorot weights and zero bias, as TorchMD-NET starts."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
