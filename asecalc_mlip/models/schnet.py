r"""SchNet, continuous-filter convolutions (Schütt et al., NeurIPS 2017; JCP 148 (2018) 241722).

x_i ← x_i + f2out( Σ_j (x W_in)_j · f_c(d_ij) · w(Φ(d_ij)) )

symbol   variable            symbol   variable
x        x                   Φ        basis
W_in     in2f                w        filter_network
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import schnet_message
from asecalc_mlip.kernels.library import integers, pointers, reals
from asecalc_mlip.kernels.packing import LANES, NativeKernel, Packed, Packer, by_registers, readout_fields, with_bias
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, ShiftedSoftplus, at_once, edge_geometry, mlp
from asecalc_mlip.models.radial import RadialBasisName, cosine_cutoff, make_radial_basis
from asecalc_mlip.models.tabulated import Tabulated, spline_tables
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["SchNet"]


# Largest error of a tabulated filter's derivative, relative to its largest value. Float64, asked for to see small
# differences, would need tables of hundreds of megabytes and is left to the eager engine.
_TABLE_TOLERANCE = 5e-8


class SchNetBlock(ctypes.Structure):
    """`Block` of kernels/schnet.cpp."""

    _fields_ = pointers("table", "w", "wt", "b1", "b1t", "b1b", "b2", "b2t", "b2b")


class SchNetWeights(ctypes.Structure):
    """`Network` of kernels/schnet.cpp."""

    _fields_ = [
        *integers("features", "blocks", "nodes", "hidden"),
        *reals("cutoff", "bend"),
        *pointers("embedding", "first", "r1", "r1t", "r1b", "r2"),
        *reals("r2b"),
        ("block", ctypes.POINTER(SchNetBlock)),
    ]


class SchNet(Network):
    """Invariant message passing; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width of the atom features and of the filters.
    n_interactions : int
        Number of message passing blocks.
    n_rbf : int
        Number of radial functions.
    radial_basis : {"gaussian", "bessel"}
    """

    traits = Traits(
        native=NativeKernel("schnet", {torch.float32: LANES[torch.float32]}, SchNetWeights),
        native_messages=True,
        memory=Memory(native=(5.6, 9.0), plain=(7.6, 9.0)),
        hessian=None,
        # 1.3 (512 atoms) to 2.2 times (aspirin) as fast.
        compiling_pays=True,
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
    ):
        super().__init__()
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions
        self.radial_basis = make_radial_basis(radial_basis, n_rbf, cutoff)
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.interactions = nn.ModuleList(SchNetInteraction(n_features, n_rbf) for _ in range(n_interactions))
        self.readout = mlp(n_features, n_features // 2, 1)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        distances, _ = edge_geometry(graph, self.embedding.weight.dtype)
        basis, envelope = self.radial_basis(distances), self.envelope(distances)[:, None]
        x = self.embedding(graph.numbers)
        for interaction in self.interactions:
            x = x + interaction(graph, x, basis, envelope, self.over_edges)
        return self.readout(x).squeeze(-1)

    def envelope(self, distances: Tensor) -> Tensor:
        """Factor that takes the filters to zero at the cutoff, (E,)."""
        return cosine_cutoff(distances, self.cutoff)

    def filter_functions(self) -> list[Tabulated]:
        """Return the filters of each block as functions of the distance, in float64."""
        return [_filter(self, block) for block in range(len(self.interactions))]

    def packed(self) -> Packed:
        """Return the weights for kernels/schnet.cpp."""
        packer = Packer()
        tables, nodes, bend = _filter_tables(self)
        blocks = []
        pairs: Any = list(zip(tables, self.interactions, strict=True))
        for k, (table, block) in enumerate(pairs):
            weights = block.in2f.weight
            # x of the first block is a table.
            fields = {"table": table, "w": weights.t() if k else 0, "wt": weights if k else 0}
            fields |= with_bias("b1", block.f2out[0]) | with_bias("b2", block.f2out[2])
            blocks.append(packer.struct(SchNetBlock, **fields))
        return packer.packed(
            SchNetWeights,
            features=self.n_features,
            blocks=len(blocks),
            nodes=nodes,
            cutoff=float(self.cutoff),
            bend=bend,
            embedding=self.embedding.weight,
            first=pairs[0][1].in2f(self.embedding.weight),
            block=blocks,
            **readout_fields(self.readout),
        )


class SchNetInteraction(nn.Module):
    """One continuous-filter convolution with its atom-wise layers."""

    def __init__(self, n_features: int, n_rbf: int):
        super().__init__()
        self.in2f = nn.Linear(n_features, n_features, bias=False)
        nn.init.xavier_uniform_(self.in2f.weight)
        self.filter_network = mlp(n_rbf, n_features, n_features, ShiftedSoftplus)
        self.f2out = mlp(n_features, n_features, n_features, ShiftedSoftplus)

    def forward(
        self, graph: AtomGraph, x: Tensor, basis: Tensor, envelope: Tensor, over_edges: Callable = at_once
    ) -> Tensor:
        """Change of the features (N, F) from the neighbours."""
        edges = (basis, envelope, graph.centers, graph.neighbors)
        return self.f2out(over_edges(self._message, edges, (self.in2f(x),)))

    def _message(self, basis: Tensor, envelope: Tensor, centers: Tensor, neighbors: Tensor, x: Tensor) -> Tensor:
        return schnet_message(self.filter_network(basis) * envelope, x, centers, neighbors)


def _filter_tables(network: SchNet) -> tuple[list[Tensor], int, float]:
    """Splines of the filters of each block, (F / lanes, nodes + 4, lanes), by registers; their nodes and bend."""
    dtype = network.embedding.weight.dtype
    tables, nodes, bend = spline_tables(network.filter_functions(), network.cutoff, tolerance=_TABLE_TOLERANCE)
    return [by_registers(table, network.n_features, LANES[dtype]).to(dtype) for table in tables], nodes, bend


def _filter(network: SchNet, block: int) -> Tabulated:
    """w(d) of one block in float64."""
    interaction = network.interactions[block]
    assert isinstance(interaction, SchNetInteraction)
    layers = copy.deepcopy(interaction.filter_network).cpu().double().requires_grad_(False)
    return lambda distances: layers(network.radial_basis(distances)) * network.envelope(distances)[:, None]
