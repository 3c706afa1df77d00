r"""PaiNN, the polarizable atom interaction network (Schütt, Unke, Gastegger, ICML 2021, arXiv 2102.03150).

Each atom carries F scalars q and F vectors μ. For every interaction, with x = A(q) and filters
W(d) = f_c(d) · (Φ(d) W_f + b_f), all of width 3F and split in three:

    q_i ← q_i + Σ_j (x_j W_ij)_1
    μ_i ← μ_i + Σ_j (x_j W_ij)_2 u_ij + (x_j W_ij)_3 μ_j
    (V, U) = μ C;   (a, b, c) = M(q, |V|);   q ← q + a + c ⟨V, U⟩;   μ ← μ + b U

    symbol   variable            symbol   variable
    q, μ     q, mu               Φ        basis
    x_j W    message             u_ij     directions
    C        mixing.channels     M        mixing.context

Energies are read from the q. Forces are minus their gradient, or, as an option, read from the μ by a head of their own:
cheaper, but then they are the derivative of no energy.
"""

from __future__ import annotations

import copy
import ctypes
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import painn_message
from asecalc_mlip.kernels.library import integers, pointers, reals
from asecalc_mlip.kernels.packing import LANES, NativeKernel, Packed, Packer, by_registers, readout_fields, with_bias
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, edge_geometry, mlp
from asecalc_mlip.models.painn_hessian import painn_bytes, painn_hessian
from asecalc_mlip.models.radial import BesselBasis, EnvelopedBasis, RadialBasisName, make_radial_basis
from asecalc_mlip.models.tabulated import Tabulated, spline_tables
from asecalc_mlip.models.traits import Memory, Network, OwnHessian, Traits
from asecalc_mlip.models.vector_head import VectorHead, norms

__all__ = ["PaiNN"]

# Largest error of a tabulated filter's derivative, relative to its largest value.
_TABLE_TOLERANCE = 5e-8


class PaiNNBlock(ctypes.Structure):
    """`Block` of kernels/painn.cpp."""

    _fields_ = [
        *pointers("filters", "a1", "a1t", "a1b", "a2", "a2t", "a2b", "c", "ct"),
        *pointers("m1", "m1t", "m1b", "m2", "m2t", "m2b"),
    ]


class PaiNNWeights(ctypes.Structure):
    """`Network` of kernels/painn.cpp."""

    _fields_ = [
        *integers("features", "blocks", "radial", "basis", "nodes", "hidden"),
        *reals("cutoff", "bend"),
        *pointers("embedding", "first", "r1", "r1t", "r1b", "r2"),
        *reals("r2b"),
        ("block", ctypes.POINTER(PaiNNBlock)),
    ]


class PaiNN(Network):
    """Equivariant message passing; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width F of scalars and vectors.
    n_interactions : int
        Number of message passing blocks.
    n_rbf : int
        Number of radial functions.
    radial_basis : {"gaussian", "bessel"}
    direct_forces : bool
        Add a head that reads the forces from the vectors, for `energies_and_forces`.
    """

    traits = Traits(
        native=NativeKernel("painn", LANES, PaiNNWeights),
        native_messages=True,
        memory=Memory(native=(4.0, 45.0), plain=(15.5, 50.0)),
        hessian=OwnHessian(painn_hessian, painn_bytes),
        # 2.2 times as fast for aspirin, but 0.7 times for 512 atoms.
        compiling_pays=False,
        trims_edges=True,
        halo=1.0,
        train_instead=None,
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 128,
        *,
        n_interactions: int = 3,
        n_rbf: int = 20,
        radial_basis: RadialBasisName = "gaussian",
        direct_forces: bool = False,
    ):
        super().__init__()
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions
        self.radial = EnvelopedBasis(make_radial_basis(radial_basis, n_rbf, cutoff))
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.filters = nn.Linear(n_rbf, 3 * n_features * n_interactions)
        self.messages = nn.ModuleList(mlp(n_features, n_features, 3 * n_features) for _ in range(n_interactions))
        self.mixings = nn.ModuleList(PaiNNMixing(n_features) for _ in range(n_interactions))
        self.readout = mlp(n_features, n_features // 2, 1)
        # Made last, so that a seed gives the other weights the same values with and without it.
        self.force_head = VectorHead(n_features) if direct_forces else None

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        q, _ = self._features(graph, scalars_only=True)
        return self.readout(q).squeeze(-1)

    def energies_and_forces(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Energies (N,) and, by the force head, forces (N, 3), in one pass; InputError where there is no head."""
        q, mu = self.features(graph)
        return self.readout(q).squeeze(-1), self.head(q, mu)

    def energies_and_vectors(self, graph: AtomGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (N,) with the vectors (N, 3, F) and scalars (N, F) of `features`, for heads beside the energy."""
        q, mu = self.features(graph)
        return self.readout(q).squeeze(-1), mu, q

    def features(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Scalars q (N, F) and vectors μ (N, 3, F) after the last block."""
        return self._features(graph, scalars_only=False)

    def filter_functions(self) -> list[Tabulated]:
        """Return the filters of each block as functions of the distance, of two parts in the first and three after."""
        return [partial(_filters_of, self, weights) for weights in _filter_weights(self)]

    def packed(self) -> Packed:
        """Return the weights for kernels/painn.cpp."""
        return _packed(self)

    def _features(self, graph: AtomGraph, *, scalars_only: bool) -> tuple[Tensor, Tensor]:
        """With `scalars_only` the last block does not mix the vectors, which the energy does not need."""
        distances, directions = edge_geometry(graph, self.filters.weight.dtype)
        q = self.embedding(graph.numbers)
        # The vectors are zero before the first block; None lets that block skip the terms they would enter.
        mu: Any = None
        last = len(self.mixings) - 1
        # With the bias as the weight of one more radial function, filters are one matrix product.
        weights = torch.cat([self.filters.weight, self.filters.bias[:, None]], dim=1)
        basis = self.radial(distances)
        messages: Any = self.messages  # to torch's types a ModuleList holds plain modules, which have no index
        for block, (message, mixing) in enumerate(zip(messages, self.mixings, strict=True)):
            width = (2 if mu is None else 3) * self.n_features
            start = 3 * self.n_features * block
            x = nn.functional.linear(message[1](message[0](q)), message[2].weight[:width], message[2].bias[:width])
            message_of = partial(_message, weights[start : start + width])
            dq, dmu = self.over_edges(message_of, (basis, directions, graph.centers, graph.neighbors), (x, mu))
            mu = dmu if mu is None else mu + dmu
            q, mu = mixing(q + dq, mu, scalars_only=scalars_only and block == last)
        return q, mu


def _message(
    weights: Tensor, basis: Tensor, directions: Tensor, centers: Tensor, neighbors: Tensor, x: Tensor, mu: Tensor | None
) -> tuple[Tensor, Tensor]:
    return painn_message(nn.functional.linear(basis, weights), directions, x, mu, centers, neighbors)


class PaiNNMixing(nn.Module):
    """Mixing of scalars and vectors on each atom, the update block of PaiNN."""

    def __init__(self, n_features: int):
        super().__init__()
        self.context = mlp(2 * n_features, n_features, 3 * n_features)
        self.channels = nn.Linear(n_features, 2 * n_features, bias=False)

    def forward(self, q: Tensor, mu: Tensor, *, scalars_only: bool = False) -> tuple[Tensor, Tensor]:
        """(N, F) scalars and (N, 3, F) vectors, mixed; with `scalars_only` the vectors come back unchanged."""
        v, u = self.channels(mu).chunk(2, dim=-1)
        a, b, c = self.context(torch.cat([q, norms(v)], dim=-1)).chunk(3, dim=-1)
        q = q + a + c * (v * u).sum(dim=1)
        return q, mu if scalars_only else mu + b[:, None, :] * u


def _packed(network: PaiNN) -> Packed:
    packer, basis, F = Packer(), network.radial.basis, network.n_features
    numbers, nodes, bend = _filter_numbers(network)
    pairs: Any = list(zip(network.messages, network.mixings, strict=True))
    blocks = []
    for k, (message, mixing) in enumerate(pairs):
        channels, last = mixing.channels.weight, k + 1 == len(pairs)
        fields: dict[str, Any] = {"filters": numbers[k], "c": channels.t(), "ct": channels}
        # x of the first block is a table; nobody reads the vectors after the last, so their factor b is not there.
        fields |= dict.fromkeys(("a1", "a1t", "a1b", "a2", "a2t", "a2b"), 0)
        if k:
            fields |= with_bias("a1", message[0]) | with_bias("a2", message[2])
        fields |= with_bias("m1", mixing.context[0]) | with_bias("m2", _scalars_first(mixing.context[2], last))
        blocks.append(packer.struct(PaiNNBlock, **fields))
    return packer.packed(
        PaiNNWeights,
        features=F,
        blocks=len(blocks),
        radial=basis.n_rbf + 1,
        basis=int(isinstance(basis, BesselBasis)),
        nodes=nodes,
        cutoff=float(network.cutoff),
        bend=bend,
        embedding=network.embedding.weight,
        # The vectors are zero before the first block, so their third of filters and messages is not there.
        first=pairs[0][0](network.embedding.weight)[:, : 2 * F],
        block=blocks,
        **readout_fields(network.readout),
    )


def _scalars_first(layer: nn.Linear, last: bool) -> nn.Linear:
    """Return the layer that makes (a, b, c) as one that makes (a, c, b), in the last block (a, c)."""
    made = copy.deepcopy(layer)
    for name in ("weight", "bias"):
        a, b, c = getattr(layer, name).detach().chunk(3)
        setattr(made, name, nn.Parameter(torch.cat([a, c] if last else [a, c, b]), requires_grad=False))
    return made


def _filter_numbers(network: PaiNN) -> tuple[list[Tensor], int, float]:
    """Numbers that the kernel makes the filters of each block of, by registers of features; nodes and bend of splines.

    In float32 splines, in float64, where they would take hundreds of megabytes, the weights of the radial functions.
    """
    dtype, F = network.filters.weight.dtype, network.n_features
    if dtype == torch.float64:
        return [by_registers(part.t(), F, LANES[dtype]) for part in _filter_weights(network)], 8, 1.0
    tables, nodes, bend = spline_tables(network.filter_functions(), network.cutoff, tolerance=_TABLE_TOLERANCE)
    return [by_registers(table, F, LANES[dtype]).to(dtype) for table in tables], nodes, bend


def _filter_weights(network: PaiNN) -> list[Tensor]:
    """Weights of radial functions in the filters of each block, and the bias as that of one more, float64."""
    exact, F = copy.deepcopy(network.filters).cpu().double().requires_grad_(False), network.n_features
    weights = torch.cat([exact.weight, exact.bias[:, None]], dim=1)
    # The first block has no third part.
    return [weights[3 * F * k : 3 * F * k + (3 if k else 2) * F] for k in range(network.n_blocks)]


def _filters_of(network: PaiNN, weights: Tensor, distances: Tensor) -> Tensor:
    return nn.functional.linear(network.radial(distances), weights)
