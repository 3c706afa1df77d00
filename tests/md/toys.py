"""Small systems and calculators with known physics, and ways to plant failures in them.

The calculators look for changes as ours do: ASE's own comparison takes longer than these forces.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT as AseEMT

from asecalc_mlip.analysis.bonds import find_bonds
from asecalc_mlip.calculators.base import StateCalculator


class Springs(StateCalculator):
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
        atoms = self.take(atoms)
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


class EMT(AseEMT):
    """ASE's metals. Its neighbour list has a skin."""

    check_state = StateCalculator.check_state


class Free(StateCalculator):
    """No forces at all."""

    implemented_properties = ["energy", "free_energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        atoms = self.take(atoms)
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": np.zeros((len(atoms), 3))}


class Block(StateCalculator):
    """An elastic block: atoms tied to their scaled positions, and a cell with E = ½ C V0 |½(FᵀF − 1)|².

    At fixed scaled positions only the cell's own energy changes with strain, so pressure and the fluctuation of the
    volume, kT V0 / (C/3), are known. C is in eV/Å³.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, atoms: Atoms, stiffness: float = 4.0, spring: float = 2.0) -> None:
        super().__init__()
        self.cell0, self.scaled0 = atoms.cell.array.copy(), atoms.get_scaled_positions(wrap=False)
        self.volume0, self.stiffness = atoms.get_volume(), stiffness
        # All different: equal ones swing together, and no thermostat that is not random gets them apart.
        self.spring = spring * np.random.default_rng(0).uniform(0.5, 2.0, (len(atoms), 3))

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        atoms = self.take(atoms)
        cell = atoms.cell.array
        inverse = np.linalg.inv(cell)
        moved = atoms.positions @ inverse - self.scaled0
        moved = (moved - moved.mean(axis=0)) @ self.cell0
        pull = self.spring * moved
        deformation = np.linalg.inv(self.cell0) @ cell
        strain = 0.5 * (deformation @ deformation.T - np.eye(3))
        energy = 0.5 * np.sum(self.spring * moved**2) + 0.5 * self.stiffness * self.volume0 * np.sum(strain**2)
        stress = deformation.T @ (self.stiffness * strain) @ deformation / np.linalg.det(deformation)
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "forces": (pull.mean(axis=0) - pull) @ self.cell0.T @ inverse.T,
            "stress": stress.ravel()[[0, 4, 8, 5, 2, 1]],
        }
