"""Weights of TensorNet for kernels/tensornet.cpp."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from asecalc_mlip.kernels.library import integers, pointers, reals
from asecalc_mlip.kernels.packing import LANES, Packed, Packer, by_registers, panels, with_bias
from asecalc_mlip.models.tabulated import spline_tables
from asecalc_mlip.models.tensornet_parts import by_part

if TYPE_CHECKING:
    from asecalc_mlip.models.tensornet import TensorBlock, TensorNet

__all__ = ["TensorNetWeights", "packed"]

# Numbers that the kernel may keep for the way back, 1 GB in float32; where atoms need more it keeps a third, and makes
# the rest once more, which costs a quarter of the time.
_ROOM = 2**28
# Largest error of the slope of a tabulated filter, relative to the largest slope.
_TABLE_TOLERANCE = {torch.float32: 2e-7, torch.float64: 1e-11}


class TensorNetBlock(ctypes.Structure):
    """`Block` of kernels/tensornet.cpp."""

    _fields_ = pointers("table", *(f"{part}{k}{t}" for part in "yd" for k in range(3) for t in ("", "t")))


class TensorNetWeights(ctypes.Structure):
    """`Network` of kernels/tensornet.cpp."""

    _fields_ = [
        *integers("features", "blocks", "nodes", "own", "symmetric", "room"),
        *reals("cutoff", "bend"),
        *pointers("table", "of_neighbor", "of_center", "s0", "s0t", "s0b", "s1", "s1t", "s1b"),
        *pointers(*(f"m{k}{t}" for k in range(3) for t in ("", "t")), "h", "ht", "hb"),
        *pointers(*(f"v{k}{t}" for k in range(3) for t in ("", "t", "b")), "v3"),
        *pointers(*(f"g{k}{t}" for k in range(3) for t in ("", "t", "b")), "g3"),
        *reals("v3b", "g3b"),
        ("block", ctypes.POINTER(TensorNetBlock)),
    ]


def packed(network: TensorNet) -> Packed:
    """Pack the weights; norms are taken into the layers after them."""
    packer, dtype, F = Packer(), network.scalars.weight.dtype, network.n_features
    exact = copy.deepcopy(network).double().requires_grad_(False)
    e, blocks, readout = exact.embedding, cast("list[TensorBlock]", list(exact.blocks)), exact.readout.mlp
    first, last = e.scales[0], e.scales[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    tables, nodes, bend = spline_tables(network.filter_functions(), exact.cutoff, tolerance=_TABLE_TOLERANCE[dtype])
    fields: dict[str, Tensor] = {
        **with_bias("s0", _after(e.norm, first)),
        **with_bias("s1", _by_rows(last)),
        **_mixes("m", e.mix),
        **with_bias("h", _after(exact.norm, exact.scalars)),
    }
    value, gate = (cast("list[nn.Linear]", list(stack)) for stack in (readout.value, readout.gate))
    for name, stack in (("v", value), ("g", gate)):
        for k in range(3):
            fields |= with_bias(f"{name}{k}", stack[2 * k])
        fields[f"{name}3"] = stack[6].weight[0]
    lanes = LANES[dtype]
    return packer.packed(
        TensorNetWeights,
        features=F,
        blocks=len(blocks),
        nodes=nodes,
        own=int(blocks[0].own),
        symmetric=int(blocks[0].symmetric),
        room=_ROOM,
        cutoff=float(network.cutoff),
        bend=bend,
        table=by_registers(tables[0], F, lanes).to(dtype),
        of_neighbor=e.of_neighbor(e.element.weight).to(dtype),
        of_center=e.of_center(e.element.weight).to(dtype),
        v3b=float(value[6].bias[0]),
        g3b=float(gate[6].bias[0]),
        block=[
            packer.struct(
                TensorNetBlock,
                table=by_registers(table, F, lanes).to(dtype),
                **_in_panels({**_mixes("y", block.mix[:3]), **_mixes("d", block.mix[3:])}, dtype),
            )
            for table, block in zip(tables[1:], blocks, strict=True)
        ],
        **_in_panels(fields, dtype),
    )


def _in_panels(fields: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Cast weights and biases; the weights, (in, out), as panels.h reads them."""
    lanes = LANES[dtype]
    return {name: (panels(value, lanes) if value.ndim == 2 else value).to(dtype) for name, value in fields.items()}


def _mixes(name: str, layers: Sequence[nn.Module] | nn.ModuleList) -> dict[str, Tensor]:
    """Fields of the mixes of the three parts: as (in, out), and the transpose (t)."""
    found: dict[str, Tensor] = {}
    for k, layer in enumerate(layers):
        assert isinstance(layer, nn.Linear)
        found |= {f"{name}{k}": layer.weight.t(), f"{name}{k}t": layer.weight}
    return found


def _after(norm: nn.LayerNorm, layer: nn.Linear) -> nn.Linear:
    """Return the layer with weight and bias of the norm before it taken in."""
    made = copy.deepcopy(layer)
    made.weight.data = layer.weight * norm.weight
    made.bias.data = layer.bias + layer.weight @ norm.bias
    return made


def _by_rows(layer: nn.Linear) -> nn.Linear:
    """Return the layer with its outputs by part, where three of a channel lay side by side."""
    made = copy.deepcopy(layer)
    made.weight.data, made.bias.data = by_part(layer.weight), by_part(layer.bias)
    return made
