"""Attacks by model files: what loads must be the model that was written, all else a CheckpointError."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule

from asecalc_mlip import zoo
from asecalc_mlip.checkpoint import LoadedModel, load
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import predict
from tests.attack.harness import Arena, Attack, family

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@cache
def originals() -> list[Path]:
    """Files that are damaged: the shipped ones and a small one of each architecture."""
    return [*(zoo.FOLDER / name for name in zoo.models()), *sorted(GOLDEN.glob("v1/*.pt"))]


@family("model files: cut off", small=20, large=800)
def cut_off(arena: Arena) -> Attack:
    path, content = _copied(arena)
    length = int(arena.rng.integers(len(content)))
    (arena.folder / "model.pt").write_bytes(content[:length])
    return f"{path.name}, first {length} bytes of {len(content)}", lambda: same(arena.folder / "model.pt", path)


def same(path: Path, original: Path) -> bool | str:
    """Whether a file loads with the weights, metadata, energies and forces of another."""
    found, expected = load(path), load(original)
    for name, part in _described(expected).items():
        if part != _described(found)[name]:
            return f"{name} differs"
    states = found.potential.state_dict(), expected.potential.state_dict()
    if any(not torch.equal(value, states[1][name]) for name, value in states[0].items()):
        return "weights differ"
    return True if torch.equal(_numbers(found), _numbers(expected)) else "energy or forces differ"


def _copied(arena: Arena) -> tuple[Path, bytes]:
    path = arena.choice(originals())
    return path, path.read_bytes()


def _described(model: LoadedModel) -> dict[str, Any]:
    potential = model.potential
    names = ("architecture", "hyperparameters", "scale", "cutoff", "dtype", "reference_energies")
    return {name: getattr(potential, name) for name in names} | {
        "card": model.card,
        "source of E0": model.reference_energies,
        "reference": model.reference,
    }


def _numbers(model: LoadedModel) -> torch.Tensor:
    elements = model.potential.elements
    atoms = molecule("CH3CH2OH")
    atoms.numbers[:] = [elements[i % len(elements)] for i in range(len(atoms))]
    atoms.positions += np.random.default_rng(0).uniform(-0.1, 0.1, atoms.positions.shape)
    result = predict(model.potential, graph_from_atoms(atoms, model.potential.cutoff))
    return torch.cat([result.energy, result.forces.flatten()])
