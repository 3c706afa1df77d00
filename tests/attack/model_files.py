"""Attacks by damaged model files: what loads must be the model that was written, all else is a CheckpointError."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule

from asecalc_mlip import zoo
from asecalc_mlip.checkpoint import FORMAT_VERSION, LoadedModel, load
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import predict
from tests.attack.harness import Arena, Attack, family

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / f"v{FORMAT_VERSION}"


@cache
def originals() -> tuple[Path, ...]:
    """Files that are damaged: a small one of each architecture, and the shipped ones."""
    return (*sorted(GOLDEN.glob("*.pt")), *(zoo.FOLDER / name for name in zoo.models()))


@cache
def known(path: Path) -> LoadedModel:
    """Return the model of a file that is whole."""
    return load(path)


def warm() -> None:
    """Load all models that cases compare with."""
    for path in originals():
        numbers_of_model(known(path))


@family("model files: flipped bits", small=40, large=4000, warm=warm, together=25)
def flipped_bits(arena: Arena) -> Attack:
    original, content = _copied(arena)
    places = arena.rng.integers(8 * len(content), size=arena.choice([1, 1, 1, 2, 8]))
    for place in places:
        content[place // 8] ^= 1 << (place % 8)
    return f"{original.name}, bits {places.tolist()}", _attempt(arena, original, content)


@family("model files: cut off", small=20, large=1000, warm=warm, together=25)
def cut_off(arena: Arena) -> Attack:
    original, content = _copied(arena)
    length = arena.choice(
        [int(arena.rng.integers(len(content))), max(0, len(content) - int(arena.rng.integers(1, 200)))]
    )
    return f"{original.name}, first {length} bytes of {len(content)}", _attempt(arena, original, content[:length])


@family("model files: pieces moved", small=20, large=1000, warm=warm, together=25)
def moved(arena: Arena) -> Attack:
    original, content = _copied(arena)
    size = int(2 ** arena.rng.uniform(0, np.log2(len(content))))
    start, to = (int(arena.rng.integers(len(content) - size + 1)) for _ in range(2))
    piece = bytes(content[start : start + size])
    how = arena.choice(["copied", "zero", "random", "left out", "doubled", "other model"])
    if how == "left out":
        del content[start : start + size]
    elif how == "doubled":
        content[to:to] = piece
    else:
        other = arena.choice(originals()).read_bytes()[start : start + size]
        content[to : to + size] = {
            "copied": piece,
            "zero": bytes(size),
            "random": arena.rng.bytes(size),
            "other model": other,
        }[how]
    return f"{original.name}, {size} bytes from {start} to {to}: {how}", _attempt(arena, original, content)


def same(path: Path, original: Path) -> bool | str:
    """Whether a file loads with the weights, metadata, energies and forces of another."""
    found, expected = load(path), known(original)
    for name, part in _described(expected).items():
        if part != _described(found)[name]:
            return f"{name} differs"
    states = found.potential.state_dict(), expected.potential.state_dict()
    if any(not torch.equal(value, states[1][name]) for name, value in states[0].items()):
        return "weights differ"
    return True if torch.equal(numbers_of_model(found), numbers_of_model(expected)) else "energy or forces differ"


def numbers_of_model(model: LoadedModel) -> torch.Tensor:
    """Energy and forces of a molecule of the elements of a model."""
    elements = model.potential.elements
    atoms = molecule("CH3CH2OH")
    atoms.numbers[:] = [elements[i % len(elements)] for i in range(len(atoms))]
    atoms.positions += np.random.default_rng(0).uniform(-0.1, 0.1, atoms.positions.shape)
    result = predict(model.potential, graph_from_atoms(atoms, model.potential.cutoff))
    assert result.forces is not None
    return torch.cat([result.energy, result.forces.flatten()])


def _copied(arena: Arena) -> tuple[Path, bytearray]:
    path = arena.choice(originals())
    return path, bytearray(path.read_bytes())


def _attempt(arena: Arena, original: Path, content: bytes | bytearray) -> Any:
    path = arena.folder / "model.pt"
    path.write_bytes(content)
    return lambda: same(path, original)


def _described(model: LoadedModel) -> dict[str, Any]:
    potential = model.potential
    names = ("architecture", "hyperparameters", "scale", "cutoff", "dtype", "reference_energies")
    return {name: getattr(potential, name) for name in names} | {
        "card": model.card,
        "source of E0": model.reference_energies,
        "reference": model.reference,
    }
