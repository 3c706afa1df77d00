"""Calculators with energies known in closed form, good ones and deliberately broken ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

DEPTH, STIFFNESS, BOND = 4.0, 2.0, 1.6


class Pair(Calculator):
    """Energy of two atoms by a function of their distance that returns energy (eV) and dE/dr (eV/Å)."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, function: Callable[[float], tuple[float, float]], *, wrong_force: float = 0.0):
        super().__init__()
        self.function, self.wrong_force = function, wrong_force

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vector = self.atoms.positions[1] - self.atoms.positions[0]
        r = np.linalg.norm(vector)
        energy, slope = self.function(r)
        along = (self.wrong_force * np.exp(-((r - 2.0) ** 2)) - slope) * vector / r
        self.results = {"energy": energy, "forces": np.array([-along, along])}


class Batched(Pair):
    """The same with `evaluate`, as the calculators of this package have it; counts calls."""

    calls = 0
    cutoff = 5.0

    def evaluate(self, structures):
        self.calls += 1
        found = []
        for atoms in structures:
            self.calculate(atoms)
            found.append(dict(self.results))
        return found


def morse(r: float) -> tuple[float, float]:
    """D {[1 − exp(−α (r − r0))]² − 1}."""
    e = np.exp(-STIFFNESS * (r - BOND))
    return DEPTH * ((1.0 - e) ** 2 - 1.0), 2.0 * DEPTH * STIFFNESS * (1.0 - e) * e


def lennard_jones(r: float) -> tuple[float, float]:
    x = (1.4 / r) ** 6
    return 0.4 * (x * x - x), -0.4 * (12 * x * x - 6 * x) / r


def with_bump(function, height: float, at: float, width: float):
    """A function with a Gaussian added."""

    def changed(r):
        energy, slope = function(r)
        bump = height * np.exp(-0.5 * ((r - at) / width) ** 2)
        return energy + bump, slope - bump * (r - at) / width**2

    return changed


def cut(function, at: float, *, shift: bool):
    """A function cut off: with `shift` the energy goes to zero there and only the force jumps."""
    end = function(at)[0] if shift else 0.0

    def changed(r):
        energy, slope = function(r)
        return (energy - end, slope) if r < at else (0.0, 0.0)

    return changed
