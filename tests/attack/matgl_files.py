"""Attacks by folders of MatGL: they convert to a model that gives finite numbers, or a CheckpointError says why not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from asecalc_mlip.checkpoint import load
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import predict
from asecalc_mlip.zoo.fetch import convert_matgl
from asecalc_mlip.zoo.matgl import read_matgl
from tests.attack.crafted_files import ODD, junk
from tests.attack.harness import Arena, Attack, Trap, family
from tests.attack.model_files import known, originals

__all__ = ["folder_of_matgl"]

ELEMENTS = ["H", "C", "O"]
SIZES = {"units": 8, "nblocks": 1, "max_n": 4, "cutoff": 4.0}
PARTS = ("layers", "gates")
FIXED = {
    "rbf_type": "SphericalBessel",
    "use_smooth": True,
    "activation_type": "swish",
    "equivariance_invariance_group": "O(3)",
}


@cache
def contents() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return a small TensorNet as MatGL writes it: its description, and its tensors by name."""
    n, radial = SIZES["units"], SIZES["max_n"]
    layers = {"tensor_embedding.emb2": (n, 2 * n), "linear": (n, 3 * n)}
    readout = {f"final_layer.gated.{part}.{2 * k}": (1 if k == 3 else n, n) for part in PARTS for k in range(4)}
    layers |= {f"tensor_embedding.distance_proj{k}": (n, radial) for k in (1, 2, 3)}
    layers |= {"tensor_embedding.linears_scalar.0": (2 * n, n), "tensor_embedding.linears_scalar.1": (3 * n, 2 * n)}
    layers |= {
        f"layers.0.linears_scalar.{k}": shape for k, shape in enumerate([(n, radial), (2 * n, n), (3 * n, 2 * n)])
    }
    layers |= readout
    state = {f"{name}.weight": torch.randn(shape, generator=_seeded()) / shape[1] for name, shape in layers.items()}
    state |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in layers.items()}
    for name, count, of in (("tensor_embedding", 3, "linears_tensor"), ("layers.0", 6, "linears_tensor")):
        state |= {f"{name}.{of}.{k}.weight": torch.eye(n) / 2 for k in range(count)}
    for name, size in (("tensor_embedding.init_norm", n), ("out_norm", 3 * n)):
        state |= {f"{name}.weight": torch.ones(size), f"{name}.bias": torch.zeros(size)}
    state["tensor_embedding.emb.weight"] = torch.randn(len(ELEMENTS), n, generator=_seeded())
    state = {f"model.{name}": value for name, value in state.items()}
    state |= {"data_std": torch.tensor(1.5), "data_mean": torch.tensor(0.0)}
    state["element_refs.property_offset"] = torch.tensor([-1.0, -2.0, -3.0])
    model = {"@class": "TensorNet", "@module": "matgl.models._tensornet_pyg"}
    model["init_args"] = {"element_types": ELEMENTS, **SIZES, **FIXED}  # type: ignore[assignment]
    return {"kwargs": {"model": model}}, state


def folder_of_matgl(folder: Path, description: Any, state: Any) -> Path:
    """Write a folder as MatGL does."""
    folder.mkdir()
    torch.save(state, folder / "state.pt")
    (folder / "model.json").write_text(json.dumps(description))
    return folder


def warm() -> None:
    """Make the content of good files, and import what cases need."""
    contents()
    known(originals()[0])


@family("MatGL: odd descriptions", small=30, large=1000, warm=warm, together=25)
def descriptions(arena: Arena) -> Attack:
    description, state = copy.deepcopy(contents())
    target: Any = description
    key = arena.choice(target)
    while isinstance(target[key], (dict, list)) and len(target[key]) and arena.rng.random() < 0.8:
        target = target[key]
        key = int(arena.rng.integers(len(target))) if isinstance(target, list) else arena.choice(target)
    value = _plain(junk(arena)) if arena.rng.random() < 0.6 else int(10 ** arena.rng.uniform(0, 12))
    target[key] = value
    return f"{key!s:.40} {ascii(value)[:60]}", _converted(folder_of_matgl(arena.folder / "m", description, state))


@family("MatGL: odd tensors", small=30, large=1000, warm=warm, together=25)
def tensors(arena: Arena) -> Attack:
    description, state = copy.deepcopy(contents())
    entry, kind = arena.choice(state), arena.choice([*ODD, "left out", "code", "wild", "junk"])
    if kind in ODD:
        entry = arena.choice([name for name, value in state.items() if value.ndim])
    if kind == "left out":
        del state[entry]
    elif kind == "code":
        state[entry] = Trap(arena.trap)  # type: ignore[assignment]
    elif kind == "wild":
        state[entry] = state[entry] * float(arena.choice([1e10, 1e30, 1e38, float("inf"), float("nan")]))
    elif kind == "junk":
        state[entry] = junk(arena)
    else:
        state[entry] = ODD[kind](state[entry].clone(), arena)
    return f"{entry} {kind}", _converted(folder_of_matgl(arena.folder / "m", description, state))


@family("MatGL: damaged files", small=20, large=1000, warm=warm, together=25)
def damaged(arena: Arena) -> Attack:
    folder = folder_of_matgl(arena.folder / "m", *contents())
    path = folder / arena.choice(["state.pt", "state.pt", "model.json", "SOURCE.txt", "LICENSE"])
    content = bytearray(path.read_bytes() if path.exists() else b"Model  x\nTraining  y\n")
    how, place = arena.choice(["bit", "cut", "bytes", "folder", "none"]), int(arena.rng.integers(len(content)))
    if how == "bit":
        content[place] ^= 1 << int(arena.rng.integers(8))
    elif how == "cut":
        del content[place:]
    else:
        content[place : place + 20] = arena.rng.bytes(20)
    path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir()
    elif how != "none":
        path.write_bytes(content)
    what = "the text may have changed, and nothing knows" if path.suffix != ".pt" else ""
    return f"{path.name}: {how} at {place}", _converted(folder, exact=not what)


def _converted(folder: Path, exact: bool = False) -> Callable[[], bool | str]:
    """Convert and use: what converts gives finite numbers, and those of the good files if it must be `exact`."""

    def attempt() -> bool | str:
        from ase.build import molecule

        potential = load(convert_matgl(folder, folder.with_name("converted.pt"))).potential
        atoms = molecule("CH3CH2OH")
        atoms.numbers[:] = potential.elements[0]
        found = predict(potential, graph_from_atoms(atoms, potential.cutoff))
        assert found.forces is not None
        if not (torch.isfinite(found.energy).all() and torch.isfinite(found.forces).all()):
            return f"gives {found.energy.tolist()} eV"
        if exact:
            good = read_matgl(folder_of_matgl(folder.with_name("good"), *contents())).potential
            expected = predict(good, graph_from_atoms(atoms, potential.cutoff))
            return bool(torch.equal(found.energy, expected.energy)) or "other numbers"
        return True

    return attempt


def _plain(value: Any) -> Any:
    """Return what JSON can hold of it."""
    try:
        json.dumps(value)
        return value
    except (TypeError, ValueError, RecursionError):
        return "x"


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)
