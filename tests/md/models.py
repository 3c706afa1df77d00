"""A potential of the package with random weights, held together by springs."""

from __future__ import annotations

from pathlib import Path

import torch
from ase.calculators.calculator import all_changes

from asecalc_mlip import PIWSLCalculator, checkpoint
from asecalc_mlip.models.painn import PaiNN
from asecalc_mlip.models.potential import Potential
from tests.md.toys import Springs


def random_model(path: Path, e0: dict[int, float] | None = None) -> Path:
    """A small PaiNN, for C, H and O unless others are given; the same weights every time."""
    hyperparameters = {"cutoff": 3.0, "n_features": 16, "n_interactions": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PaiNN(**hyperparameters)
    e0 = e0 or {1: -13.0, 6: -1000.0, 8: -2000.0}
    potential = Potential(
        network, architecture="painn", hyperparameters=hyperparameters, reference_energies=e0, scale=0.1
    )
    checkpoint.save(path, potential)
    return path


class SpringsAndModel(Springs):
    """Springs plus the random model, which is made if `path` does not exist."""

    def __init__(self, atoms, path: Path) -> None:
        super().__init__(atoms)
        self.model = PIWSLCalculator.load(path if path.exists() else random_model(path), device="cpu", skin=0.3)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.model.calculate(atoms, properties, system_changes)
        for name in ("energy", "free_energy", "forces"):
            self.results[name] = self.results[name] + self.model.results[name]

    def reset(self):
        super().reset()
        self.model.reset()
