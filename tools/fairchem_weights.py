"""Our weights of eSCN and EquiformerV2 under the names of fairchem-core, and numbers that a formula gives them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def filled(network: nn.Module) -> nn.Module:
    """Give each weight a number that depends on its name and place alone, of the size that keeps signals alive."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            phase = zlib.crc32(name.encode()) % 1000
            k = torch.arange(parameter.numel(), dtype=torch.float64)
            values = torch.sin(1.7 * k * k + 0.9 * k + phase).reshape(parameter.shape)
            size = 1.7 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.3
            parameter.copy_(1.0 + 0.3 * values if _is_norm(name) else size * values)
    return network


def _is_norm(name: str) -> bool:
    return "norm" in name and name.endswith("weight")


def escn_weights(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `asecalc_mlip.models.ESCN` under fairchem's names."""
    found = {}
    for name, value in ours.items():
        parts = name.split(".")
        if name == "embedding.weight":
            found["sphere_embedding.weight"] = value
        elif parts[0] in ("readout", "force_head"):
            block = "energy_block" if parts[0] == "readout" else "force_block"
            found[f"{block}.fc{int(parts[1]) // 2 + 1}.{parts[2]}"] = value
        elif parts[2] == "update":
            found[f"layer_blocks.{parts[1]}.fc{int(parts[3]) + 1}_sphere.weight"] = value
        elif parts[2] == "edge":
            new = {"radial": "fc1_dist", "neighbor": "source_embedding", "center": "target_embedding"}
            new["last"] = "fc1_edge_attr"
            found[f"layer_blocks.{parts[1]}.message_block.edge_block.{new[parts[3]]}.{parts[4]}"] = value
        else:
            found |= _escn_order(parts, value)
    return found


def _escn_order(parts: list[str], value: Tensor) -> dict[str, Tensor]:
    """`blocks.K.of_neighbor.orders.M.first.weight`: theirs has real and imaginary weights apart."""
    side = {"of_neighbor": "so2_block_source", "of_center": "so2_block_target"}[parts[2]]
    head = f"layer_blocks.{parts[1]}.message_block.{side}."
    m, layer, kind = int(parts[4]), parts[5], parts[6]
    if m == 0:
        return {head + {"gate": "fc1_dist0", "first": "fc1_m0", "last": "fc2_m0"}[layer] + "." + kind: value}
    head += f"so2_conv.{m - 1}."
    if layer == "gate":
        return {f"{head}fc1_dist.{kind}": value}
    real, imaginary = value.chunk(2, dim=0 if layer == "first" else 1)
    number = 1 if layer == "first" else 2
    return {f"{head}fc{number}_r.weight": real, f"{head}fc{number}_i.weight": imaginary}


def equiformer_v2_weights(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `asecalc_mlip.models.EquiformerV2` under fairchem's names."""
    found = {}
    for name, value in ours.items():
        parts = name.split(".")
        if name == "embedding.weight":
            found["backbone.sphere_embedding.weight"] = value
        elif parts[0] == "edges":
            found |= _edge_scalars("backbone.edge_degree_embedding.", parts[2:], value)
        elif parts[0] == "norm":
            found |= _norm("backbone.norm.", parts[1:], value)
        elif parts[0] == "readout":
            found |= _readout(parts, value)
        elif parts[0] == "force_head":
            found |= _attention("force.force_block.", parts[1:], value)
        elif parts[2] == "attention":
            found |= _attention(f"backbone.blocks.{parts[1]}.ga.", parts[3:], value)
        elif parts[2] == "norms":
            found |= _norm(f"backbone.blocks.{parts[1]}.norm_{int(parts[3]) + 1}.", parts[4:], value)
        else:
            found |= _feed_forward(f"backbone.blocks.{parts[1]}.ffn.", parts[3:], value)
    return found


def _norm(head: str, parts: list[str], value: Tensor) -> dict[str, Tensor]:
    if parts[0] == "scalars":
        return {f"{head}norm_l0.{parts[1]}": value}
    return {f"{head}affine_{parts[0]}": value}


def _readout(parts: list[str], value: Tensor) -> dict[str, Tensor]:
    """Only degree 0 of the last map comes out."""
    if parts[1] == "0":
        names = ("scalar_mlp.0", "gating_linear")
        return {f"energy.energy_block.{name}.{parts[2]}": value for name in names}
    if parts[2] == "bias":
        return {"energy.energy_block.so3_linear_2.bias": value}
    return {"energy.energy_block.so3_linear_2.weight": value[None]}


def _edge_scalars(head: str, parts: list[str], value: Tensor) -> dict[str, Tensor]:
    if parts[0] == "radial":
        return {f"{head}rad_func.net.{parts[1]}.{parts[2]}": value}
    return {head + {"neighbor": "source_embedding", "center": "target_embedding"}[parts[0]] + ".weight": value}


def _attention(head: str, parts: list[str], value: Tensor) -> dict[str, Tensor]:
    if parts[0] in ("first", "last"):
        m = int(parts[2])
        layer = "fc_m0" if m == 0 else f"so2_m_conv.{m - 1}.fc"
        return {f"{head}so2_conv_{1 if parts[0] == 'first' else 2}.{layer}.{parts[3]}": value}
    if parts[0] == "edge":
        within = "so2_conv_1." if parts[1] == "radial" else ""
        return _edge_scalars(head + within, parts[1:], value)
    if parts[0] == "of_logits":
        return {f"{head}alpha_dot": value}
    return {head + {"norm": "alpha_norm", "project": "proj"}[parts[0]] + "." + parts[1]: value}


def _feed_forward(head: str, parts: list[str], value: Tensor) -> dict[str, Tensor]:
    if parts[0] == "maps":
        return {f"{head}grid_mlp.{2 * int(parts[1])}.weight": value}
    if parts[0] == "scalars":
        return {f"{head}{name}.{parts[1]}": value for name in ("scalar_mlp.0", "gating_linear")}
    return {head + {"first": "so3_linear_1", "last": "so3_linear_2"}[parts[0]] + "." + parts[1]: value}


WEIGHTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "escn": escn_weights,
    "equiformer_v2": equiformer_v2_weights,
}
