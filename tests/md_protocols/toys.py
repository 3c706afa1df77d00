"""Small systems and calculators with known physics, and ways to plant failures in them."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes

from asecalc_mlip.analysis.bonds import find_bonds


class Springs(Calculator):
    """A spring between every pair of atoms, strong for bonds: E = ½ Σ k_ij (d_ij − d0_ij)².

    `failures` maps the number of a force call to a function that changes the forces (n, 3) from then on.
    """

    implemented_properties = ["energy", "free_energy", "forces"]

    def __init__(self, atoms: Atoms, k_bond: float = 20.0, k_other: float = 0.5, failures=None) -> None:
        super().__init__()
        self.i, self.j = np.triu_indices(len(atoms), 1)
        self.d0 = np.linalg.norm(atoms.positions[self.i] - atoms.positions[self.j], axis=1)
        bonded = {tuple(b) for b in find_bonds(atoms)}
        self.k = np.array([k_bond if pair in bonded else k_other for pair in zip(self.i, self.j, strict=True)])
        self.failures = failures or {}
        self.calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        vectors = atoms.positions[self.i] - atoms.positions[self.j]
        d = np.linalg.norm(vectors, axis=1)
        pull = (-self.k * (d - self.d0) / d)[:, None] * vectors
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, self.i, pull)
        np.add.at(forces, self.j, -pull)
        energy = 0.5 * float(np.sum(self.k * (d - self.d0) ** 2))
        for start, change in self.failures.items():
            if self.calls >= start:
                forces = change(atoms, forces)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


def ethanol() -> Atoms:
    """Nine atoms, three elements."""
    return molecule("CH3CH2OH")


def copper() -> Atoms:
    """Eight atoms of fcc copper, periodic, a little rattled."""
    atoms = bulk("Cu") * 2
    atoms.rattle(0.02, seed=3)
    return atoms


class Free(Calculator):
    """No forces at all."""

    implemented_properties = ["energy", "free_energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": np.zeros((len(atoms), 3))}
