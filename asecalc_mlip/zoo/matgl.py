"""Weights that MatGL published, as models of this package: TensorNet and M3GNet.

A folder holds `state.pt`, tensors by name, and `model.json`, how the model was built. Tensors are read with
`weights_only=True` and the description as JSON: nothing in either is executed.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor

from asecalc_mlip.digests import sha256_of
from asecalc_mlip.errors import CheckpointError
from asecalc_mlip.file_format import archive
from asecalc_mlip.file_format.archive import ALLOWED
from asecalc_mlip.files import read_json
from asecalc_mlip.models import Potential, build_potential
from asecalc_mlip.models.budget import Budget

__all__ = ["Converted", "read_matgl"]

State = dict[str, Tensor]
LARGEST = 256 * 2**20  # bytes of state.pt; the published ones have 4 MB
LARGEST_DESCRIPTION = 2**20  # of model.json, which has 2 kB


@dataclass(frozen=True)
class Converted:
    """A potential and what its source says of it."""

    potential: Potential
    card: dict[str, Any]
    reference_energies: dict[str, Any]


def read_matgl(folder: str | Path) -> Converted:
    """Potential of a folder with `state.pt` and `model.json`, in float32 as it is published.

    Raises
    ------
    CheckpointError
        For a folder that holds no such model, or one of an architecture or with options that are not known here.
    """
    folder = Path(folder)
    arguments, module = _arguments(folder)
    state = _state(folder)
    name = str(module.rpartition(".")[2])
    try:
        numbers = [atomic_numbers[symbol] for symbol in arguments["element_types"]]
        make = {"_tensornet_pyg": _tensornet, "_tensornet_dgl": _tensornet, "_m3gnet": _m3gnet}[name]
        architecture, hyperparameters, weights = make(arguments, state, numbers, name)
        scale, mean = float(state["data_std"]), float(state["data_mean"])
        offsets = state["element_refs.property_offset"].double()
        if mean != 0:
            raise CheckpointError(f"{folder}: data_mean is {mean} eV for a structure, which no sum over atoms can hold")
        potential = _potential(architecture, hyperparameters, weights, numbers, scale, offsets)
    except KeyError as error:
        raise CheckpointError(
            f"{folder}: {error!s:.200} is missing or unknown; MatGL's TensorNet and M3GNet of 2025.1 are converted"
        ) from None
    except (ValueError, RuntimeError, IndexError, AttributeError, TypeError, ArithmeticError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}: the weights do not fit the description: {error!s:.400}") from None
    return Converted(potential, _card(folder), _source_of_e0(folder))


def _arguments(folder: Path) -> tuple[dict[str, Any], str]:
    """Arguments of the model and the module that it was made by."""
    path = folder / "model.json"
    if path.is_file() and path.stat().st_size > LARGEST_DESCRIPTION:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; allowed are {LARGEST_DESCRIPTION}")
    try:
        content = read_json(path, "description of the model")
        model = content["kwargs"]["model"]
        arguments, module = dict(model["init_args"]), str(model["@module"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no model of MatGL: {error}") from None
    # Without these the energies would be those of another model, and nothing in the weights would tell.
    _expect(content["kwargs"], {"calc_repuls": False})
    _expect(arguments, {"is_intensive": False, "include_state": False})
    return arguments, module


def _state(folder: Path) -> State:
    path = folder / "state.pt"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a model of MatGL is a folder with state.pt and model.json")
    if path.stat().st_size > LARGEST:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; models of up to {LARGEST} are converted")
    try:
        archive.check(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds Python objects ({str(error).splitlines()[0][:120]}); nothing ran"
        ) from None
    except Exception as error:  # noqa: BLE001  torch raises many kinds for damaged archives
        raise CheckpointError(f"{path} is damaged ({error!s:.160}); copy or download it again") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} is no dictionary of tensors")
    for entry, value in state.items():
        odd = value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu"
        if odd or value.nbytes > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: entry {entry!r:.80} is no dense tensor; {ALLOWED}")
    return {str(name).removeprefix("model."): value for name, value in state.items()}


def _potential(
    architecture: str,
    hyperparameters: dict[str, Any],
    weights: State,
    numbers: list[int],
    scale: float,
    offsets: Tensor,
) -> Potential:
    zeros = dict.fromkeys(numbers, 0.0)
    with Budget(sum(value.numel() for value in weights.values())):
        potential = build_potential(architecture, hyperparameters, reference_energies=zeros, scale=scale)
    potential.network.load_state_dict(weights)
    # MatGL takes an atom alone for what the network says of it; here that is part of its reference energy.
    potential.double().eval()
    alone = potential.lone_atoms()
    for k, z in enumerate(numbers):
        potential.e0[z] = offsets[k] + scale * alone[z]
    return potential.float().eval().requires_grad_(False)


def _tensornet(
    arguments: Mapping[str, Any], state: State, numbers: list[int], module: str
) -> tuple[str, dict[str, Any], State]:
    _expect(arguments, {"rbf_type": "SphericalBessel", "use_smooth": True, "activation_type": "swish"})
    n_features, n_blocks = arguments["units"], arguments["nblocks"]
    hyperparameters = {
        "cutoff": float(arguments["cutoff"]),
        "n_features": n_features,
        "n_interactions": n_blocks,
        "n_rbf": arguments["max_n"],
        "radial_basis": "smooth_bessel",
        "envelope": "cosine",
        # The files do not tell how messages are passed, but the module that wrote them does.
        "messages": "own" if module.endswith("_dgl") else "neighbor",
        "group": {"O(3)": "O3", "SO(3)": "SO3"}[arguments["equivariance_invariance_group"]],
    }
    e = "tensor_embedding."
    pairs = state[e + "emb2.weight"]
    weights = {
        "embedding.element.weight": _by_number(state[e + "emb.weight"], numbers),
        "embedding.of_neighbor.weight": pairs[:, :n_features],
        "embedding.of_center.weight": pairs[:, n_features:],
        "embedding.of_center.bias": state[e + "emb2.bias"],
        **_layer(state, e + "init_norm", "embedding.norm"),
        **_layer(state, e + "linears_scalar.0", "embedding.scales.0"),
        **_layer(state, e + "linears_scalar.1", "embedding.scales.2"),
        **_layer(state, "out_norm", "norm"),
        **_layer(state, "linear", "scalars"),
        **_gated(state, "final_layer.gated", "readout.mlp"),
    }
    for kind in ("weight", "bias"):
        weights[f"embedding.projections.{kind}"] = torch.cat([state[f"{e}distance_proj{k}.{kind}"] for k in (1, 2, 3)])
    for k in range(3):
        weights |= _layer(state, f"{e}linears_tensor.{k}", f"embedding.mix.{k}")
    for block in range(n_blocks):
        for k in range(3):
            weights |= _layer(state, f"layers.{block}.linears_scalar.{k}", f"blocks.{block}.filters.{k}")
        for k in range(6):
            weights |= _layer(state, f"layers.{block}.linears_tensor.{k}", f"blocks.{block}.mix.{k}")
    return "tensornet", hyperparameters, weights


def _m3gnet(
    arguments: Mapping[str, Any], state: State, numbers: list[int], module: str
) -> tuple[str, dict[str, Any], State]:
    _expect(arguments, {"rbf_type": "SphericalBessel", "use_phi": False, "activation_type": "swish"})
    _expect(arguments, {"dim_edge_embedding": arguments["dim_node_embedding"]})
    hyperparameters = {
        "cutoff": float(arguments["cutoff"]),
        "n_features": arguments["dim_node_embedding"],
        "n_hidden": arguments["units"],
        "n_interactions": arguments["nblocks"],
        "n_rbf": arguments["max_n"],
        "n_angular": arguments["max_l"],
        "three_body_cutoff": float(arguments["threebody_cutoff"]),
        "radial_basis": "smooth_bessel" if arguments["use_smooth"] else "spherical_bessel",
    }
    weights = {
        "embedding.weight": _by_number(state["embedding.layer_node_embedding.weight"], numbers),
        **_layer(state, "embedding.layer_edge_embedding.layers.0", "pair_embedding"),
        **_gated(state, "final_layer.gated", "readout.mlp"),
    }
    for t in range(arguments["nblocks"]):
        three, graph, block = f"three_body_interactions.{t}.", f"graph_layers.{t}.conv.", f"blocks.{t}."
        weights |= {
            **_layer(state, three + "update_network_atom.layers.0", block + "three_body.atoms"),
            **_layer(state, three + "update_network_bond.layers.0", block + "three_body.value"),
            **_layer(state, three + "update_network_bond.gates.0", block + "three_body.gate"),
            **_gated(state, graph + "edge_update_func", block + "pairs"),
            **_layer(state, graph + "edge_weight_func", block + "pair_weights"),
            **_gated(state, graph + "node_update_func", block + "atoms"),
            **_layer(state, graph + "node_weight_func", block + "atom_weights"),
        }
    return "m3gnet", hyperparameters, weights


def _layer(state: State, theirs: str, ours: str) -> State:
    """Weight of a layer, and its bias if there is one."""
    found = {f"{ours}.weight": state[f"{theirs}.weight"]}
    if f"{theirs}.bias" in state:
        found[f"{ours}.bias"] = state[f"{theirs}.bias"]
    return found


def _gated(state: State, theirs: str, ours: str) -> State:
    """Weights of a gated network, whose layers have even numbers in both."""
    found: State = {}
    for part, name in (("layers", "value"), ("gates", "gate")):
        pattern = re.compile(re.escape(f"{theirs}.{part}.") + r"(\d+)\.weight")
        for key in [key for key in state if pattern.fullmatch(key)]:
            number = key.split(".")[-2]
            found |= _layer(state, f"{theirs}.{part}.{number}", f"{ours}.{name}.{number}")
    return found


def _by_number(rows: Tensor, numbers: list[int]) -> Tensor:
    """Rows of an embedding, one for each element, at the rows of their atomic numbers."""
    from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER

    return rows.new_zeros(MAX_ATOMIC_NUMBER + 1, rows.shape[1]).index_copy(0, torch.tensor(numbers), rows)


def _expect(arguments: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if arguments.get(name, value) != value:
            raise CheckpointError(f"model.json: {name} is {arguments[name]!r:.80}; {value!r} is converted")


def _card(folder: Path) -> dict[str, Any]:
    """Return what SOURCE.txt and LICENSE beside the weights say, and checksums of what was read."""
    source = _text(folder / "SOURCE.txt")
    card: dict[str, Any] = {"name": folder.name.removesuffix("-PES"), "converted_from": "MatGL"}
    for line in source.splitlines():
        head, _, rest = line.partition("  ")
        if head in ("Model", "Repository", "Commit", "Training", "Published"):
            card[head.lower()] = rest.strip()
    license_ = _text(folder / "LICENSE").strip().splitlines()
    card["licence"] = license_[0] if license_ else "not stated"
    card["sha256"] = {name: sha256_of(folder / name) for name in ("state.pt", "model.json")}
    return card


def _source_of_e0(folder: Path) -> dict[str, Any]:
    return {"method": "given", "source": f"{folder.name}: offsets of the elements and what its network says of an atom"}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
