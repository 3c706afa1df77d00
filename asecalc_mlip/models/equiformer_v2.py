r"""EquiformerV2, a transformer on signals on the sphere (Liao, Wood, Das, Smidt, ICLR 2024, arXiv 2306.12059).

Each atom carries F signals on the sphere, as coefficients x_lm up to degree l_max, which turn into the frames of edges
as in eSCN (D, rows |m| ≤ m_max). At first x is an embedding of the element and the sum of radial functions R along the
edges, x_i = E(z_i) + Σ_j f_c Dᵀ R(b_ij) / degree. With b_ij = [φ(r_ij), s(z_j), t(z_i)], a norm N, maps S, S' that mix
only coefficients of one |m|, and σ = silu on points of the sphere (scalars by themselves), each block does

    (a, y)_ij = S([D N x_j, D N x_i], R(b_ij)),    A_ij = w · leaky(norm(a_ij)) for each head
    x ← x + P Σ_j f_c exp(A_ij) Dᵀ S'(σ(y_ij)) / (1 + Σ_j f_c exp(A_ij)),    x ← x + Q σ(Q' N x)

The energy is read from the coefficients of degree 0 of N x; the force head reads those of degree 1 after one more
attention.

Published form (`envelope="none"`): no f_c and no 1 in the denominator, which is a softmax, so that energies have a step
where a neighbour passes the cutoff. The published grids (`grid="published"`) are so coarse that the energy changes
with the orientation. The same weights serve both. There is no dropout, the factor 1/77.8 on the energy is left to the
scale of the potential, the frame has a fixed angle about the edge instead of a random one, and all neighbours within
the cutoff count.

    symbol   variable            symbol    variable
    E        embedding           P, w      attention.project, of_logits
    R        radial              Q', Q     feed_forward.first, last
    s, t     neighbor, center    S, S'     attention.first, last
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.activation import silu
from asecalc_mlip.models.constants import Table
from asecalc_mlip.models.equiformer_v2_parts import (
    DegreeNorm,
    EdgeScalars,
    FeedForward,
    SO2Convolution,
    SO3Linear,
    component_factors,
    normal_start,
    row_scales,
    scaled_edge_grid,
    smooth_leaky_relu,
    with_scalars,
)
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.radial import GaussianBasis
from asecalc_mlip.models.so2 import Edges, Ends, Grid, edges_of, end_of, node_grid, sum_to_centers
from asecalc_mlip.models.spherical import EdgeRotations, SphereGrid
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["EquiformerV2"]

# fairchem's mean number of neighbours of catalysts within 5 Å.
_DEGREE = 23.395238876342773


class EquiformerV2(Network):
    """Attention between signals on the sphere; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Number F of signals on each atom.
    n_interactions : int
        Number of blocks.
    n_heads, n_alpha, n_value : int
        Heads of the attention, and features of each for its weights and for its values.
    n_hidden, n_feed, n_edge : int
        Hidden features of messages, of atoms, and of edges.
    l_max, m_max : int
        Highest degree of the signals, and highest order in the frames of edges.
    n_rbf : int
        Number of Gaussians of the distance, each twice as wide as their distance.
    norm : {"layer", "rms"}
        Scalars and the rest apart, or all together.
    feed_forward : {"grid", "activation"}
        Three maps at the points of the sphere, or silu alone.
    grid : {"fine", "published"}
        Points on the sphere: so many that rotations change nothing, or few as published.
    envelope : {"smooth", "cosine", "none"}
        Function that ends attention at the cutoff; "none", as published, leaves a step there.
    direct_forces : bool
        Add a head for the forces, for `energies_and_forces`.
    """

    traits = Traits(
        native=None,
        native_messages=False,
        memory=Memory(native=(200.0, 6000.0), plain=(200.0, 6000.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=True,
        halo=1.0,
        train_instead=None,
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 32,
        *,
        n_interactions: int = 2,
        n_heads: int = 4,
        n_alpha: int = 16,
        n_value: int = 8,
        n_hidden: int = 32,
        n_feed: int = 64,
        n_edge: int = 32,
        l_max: int = 3,
        m_max: int = 2,
        n_rbf: int = 32,
        norm: Literal["layer", "rms"] = "layer",
        feed_forward: Literal["grid", "activation"] = "grid",
        grid: Grid = "fine",
        envelope: Ends = "smooth",
        direct_forces: bool = False,
    ):
        super().__init__()
        # The embedding of edges is one block more, before the others, and the force head one after them.
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions + 1 + int(direct_forces)
        self.end, self.sink = end_of(envelope), 1e-16 if envelope == "none" else 1.0
        self.radial_basis = GaussianBasis(n_rbf, cutoff, width=2.0)
        self.rotations = EdgeRotations(l_max, m_max)
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.edges = EdgeEmbedding(n_features, n_edge, n_rbf, self.rotations)
        on_atoms = node_grid(l_max, grid, factors=component_factors(l_max))
        on_edges = scaled_edge_grid(self.rotations, grid)

        def attention(n_out: int) -> Attention:
            sizes = (n_heads, n_alpha, n_value)
            widths = (n_features, n_hidden, n_out, n_edge, n_rbf)
            return Attention(sizes, widths, self.rotations, on_edges, self.sink)

        self.blocks = nn.ModuleList(
            TransformerBlock(
                attention(n_features),
                FeedForward(n_features, n_feed, l_max, on_atoms, on_points=feed_forward),
                (DegreeNorm(norm, l_max, n_features), DegreeNorm(norm, l_max, n_features)),
            )
            for _ in range(n_interactions)
        )
        self.norm = DegreeNorm(norm, l_max, n_features)
        self.readout = nn.Sequential(nn.Linear(n_features, n_feed), nn.SiLU(), nn.Linear(n_feed, 1))
        self.readout.apply(normal_start)
        # Made last, so that a seed gives the other weights the same values with and without it.
        self.force_head = attention(1) if direct_forces else None

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        return self.readout(self.coefficients(graph, self._edges(graph))[:, 0]).squeeze(-1)

    def energies_and_forces(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Energies (N,) and, by the force head, forces (N, 3), in one pass; InputError where there is no head."""
        edges = self._edges(graph)
        x = self.coefficients(graph, edges)
        return self.readout(x[:, 0]).squeeze(-1), self.head(x, graph, edges, self.over_edges)[:, 1:4, 0]

    def energies_and_vectors(self, graph: AtomGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (N,) with the coefficients of degree 1 (N, 3, F) and 0 (N, F), for heads beside the energy."""
        x = self.coefficients(graph, self._edges(graph))
        return self.readout(x[:, 0]).squeeze(-1), x[:, 1:4], x[:, 0]

    def coefficients(self, graph: AtomGraph, edges: Edges) -> Tensor:
        """Signals after the last norm, (N, (l_max + 1)², F)."""
        size = (self.rotations.l_max + 1) ** 2
        x = pad(self.embedding(graph.numbers)[:, None, :], (0, 0, 0, size - 1))
        x = x + self.edges(graph, edges, self.over_edges)
        for block in self.blocks:
            x = block(x, graph, edges, self.over_edges)
        return self.norm(x)

    def _edges(self, graph: AtomGraph) -> Edges:
        dtype = self.embedding.weight.dtype
        return edges_of(graph, dtype, self.radial_basis, self.end, self.rotations, self.cutoff)


class EdgeEmbedding(nn.Module):
    """Σ_j f_c Dᵀ R(b_ij) / degree."""

    def __init__(self, n_features: int, n_edge: int, n_rbf: int, rotations: EdgeRotations):
        super().__init__()
        self.n_rows = rotations.l_max + 1
        self.edge = EdgeScalars(n_edge, n_rbf, self.n_rows * n_features)
        self._scales = Table(row_scales(rotations)[: self.n_rows] / _DEGREE)

    def forward(self, graph: AtomGraph, edges: Edges, over_edges: Callable) -> Tensor:
        """(N, (l_max + 1)², F)."""
        return over_edges(self._messages, edges, self.edge.of_ends(graph.numbers))

    def _messages(self, *arguments: Tensor) -> Tensor:
        basis, envelope, rotations, centers, neighbors, of_neighbor, of_center = arguments
        radial = self.edge(basis, of_neighbor.index_select(0, neighbors), of_center.index_select(0, centers)).unflatten(
            1, (self.n_rows, -1)
        )
        y = radial * self._scales.like(radial) * envelope[:, :, None]
        # Only rows of m = 0, which come first, because R has no direction but that of the edge.
        turned = rotations[:, : self.n_rows].transpose(1, 2) @ y
        return sum_to_centers(turned, centers, of_center.shape[0])


class Attention(nn.Module):
    """Messages in the frames of edges, weighted by attention.

    Parameters
    ----------
    sizes : tuple of int
        n_heads, n_alpha and n_value.
    widths : tuple of int
        n_features, n_hidden, number of features that come out, n_edge and n_rbf.
    rotations : EdgeRotations
    on_edges : SphereGrid
    sink : float
        Added to the sum of weights.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int],
        widths: tuple[int, int, int, int, int],
        rotations: EdgeRotations,
        on_edges: SphereGrid,
        sink: float,
    ):
        super().__init__()
        n_heads, n_alpha, n_value = self.sizes = sizes
        n_features, n_hidden, n_out, n_edge, n_rbf = widths
        self.on_edges, self.sink = on_edges, sink
        self.first = SO2Convolution(2 * n_features, n_hidden, rotations, n_more=n_heads * n_alpha + n_hidden)
        self.last = SO2Convolution(n_hidden, n_heads * n_value, rotations)
        self.edge = EdgeScalars(n_edge, n_rbf, self.first.n_radial)
        self.norm = nn.LayerNorm(n_alpha)
        self.of_logits = nn.Parameter(torch.empty(n_heads, n_alpha))
        nn.init.uniform_(self.of_logits, -1.0 / math.sqrt(n_alpha), 1.0 / math.sqrt(n_alpha))
        self.project = SO3Linear(n_heads * n_value, n_out, rotations.l_max)
        scales = row_scales(rotations)
        self._scales = None if bool((scales == 1).all()) else Table(scales)

    def forward(self, x: Tensor, graph: AtomGraph, edges: Edges, over_edges: Callable) -> Tensor:
        """(N, (l_max + 1)², F) to (N, (l_max + 1)², F of the output)."""
        found, weights = over_edges(self._messages, edges, (x, *self.edge.of_ends(graph.numbers)))
        n_heads, _, n_value = self.sizes
        values = found.unflatten(-1, (n_heads, n_value)) / (weights + self.sink)[:, None, :, None]
        return self.project(values.flatten(2))

    def _messages(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j f_c exp(A) Dᵀ S'(…), (N, (l_max + 1)², heads · n_value), and Σ_j f_c exp(A), (N, heads)."""
        basis, envelope, rotations, centers, neighbors, x, of_neighbor, of_center = arguments
        n_heads, n_alpha, n_value = self.sizes
        radial = self.edge(basis, of_neighbor.index_select(0, neighbors), of_center.index_select(0, centers))
        ends = [rotations @ x.index_select(0, ends) for ends in (neighbors, centers)]
        y, more = self.first(torch.cat(ends, dim=-1), radial)
        alphas, scalars = more.split([n_heads * n_alpha, more.shape[1] - n_heads * n_alpha], dim=1)
        logits = (smooth_leaky_relu(self.norm(alphas.unflatten(1, (n_heads, n_alpha)))) * self.of_logits).sum(-1)
        # The norm bounds the logits, so that no largest one need be taken off.
        weights = torch.exp(logits) * envelope
        y = with_scalars(silu(scalars), self.on_edges.coefficients(silu(self.on_edges.values(y))))
        # Whole rows of features are multiplied faster than the few of one head at a time.
        y = self.last(y)[0] * weights.repeat_interleave(n_value, dim=1)[:, None]
        turned = rotations.transpose(1, 2) @ (y if self._scales is None else y * self._scales.like(y))
        n_atoms = x.shape[0]
        return sum_to_centers(turned, centers, n_atoms), sum_to_centers(weights, centers, n_atoms)


class TransformerBlock(nn.Module):
    """Attention and a function of each atom by itself, both of normed signals, and both added."""

    def __init__(self, attention: Attention, feed_forward: FeedForward, norms: tuple[DegreeNorm, DegreeNorm]):
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.norms = nn.ModuleList(norms)

    def forward(self, x: Tensor, graph: AtomGraph, edges: Edges, over_edges: Callable) -> Tensor:
        """(N, (l_max + 1)², F) to the same."""
        x = x + self.attention(self.norms[0](x), graph, edges, over_edges)
        return x + self.feed_forward(self.norms[1](x))
