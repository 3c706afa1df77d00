"""Perturb and label one chunk of structures; a file of its own, so that a process starts without the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.errors import InputError
from training.settings import PretrainConfig
from training.structures.two_step import round_strengths, two_step

__all__ = ["Recipe", "begin", "labelled", "labelled_here", "perturbed"]

# Index of the structure, of the round from 0 on, and the structure.
Task = tuple[int, int, Atoms]


@dataclass(frozen=True)
class Recipe:
    """What defines a labelled file; it is only continued with the recipe it was begun with.

    Attributes
    ----------
    rounds : int
        Structures made from each, the first of which is itself; 0 for isolated dimers alone.
    strength : float
        Å; of the last round, see `two_step_series`.
    n_pairs, max_atoms, seed : int
        See `two_step`.
    model, model_sha256 : str
        The EAM: its file, and its parameters and E0.
    source_sha256 : str
        The structures.
    dimers : int
        Isolated dimers of each two elements that follow, evenly spaced in distance; see `isolated_dimers`.
    """

    rounds: int
    strength: float
    n_pairs: int
    max_atoms: int
    seed: int
    model: str
    model_sha256: str
    source_sha256: str
    dimers: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain types; without dimers where there are none, as in files that are older than they."""
        return {name: value for name, value in asdict(self).items() if name != "dimers" or value}


_worker: dict[str, Any] = {}


def begin(path: str, dtype: Any, recipe: Recipe) -> None:
    """Start of a process: the model is loaded once."""
    # The processes share the cores; threads of each would only wait for one another.
    torch.set_num_threads(1)
    _worker.update(calculator=PIWSLCalculator.load(path, device="cpu", dtype=dtype), recipe=recipe)


def labelled_here(tasks: Sequence[Task]) -> list[Atoms]:
    """Do as `labelled`, in a process that `begin` started."""
    return labelled(_worker["calculator"], _worker["recipe"], tasks)


def labelled(calculator: PIWSLCalculator, recipe: Recipe, tasks: Sequence[Task]) -> list[Atoms]:
    """Perturb structures and label them: REF_energy (eV), REF_forces (eV/Å) and REF_stress (3×3, eV/Å³)."""
    frames = [perturbed(recipe, *task) for task in tasks]
    for atoms, result in zip(frames, calculator.evaluate(frames), strict=True):
        atoms.info["REF_energy"] = result["energy"]
        atoms.arrays["REF_forces"] = result["forces"]
        if result["stress"] is not None:
            atoms.info["REF_stress"] = voigt_6_to_full_3x3_stress(result["stress"])
    return frames


def perturbed(recipe: Recipe | PretrainConfig, index: int, number: int, atoms: Atoms) -> Atoms:
    """Return the copy of a structure in a round from 0 on; its random numbers depend on seed, index and round alone."""
    strength = round_strengths(recipe.rounds, recipe.strength)[number] if recipe.rounds else 0.0
    rng = np.random.default_rng([recipe.seed, index, number])
    try:
        sizes = {"n_pairs": recipe.n_pairs, "max_atoms": recipe.max_atoms}
        frame = two_step(atoms, strength, strength, rng=rng, **sizes)
    except InputError as error:
        raise InputError(f"structure {index}, round {number + 1}: {error}") from None
    frame.info.update(structure=index, round=number + 1, displaced=strength)
    return frame
