r"""eSCN, the equivariant spherical channel network (Passaro, Zitnick, ICML 2023, arXiv 2302.03655).

Each atom carries F signals on the sphere, as coefficients x_lm up to degree l_max; at first x_00 is an embedding of the
element and the rest is zero. For each edge both of its atoms are turned into its frame (D, rows |m| ≤ m_max), a map S
that mixes only coefficients of one |m| follows, then a non-linearity σ = silu on points of the sphere (G there, G⁺
back), and the sum is taken in the frame of the structure. With φ(r) radial functions, f_c an envelope:

    e_ij = σ(A σ(B φ(r_ij) + s(z_j) + t(z_i) + b) + a)
    m_i = Σ_j f_c(r_ij) Dᵀ G⁺ σ(G [S(D x_j, e_ij) + S'(D x_i, e_ij)])
    S(x, e)_m = V_m (σ(E_m e) ⊙ (U_m x_m)),   complex numbers for m > 0
    x ← x + G⁺ W_3 σ(W_2 σ(W_1 [G x, G m])),   where the first block leaves out x

The energy is the mean over the sphere of a function of the signals there; the forces of the force head are the mean of
another one times the direction.

Published form: no f_c, so energies have a step at the cutoff (`envelope="none"`); few points, so that the energy
changes with the orientation and with the random angle of each frame (`grid="published"`); 128 points on a spiral for
the means. The same weights serve both. The published factor 0.001 on the energy is left to the scale of the potential,
the frame has a fixed angle instead of a random one, and all neighbours within the cutoff count. An atom without
neighbours gets no force; that of the spiral would not be zero.

    symbol   variable            symbol    variable
    B, b     edge.radial         U, E, V   order.first, gate, last
    A, a     edge.last           W_1 … 3   update
    D        rotations           G         on_edges, on_atoms
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.activation import SiLU, silu
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.radial import make_radial_basis
from asecalc_mlip.models.so2 import (
    Edges,
    Ends,
    Grid,
    edge_grid,
    edges_of,
    end_of,
    joined,
    node_grid,
    parts_by_m,
    sum_to_centers,
)
from asecalc_mlip.models.spherical import EdgeRotations, SphereGrid, SphereMean
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["ESCN"]


class ESCN(Network):
    """Message passing with signals on the sphere; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Number F of signals on each atom.
    n_interactions : int
        Number of blocks.
    n_hidden : int
        Width of the hidden layer of each order m.
    n_edge : int
        Width of the features of edges.
    l_max, m_max : int
        Highest degree of the signals, and highest order in the frames of edges.
    n_rbf : int
        Number of Gaussians of the distance.
    grid : {"fine", "published"}
        Points on the sphere: so many that rotations change nothing, or few as published.
    envelope : {"smooth", "cosine", "none"}
        Function that ends messages at the cutoff; "none", as published, leaves a step there.
    direct_forces : bool
        Add a head for the forces, for `energies_and_forces`.
    """

    traits = Traits(
        native=None,
        native_messages=False,
        memory=Memory(native=(350.0, 3000.0), plain=(350.0, 3000.0)),
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
        n_hidden: int = 64,
        n_edge: int = 32,
        l_max: int = 3,
        m_max: int = 2,
        n_rbf: int = 32,
        grid: Grid = "fine",
        envelope: Ends = "smooth",
        direct_forces: bool = False,
    ):
        super().__init__()
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions
        self.end = end_of(envelope)
        self.radial_basis = make_radial_basis("gaussian", n_rbf, cutoff)
        self.rotations = EdgeRotations(l_max, m_max)
        on_edges, on_atoms = edge_grid(self.rotations, grid), node_grid(l_max, grid)
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.blocks = nn.ModuleList(
            SphericalBlock((n_features, n_hidden, n_edge, n_rbf), self.rotations, on_edges, on_atoms)
            for _ in range(n_interactions)
        )
        self.sphere = SphereMean(l_max, fine=grid == "fine")
        self.readout = _head(n_features)
        self.apply(_lively)
        # Made last, so that a seed gives the other weights the same values with and without it.
        self.force_head = _head(n_features).apply(_lively) if direct_forces else None

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        return self.sphere.mean(self.readout(self.sphere.values(self.coefficients(graph))))

    def energies_and_forces(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Energies (N,) and, by the force head, forces (N, 3), in one pass; InputError where there is no head."""
        values = self.sphere.values(self.coefficients(graph))
        near = _step_of(graph, self.cutoff, values)
        return self.sphere.mean(self.readout(values)), near * self.sphere.vector(self.head(values))

    def energies_and_vectors(self, graph: AtomGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (N,) with the coefficients of degree 1 (N, 3, F) and 0 (N, F), for heads beside the energy."""
        x = self.coefficients(graph)
        return self.sphere.mean(self.readout(self.sphere.values(x))), x[:, 1:4], x[:, 0]

    def coefficients(self, graph: AtomGraph) -> Tensor:
        """Signals after the last block, (N, (l_max + 1)², F)."""
        dtype = self.embedding.weight.dtype
        edges = edges_of(graph, dtype, self.radial_basis, self.end, self.rotations, self.cutoff)
        size = (self.rotations.l_max + 1) ** 2
        x = pad(self.embedding(graph.numbers)[:, None, :], (0, 0, 0, size - 1))
        for number, block in enumerate(self.blocks):
            change = block(x, graph, edges, self.over_edges)
            x = x + change if number else change
        return x


class SphericalBlock(nn.Module):
    """Messages, and the function on the sphere that takes them in.

    Parameters
    ----------
    sizes : tuple of int
        n_features, n_hidden, n_edge and n_rbf.
    rotations : EdgeRotations
    on_edges, on_atoms : SphereGrid
    """

    def __init__(
        self, sizes: tuple[int, int, int, int], rotations: EdgeRotations, on_edges: SphereGrid, on_atoms: SphereGrid
    ):
        super().__init__()
        n_features, n_hidden, n_edge, n_rbf = sizes
        self.on_edges, self.on_atoms = on_edges, on_atoms
        self.edge = EdgeFeatures(n_edge, n_rbf)
        self.of_neighbor = SO2Block(n_features, n_hidden, n_edge, rotations)
        self.of_center = SO2Block(n_features, n_hidden, n_edge, rotations)
        widths = [2 * n_features, n_features, n_features, n_features]
        self.update = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor, graph: AtomGraph, edges: Edges, over_edges: Callable) -> Tensor:
        """Change of the signals, (N, (l_max + 1)², F), by those of the neighbours and of the atom itself."""
        ends = self.edge.neighbor(graph.numbers), self.edge.center(graph.numbers)
        messages = over_edges(self._messages, edges, (x, *ends))
        # The first and the last map have no bias, so they may act on coefficients, which are fewer than points.
        first, middle, last = self.update
        y = silu(self.on_atoms.values(first(torch.cat([x, messages], dim=-1))))
        return last(self.on_atoms.coefficients(silu(middle(y))))

    def _messages(
        self,
        basis: Tensor,
        envelope: Tensor,
        rotations: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        x: Tensor,
        of_neighbor: Tensor,
        of_center: Tensor,
    ) -> Tensor:
        e = self.edge(basis, of_neighbor.index_select(0, neighbors) + of_center.index_select(0, centers))
        y = self.of_neighbor(rotations @ x.index_select(0, neighbors), e)
        y = y + self.of_center(rotations @ x.index_select(0, centers), e)
        y = self.on_edges.coefficients(silu(self.on_edges.values(y))) * envelope[:, :, None]
        return sum_to_centers(rotations.transpose(1, 2) @ y, centers, x.shape[0])


class EdgeFeatures(nn.Module):
    """e from radial functions (E, n_rbf) and embeddings of both elements."""

    def __init__(self, n_edge: int, n_rbf: int):
        super().__init__()
        self.radial = nn.Linear(n_rbf, n_edge)
        self.neighbor = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_edge)
        self.center = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_edge)
        for table in (self.neighbor, self.center):
            nn.init.uniform_(table.weight, -0.001, 0.001)
        self.last = nn.Linear(n_edge, n_edge)

    def forward(self, basis: Tensor, of_elements: Tensor) -> Tensor:
        """(E, n_rbf) and (E, n_edge) to (E, n_edge)."""
        return silu(self.last(silu(self.radial(basis) + of_elements)))


class SO2Block(nn.Module):
    """The map S: coefficients in the frames of edges to the same, for each order by itself."""

    def __init__(self, n_features: int, n_hidden: int, n_edge: int, rotations: EdgeRotations):
        super().__init__()
        self.l_max, self.m_max = rotations.l_max, rotations.m_max
        degrees = [self.l_max + 1 - m for m in range(self.m_max + 1)]
        self.orders = nn.ModuleList(
            SO2Order(k * n_features, n_hidden, n_edge, is_complex=m > 0) for m, k in enumerate(degrees)
        )

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """(E, M, F) and features of edges (E, n_edge) to (E, M, F)."""
        parts = parts_by_m(x, self.l_max, self.m_max)
        return joined([order(part, e) for order, part in zip(self.orders, parts, strict=True)], x.shape[2])


class SO2Order(nn.Module):
    """V (σ(E e) ⊙ (U x)) for one m; U, E and V hold the real and the imaginary weights side by side."""

    def __init__(self, width: int, n_hidden: int, n_edge: int, *, is_complex: bool):
        super().__init__()
        both = 2 * n_hidden if is_complex else n_hidden
        self.gate = nn.Linear(n_edge, both)
        self.first = nn.Linear(width, both, bias=False)
        self.last = nn.Linear(both, width, bias=False)
        self.is_complex = is_complex

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """(E, 1 or 2, width) to the same."""
        y = self.first(x) * silu(self.gate(e))[:, None, :]
        if not self.is_complex:
            return self.last(y)
        real, imaginary = y.chunk(2, dim=-1)
        # V_r y_r and V_i y_i of both orders in one product.
        turned = torch.stack([-imaginary[:, 1], imaginary[:, 0]], dim=1)
        return self.last(torch.cat([real, turned], dim=-1))


def _lively(module: nn.Module) -> None:
    """Start with weights that keep the size of signals through silu (He et al., 2015); torch's make forces vanish."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _head(n_features: int) -> nn.Sequential:
    layers = [nn.Linear(n_features, n_features), SiLU(), nn.Linear(n_features, n_features), SiLU()]
    return nn.Sequential(*layers, nn.Linear(n_features, 1, bias=False))


def _step_of(graph: AtomGraph, cutoff: float, like: Tensor) -> Tensor:
    """1 for atoms that have a neighbour within the cutoff, 0 for others, (N, 1)."""
    with torch.no_grad():
        near = cast(Tensor, graph.fixed_vectors().square().sum(-1) < cutoff * cutoff)
        # By a sum, as a GPU would have to tell the host how many edges are near.
        found = like.new_zeros(graph.n_atoms).index_add(0, graph.centers, near.to(like.dtype))
    return (found > 0).to(like.dtype)[:, None]
