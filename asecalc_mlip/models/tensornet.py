r"""TensorNet, message passing with Cartesian tensors (Simeon, De Fabritiis, NeurIPS 2023, arXiv 2306.06482).

Each atom carries F matrices 3 × 3, which fall into a multiple of one, a skew and a symmetric traceless part:
M = I + A + S. With ‖M‖² = Σ M_xy², û from the neighbour j to the atom i, and T, Q matrices that mix the F channels:

    U_i = Σ_j Z_ji (w¹ 1 + w² [û]× + w³ (ûûᵀ − 1/3)),   w^k = f_c(r) (P_k φ(r) + p_k),   Z_ji = W [E(z_j), E(z_i)] + b
    X_i = q_1 T_1 I(U) + q_2 T_2 A(U) + q_3 T_3 S(U),    q = s(norm(‖U‖²))
    then in each block, with filters f = f_c(r) R(φ(r)) of one number for each part:
    X ← X / (‖X‖² + 1);   Y = Q_1 I(X) + Q_2 A(X) + Q_3 S(X);   M_i = Σ_j f_1 I(Y_j) + f_2 A(Y_j) + f_3 S(Y_j)
    P = Y M + M Y;   P ← P / (‖P‖² + 1);   D = Q_4 I(P) + Q_5 A(P) + Q_6 S(P);   X ← X + D + D D

The energy is read from ‖I(X)‖², ‖A(X)‖², ‖S(X)‖². With `messages="own"` an atom multiplies its own Y_i by the sum of
the filters; some published weights were trained so.

    symbol   variable             symbol   variable            symbol     variable
    E, W     element, neighbor    T        embedding.mix       φ          basis
             and center terms     Q        block.mix           f_c        envelope
    P_k      projections          s        embedding.scales    R          block.filters

A matrix is kept as the nine numbers that it has: one of I, three of A, five of S (xx, yy, xy, xz, yz).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, cast

from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels.packing import LANES, NativeKernel, Packed
from asecalc_mlip.kernels.plain_tensor import rows_of
from asecalc_mlip.kernels.tensor import (
    combined,
    knots_message,
    mixed,
    scaled,
    spread_knots_message,
    spread_message,
    squares,
    tensor_message,
    updated,
)
from asecalc_mlip.models.knots import Knots, knots_for
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, GatedReadout, edge_geometry
from asecalc_mlip.models.radial import Envelope, TensorBasisName, envelope_by_name, make_radial_basis
from asecalc_mlip.models.tabulated import Tabulated
from asecalc_mlip.models.tensornet_hessian import tensornet_bytes, tensornet_hessian
from asecalc_mlip.models.tensornet_native import TensorNetWeights, packed
from asecalc_mlip.models.tensornet_parts import by_part, filters_of, weights_of
from asecalc_mlip.models.traits import Memory, Network, OwnHessian, Traits
from asecalc_mlip.models.vector_head import VectorHead

__all__ = ["TensorNet"]

# φ (n, n_rbf) and f_c (n, 1)
Radial = tuple[Tensor, Tensor]


class TensorNet(Network):
    """Equivariant message passing with matrices; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Number F of matrices on each atom.
    n_interactions : int
        Number of message passing blocks.
    n_rbf : int
        Number of radial functions.
    radial_basis : {"expnorm", "gaussian", "bessel", "smooth_bessel"}
    envelope : {"smooth", "cosine"}
        Function that ends at the cutoff; that of the paper, the cosine, has a step in its second derivative there.
    messages : {"neighbor", "own"}
    group : {"O3", "SO3"}
        "SO3" takes P = 2 Y M, which can tell mirror images apart.
    direct_forces : bool
        Add a head that reads the forces from the skew parts, for `energies_and_forces`.
    """

    traits = Traits(
        native=NativeKernel("tensornet", LANES, TensorNetWeights),
        native_messages=True,
        memory=Memory(native=(14.0, 70.0), plain=(40.0, 70.0)),
        hessian=OwnHessian(compute=tensornet_hessian, bytes_needed=tensornet_bytes),
        compiling_pays=False,
        trims_edges=True,
        # The embedding is one block more, before the others.
        halo=None,
        train_instead=None,
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 64,
        *,
        n_interactions: int = 2,
        n_rbf: int = 32,
        radial_basis: TensorBasisName = "expnorm",
        envelope: Envelope = "smooth",
        messages: Literal["neighbor", "own"] = "neighbor",
        group: Literal["O3", "SO3"] = "O3",
        direct_forces: bool = False,
    ):
        super().__init__()
        if messages not in ("neighbor", "own") or group not in ("O3", "SO3"):
            raise ValueError(f"messages {messages!r} are neighbor or own, group {group!r} is O3 or SO3")
        if direct_forces and group == "SO3":
            raise ValueError("a force head needs vectors that change sign with the structure: take group O3")
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions + 1
        self.envelope = envelope_by_name(envelope)
        self.radial_basis = make_radial_basis(radial_basis, n_rbf, cutoff, among=TensorBasisName)
        self.embedding = TensorEmbedding(n_features, n_rbf)
        self.blocks = nn.ModuleList(TensorBlock(n_features, n_rbf, messages, group) for _ in range(n_interactions))
        self.norm = nn.LayerNorm(3 * n_features)
        self.scalars = nn.Linear(3 * n_features, n_features)
        self.readout = GatedReadout([n_features] * 4)
        # Made last, so that a seed gives the other weights the same values with and without it.
        self.force_head = VectorHead(n_features) if direct_forces else None

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        return self.readout(self.features(graph)[0])

    def energies_and_forces(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Energies (N,) and, by the force head, forces (N, 3), in one pass; InputError where there is no head."""
        h, vectors = self.features(graph)
        return self.readout(h), self.head(h, vectors)

    def energies_and_vectors(self, graph: AtomGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (N,) with the vectors (N, 3, F) and scalars (N, F) of `features`, for heads beside the energy."""
        h, vectors = self.features(graph)
        return self.readout(h), vectors, h

    def features(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Scalars (N, F) and vectors (N, 3, F), the skew parts, after the last block."""
        distances, directions = edge_geometry(graph, self.scalars.weight.dtype)
        knots = knots_for(distances, self.cutoff, *getattr(self.radial_basis, "knots", ())) if self.training else None
        at = distances if knots is None else knots.distances
        radial = (self.radial_basis(at), self.envelope(at, self.cutoff)[:, None])
        last = len(self.blocks)
        x = self.embedding(graph, radial, knots, directions, self.over_edges, bound=last > 0)
        for number, block in enumerate(self.blocks, 1):
            x = block(x, graph, radial, knots, self.over_edges, bound=number < last)
        return self.scalars(self.norm(squares(x).flatten(1))), x[:, 1:4]

    def filter_functions(self) -> list[Tabulated]:
        """Return the filters of the embedding and of each block as functions of the distance, parts side by side."""
        exact = copy.deepcopy(self).cpu().double().requires_grad_(False)
        blocks = (partial(_filters_by_part, exact, cast(TensorBlock, block)) for block in exact.blocks)
        return [partial(_projections, exact), *blocks]

    def packed(self) -> Packed:
        """Return the weights for kernels/tensornet.cpp."""
        return packed(self)


class TensorEmbedding(nn.Module):
    """Matrices of each atom from the elements and directions of its neighbours; zero without any."""

    def __init__(self, n_features: int, n_rbf: int):
        super().__init__()
        self.element = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.of_neighbor = nn.Linear(n_features, n_features, bias=False)
        self.of_center = nn.Linear(n_features, n_features)
        self.projections = nn.Linear(n_rbf, 3 * n_features)
        self.norm = nn.LayerNorm(n_features)
        self.scales = nn.Sequential(
            nn.Linear(n_features, 2 * n_features), nn.SiLU(), nn.Linear(2 * n_features, 3 * n_features), nn.SiLU()
        )
        self.mix = nn.ModuleList(nn.Linear(n_features, n_features, bias=False) for _ in range(3))

    def forward(
        self,
        graph: AtomGraph,
        radial: Radial,
        knots: Knots | None,
        directions: Tensor,
        over_edges: Callable,
        *,
        bound: bool,
    ) -> Tensor:
        """(N, 9, F) from a graph, φ and f_c of its edges or of knots, and directions (E, 3); bounded for a block."""
        elements = self.element(graph.numbers)
        function = partial(_projected, [self.projections.weight, self.projections.bias])
        atoms, ends = (self.of_neighbor(elements), self.of_center(elements)), (graph.centers, graph.neighbors)
        # The paper's directions point to the atom, those of a graph away from it.
        if knots is None:
            u = over_edges(partial(_embedding_message, function), (*radial, -directions, *ends), atoms)
        else:
            u = spread_knots_message(knots.place, knots.start, function(*radial), -directions, *atoms, *ends)
        # Three numbers of a channel lie side by side.
        scales = self.scales(self.norm(squares(u).sum(1))).unflatten(-1, (-1, 3)).transpose(1, 2).flatten(1)
        return scaled(mixed(u, weights_of(self.mix)), scales, bound=bound)


class TensorBlock(nn.Module):
    """One interaction."""

    def __init__(self, n_features: int, n_rbf: int, messages: str, group: str):
        super().__init__()
        self.own, self.symmetric = messages == "own", group == "O3"
        sizes = [n_rbf, n_features, 2 * n_features, 3 * n_features]
        self.filters = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.mix = nn.ModuleList(nn.Linear(n_features, n_features, bias=False) for _ in range(6))

    def forward(
        self, x: Tensor, graph: AtomGraph, radial: Radial, knots: Knots | None, over_edges: Callable, *, bound: bool
    ) -> Tensor:
        """(N, 9, F) after this block, bounded where another follows, from bounded ones."""
        weights = weights_of(self.mix)
        y = mixed(x, weights[:3])
        function = partial(filters_of, self.weights())
        # With own messages every atom hears itself, once for each of its neighbours.
        ends = (graph.centers, graph.centers if self.own else graph.neighbors)
        if knots is None:
            m = over_edges(partial(_message, function), (*radial, *ends), (y,))
        else:
            m = knots_message(knots.place, knots.start, function(*radial), y, *ends)
        d = mixed(combined(y, m, symmetric=self.symmetric), weights[3:])
        return updated(x, d, bound=bound)

    def weights(self) -> list[Tensor]:
        """Weights and biases of the filters, whose last layer gives those of a part side by side."""
        found = _weights(self.filters)
        return [*found[:-2], *(by_part(tensor) for tensor in found[-2:])]


def _projected(weights: Sequence[Tensor], basis: Tensor, envelope: Tensor) -> Tensor:
    return nn.functional.linear(basis, weights[0], weights[1]) * envelope


def _weights(layers: nn.ModuleList) -> list[Tensor]:
    """Weights and biases of linear layers, in turns."""
    return [cast(Tensor, tensor) for layer in layers for tensor in (layer.weight, layer.bias)]


def _embedding_message(
    function: Callable,
    basis: Tensor,
    envelope: Tensor,
    directions: Tensor,
    centers: Tensor,
    neighbors: Tensor,
    of_neighbor: Tensor,
    of_center: Tensor,
) -> Tensor:
    filters = function(basis, envelope)
    return spread_message(filters, rows_of(directions), of_neighbor, of_center, centers, neighbors)


def _message(
    function: Callable, basis: Tensor, envelope: Tensor, centers: Tensor, senders: Tensor, y: Tensor
) -> Tensor:
    return tensor_message(function(basis, envelope), y, centers, senders)


def _projections(network: TensorNet, distances: Tensor) -> Tensor:
    """w¹, w² and w³ of the embedding, (n, 3F)."""
    envelope = network.envelope(distances, network.cutoff)[:, None]
    return network.embedding.projections(network.radial_basis(distances)) * envelope


def _filters_by_part(network: TensorNet, block: TensorBlock, distances: Tensor) -> Tensor:
    """Return the filters of a block, those of a part side by side, (n, 3F)."""
    envelope = network.envelope(distances, network.cutoff)[:, None]
    return filters_of(block.weights(), network.radial_basis(distances), envelope)
