"""Networks whose messages go through the kernels; their atom-wise layers are those of the model, in torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.engine.triton.core_operation import FusedCore
from asecalc_mlip.engine.triton.edges import Edges, edges_of
from asecalc_mlip.engine.triton.messages import painn_messages, schnet_messages
from asecalc_mlip.engine.triton.mixing_operation import Mixing
from asecalc_mlip.engine.triton.tensor_operations import (
    bounded,
    interaction,
    mixed,
    scaled,
    squares_of,
    tensor_messages,
    tensor_spread,
    updated,
)
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels.triton.blocks import Blocks
from asecalc_mlip.models.painn import PaiNN
from asecalc_mlip.models.schnet import SchNet
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.tabulated import spline_tables
from asecalc_mlip.models.tensornet import TensorNet
from asecalc_mlip.models.traits import Network
from asecalc_mlip.models.zbl import ZBL

__all__ = ["FUSED", "FusedNetwork", "FusedSum", "fuse"]

# Largest error of the slope of a tabulated filter, relative to the largest slope.
_TABLE_TOLERANCE = {torch.float32: 5e-8, torch.float64: 1e-11}


class FusedNetwork(nn.Module):
    """A network of constant weights with fused messages: AtomGraph in, one energy per atom out, (N,).

    Energies are differentiable once in the positions or edge vectors of the graph. What is given back as the gradient
    by an edge vector may be that of the same pair's other edge, turned; sums over pairs, which forces and stress are,
    do not know the difference.

    Parameters
    ----------
    network : Network
        Of one of the classes in FUSED. Its weights are copied.
    blocks : Blocks, optional
        Size of a program.
    """

    spline: Tensor

    def __init__(self, network: Network, blocks: Blocks | None = None):
        super().__init__()
        self.blocks = blocks or Blocks()
        self.network: Any = copy.deepcopy(network).requires_grad_(False)
        weight = next(network.parameters())
        tables, spline = _tables(network, weight.dtype)
        self.tables = [table.to(weight).contiguous() for table in tables]
        self.register_buffer("spline", spline.to(weight.device), persistent=False)
        self._energies = FUSED[type(network)](self)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,)."""
        return self._energies(graph)


class FusedSum(nn.Module):
    """A sum of networks, of which those with kernels are fused; the others run as they are.

    Parameters
    ----------
    network : Sum
    blocks : Blocks, optional
        Size of a program.
    """

    def __init__(self, network: Sum, blocks: Blocks | None = None):
        super().__init__()
        self.scales = network.scales
        self.parts = nn.ModuleList(fuse(part, blocks) for part in network.networks)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom, (N,); every part is zero beyond its own cutoff."""
        return torch.stack([scale * part(graph) for scale, part in zip(self.scales, self.parts, strict=True)]).sum(0)


def fuse(network: Network, blocks: Blocks | None = None) -> nn.Module:
    """Return a copy of constant weights with fused messages, where there are kernels for them."""
    if isinstance(network, Sum):
        return FusedSum(network, blocks)
    if type(network) is ZBL:
        return FusedCore(network)
    if type(network) in FUSED:
        return FusedNetwork(network, blocks)
    return copy.deepcopy(network).requires_grad_(False)


def _tables(network: Any, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Tables of the filters as splines.py reads them, float64; and what the kernels must know of the nodes."""
    tables, nodes, bend = spline_tables(network.filter_functions(), network.cutoff, tolerance=_TABLE_TOLERANCE[dtype])
    scale = (nodes - 1) * (network.cutoff + bend) / network.cutoff
    spline = torch.tensor([network.cutoff, bend, scale, nodes - 1.0], dtype=torch.float64)
    # Nothing reads the difference of the last row.
    return [torch.stack([table, table.diff(dim=0, append=table[-1:]) / 120.0], dim=1) for table in tables], spline


def _painn(fused: FusedNetwork) -> Callable[[AtomGraph], Tensor]:
    network, blocks, tables = fused.network, fused.blocks, fused.tables
    with torch.no_grad():
        # What is sent in the first block depends on the element alone; the vectors are zero there.
        first = network.messages[0](network.embedding.weight)[:, : 2 * network.n_features].contiguous()
    last = len(network.mixings) - 1
    mixings = [Mixing.of(mixing, last=k == last) for k, mixing in enumerate(network.mixings)]

    def energies(graph: AtomGraph) -> Tensor:
        edges = edges_of(graph, fused.spline, first.dtype)
        q, mu = network.embedding(graph.numbers), None
        for k, (message, mixing) in enumerate(zip(network.messages, mixings, strict=True)):
            x, senders = (message(q), edges.neighbors) if k else (first, edges.elements)
            q, mu = painn_messages(edges, tables[k], x, senders, q, mu, blocks)
            q, mu = mixing(q, mu)
        return network.readout(q).squeeze(-1)

    return energies


def _schnet(fused: FusedNetwork) -> Callable[[AtomGraph], Tensor]:
    network, blocks, tables = fused.network, fused.blocks, fused.tables
    with torch.no_grad():
        first = network.interactions[0].in2f(network.embedding.weight).contiguous()

    def energies(graph: AtomGraph) -> Tensor:
        edges = edges_of(graph, fused.spline, first.dtype)
        x = network.embedding(graph.numbers)
        for k, block in enumerate(network.interactions):
            sent, senders = (block.in2f(x), edges.neighbors) if k else (first, edges.elements)
            x = x + block.f2out(schnet_messages(edges, tables[k], sent, senders, blocks))
        return network.readout(x).squeeze(-1)

    return energies


def _tensornet(fused: FusedNetwork) -> Callable[[AtomGraph], Tensor]:
    network, blocks, tables = fused.network, fused.blocks, fused.tables
    embedding = network.embedding
    with torch.no_grad():
        of_neighbor, of_center = (
            linear(embedding.element.weight).contiguous() for linear in (embedding.of_neighbor, embedding.of_center)
        )

    def energies(graph: AtomGraph) -> Tensor:
        edges = edges_of(graph, fused.spline, of_center.dtype)
        numbers = graph.numbers.to(torch.int32)
        u = tensor_spread(edges, tables[0], numbers, of_neighbor, of_center, blocks)
        factors = embedding.scales(embedding.norm(squares_of(u).sum(1)))
        x = scaled(mixed(_weights(embedding.mix), u), factors.unflatten(-1, (-1, 3)).permute(2, 0, 1))
        for block, table in zip(network.blocks, tables[1:], strict=True):
            x = bounded(x)
            y = mixed(_weights(block.mix[:3]), x)
            m = _own_messages(edges, table, y, blocks) if block.own else tensor_messages(edges, table, y, blocks)
            d = mixed(_weights(block.mix[3:]), interaction(y, m, symmetric=block.symmetric))
            x = updated(x, d)
        return network.readout(network.scalars(network.norm(squares_of(x).flatten(1))))

    return energies


def _own_messages(edges: Edges, table: Tensor, y: Tensor, blocks: Blocks) -> Tensor:
    """Each atom's own tensors times the sums of the filters of its edges."""
    ones, first = table.new_ones(1, table.shape[-1]), edges.place.new_zeros(edges.n_edges)
    sums = schnet_messages(edges, table, ones, first, blocks)
    return scaled(y, sums.unflatten(1, (3, -1)).movedim(1, 0))


def _weights(layers: nn.ModuleList) -> list[Tensor]:
    return [layer.weight for layer in layers]  # type: ignore[misc]


# What runs the networks of a class.
FUSED: dict[type[Network], Callable[[FusedNetwork], Callable[[AtomGraph], Tensor]]] = {
    PaiNN: _painn,
    SchNet: _schnet,
    TensorNet: _tensornet,
}
