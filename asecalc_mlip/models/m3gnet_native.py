"""Weights of M3GNet for kernels/m3gnet.cpp."""

from __future__ import annotations

import copy
import ctypes
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asecalc_mlip.kernels.library import integers, pointers, reals
from asecalc_mlip.kernels.packing import LANES, Packed, Packer, panels
from asecalc_mlip.models.tabulated import spline_tables

if TYPE_CHECKING:
    from asecalc_mlip.models.layers import GatedMLP
    from asecalc_mlip.models.m3gnet import M3GNet, M3GNetBlock

__all__ = ["M3GNetWeights", "packed"]

# Numbers that the kernel may keep for the way back, 1 GB in float32; where atoms need more it makes them once more.
_ROOM = 2**28
# Largest error of the slope of a tabulated function of the distance, relative to the largest slope.
_TABLE_TOLERANCE = {torch.float32: 2e-7, torch.float64: 1e-11}
_STACKS = ("v", "g")


class M3GNetBlockWeights(ctypes.Structure):
    """`Block` of kernels/m3gnet.cpp."""

    _fields_ = pointers(
        *("pq", "pqt", "pqb", "s", "st", "sb", "g", "gt"),
        *(
            f"{network}{layer}"
            for network in "ev"
            for layer in ("1", "1t", *(f"{k}{stack}{t}" for k in (2, 3) for stack in _STACKS for t in ("", "t", "b")))
        ),
        *("er", "vr"),
    )


class M3GNetWeights(ctypes.Structure):
    """`Network` of kernels/m3gnet.cpp."""

    _fields_ = [
        *integers("features", "hidden", "blocks", "nodes", "radial", "angular", "harmonics", "monomials", "room"),
        *reals("cutoff", "bend", "near"),
        *pointers("table", "embedding", "w", "wb", "coefficients", "owner", "below", "axis"),
        *pointers(*(f"v{k}{t}" for k in range(3) for t in ("", "t", "b")), "v3"),
        *pointers(*(f"g{k}{t}" for k in range(3) for t in ("", "t", "b")), "g3"),
        *reals("v3b", "g3b"),
        ("block", ctypes.POINTER(M3GNetBlockWeights)),
    ]


def packed(network: M3GNet) -> Packed:
    """Pack the weights; hidden layers, functions of the distance and harmonics are padded to whole registers."""
    packer, dtype = Packer(), network.embedding.weight.dtype
    lanes = LANES[dtype]
    exact = copy.deepcopy(network).double().requires_grad_(False)
    blocks = cast("list[M3GNetBlock]", list(exact.blocks))
    angular = exact.angular
    owner = angular.owner
    hidden = _whole(cast(nn.Linear, blocks[0].pairs.value[0]).out_features, lanes)
    functions = int(owner[-1]) + 1

    def tabulated(distances: Tensor) -> Tensor:
        return _columns(angular.all(distances), _whole(functions, lanes))

    (table,), nodes, bend = spline_tables([tabulated], exact.cutoff, tolerance=_TABLE_TOLERANCE[dtype])
    coefficients, below, axis = angular.monomials()
    rows = {
        "table": table,
        "embedding": exact.embedding.weight,
        "w": exact.pair_embedding.weight.t(),
        "wb": exact.pair_embedding.bias,
        "coefficients": _columns(coefficients, _whole(len(owner), lanes)),
    }
    return packer.packed(
        M3GNetWeights,
        features=network.n_features,
        hidden=hidden,
        blocks=len(blocks),
        nodes=nodes,
        radial=angular.n_radial,
        angular=functions,
        harmonics=len(owner),
        monomials=len(below),
        room=_ROOM,
        cutoff=float(network.cutoff),
        bend=bend,
        near=float(network.three_body_cutoff),
        owner=owner,
        below=below,
        axis=axis,
        **{name: value.to(dtype) for name, value in rows.items()},
        **_readout(exact.readout.mlp, hidden, dtype),
        block=[packer.struct(M3GNetBlockWeights, **_block(block, owner, hidden, dtype)) for block in blocks],
    )


def _block(block: M3GNetBlock, owner: Tensor, hidden: int, dtype: torch.dtype) -> dict[str, Tensor]:
    three_body, lanes = block.three_body, LANES[dtype]
    F = three_body.value.out_features
    harmonics, functions = _whole(len(owner), lanes), _whole(int(owner[-1]) + 1, lanes)
    networks = {"e": block.pairs, "v": block.atoms}
    # First layers of value and gate, whose columns are those of the first atom, of the second, and of the pair.
    first = {name: [_first(network, k, hidden, F) for k in range(3)] for name, network in networks.items()}
    both = torch.cat([first[name][k] for k in range(2) for name in networks], dim=1)
    biases = torch.cat([_columns(layer.bias, hidden) for name in networks for layer in _layers(networks[name], 0)])
    angles = torch.cat([three_body.value.weight, three_body.gate.weight])
    layers: dict[str, tuple[Tensor, Tensor | None]] = {
        "pq": (both, torch.cat([torch.zeros_like(biases), biases])),
        "s": (
            _columns(three_body.atoms.weight[owner].t(), harmonics),
            _columns(three_body.atoms.bias[owner], harmonics),
        ),
        "g": (_columns(angles, functions).t(), None),
    }
    for name, network in networks.items():
        layers[f"{name}1"] = (first[name][2], None)
        for k, outputs in ((2, hidden), (3, F)):
            for stack, layer in zip(_STACKS, _layers(network, 2 * (k - 1)), strict=True):
                layers[f"{name}{k}{stack}"] = _dense(layer, hidden, outputs)
    rows = {"er": block.pair_weights.weight.t().to(dtype), "vr": block.atom_weights.weight.t().to(dtype)}
    return {**_in_panels(layers, dtype), **rows}


def _readout(network: GatedMLP, hidden: int, dtype: torch.dtype) -> dict[str, Any]:
    """Fields of the two stacks that end in one number."""
    layers: dict[str, tuple[Tensor, Tensor | None]] = {}
    last: dict[str, Any] = {}
    for stack, sequence in zip(_STACKS, (network.value, network.gate), strict=True):
        dense = [layer for layer in cast(nn.Sequential, sequence) if isinstance(layer, nn.Linear)]
        F = dense[0].in_features
        for k, (inputs, outputs) in enumerate(((F, F), (F, hidden), (hidden, hidden))):
            layers[f"{stack}{k}"] = _dense(dense[k], inputs, outputs)
        last[f"{stack}3"] = _columns(dense[3].weight[0], hidden).to(dtype)
        last[f"{stack}3b"] = float(dense[3].bias[0])
    return {**_in_panels(layers, dtype), **last}


def _in_panels(layers: dict[str, tuple[Tensor, Tensor | None]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Fields of layers as panels.h reads them: weights (in, out), the transpose (t), and the bias (b) where one is."""
    fields = {}
    for name, (weights, bias) in layers.items():
        fields[name] = panels(weights, LANES[dtype]).to(dtype)
        fields[f"{name}t"] = panels(weights.t(), LANES[dtype]).to(dtype)
        if bias is not None:
            fields[f"{name}b"] = bias.to(dtype)
    return fields


def _layers(network: GatedMLP, k: int) -> list[nn.Linear]:
    """Layer of the value and layer of the gate."""
    return [cast(nn.Linear, cast(nn.Sequential, stack)[k]) for stack in (network.value, network.gate)]


def _first(network: GatedMLP, part: int, hidden: int, n_features: int) -> Tensor:
    """Return the columns of the first layers of value and gate for one of their three inputs, (F, 2 hidden)."""
    columns = slice(part * n_features, (part + 1) * n_features)
    return torch.cat([_columns(layer.weight[:, columns].t(), hidden) for layer in _layers(network, 0)], dim=1)


def _dense(layer: nn.Linear, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Weights (inputs, outputs) and bias (outputs,), with zeros for what is not there."""
    weights = pad(layer.weight, (0, inputs - layer.in_features, 0, outputs - layer.out_features))
    return weights.t(), _columns(layer.bias, outputs)


def _columns(rows: Tensor, count: int) -> Tensor:
    """Fill the last axis with zeros."""
    return pad(rows, (0, count - rows.shape[-1]))


def _whole(count: int, lanes: int) -> int:
    return -(-count // lanes) * lanes
