"""An analytic potential that stands in for ab-initio data in tests.

Morse pairs: smooth, cheap and exact, so that a test may ask a model to learn it and compare forces and stress with the
truth.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.stress import full_3x3_to_voigt_6_stress
from vesin import ase_neighbor_list

ATOM_ENERGY = {1: -13.6, 6: -1027.0, 7: -1485.0, 8: -2041.0, 11: -4.2, 17: -6.1}  # eV, arbitrary but of real size


class Teacher(Calculator):
    """Morse pairs D (1 − e^(−a(r−r0)))² − D plus an energy per atom.

    Without a reference every pair of unlike elements attracts at the sum of its covalent radii, like elements hardly,
    and a quintic switch ends the energy at the cutoff: rock salt is stable. With a reference molecule every pair of its
    atoms keeps its distance there, bonds more than angles and angles more than the rest: the molecule vibrates and
    stays whole.

    Parameters
    ----------
    reference
        Molecule whose distances are the minima, or None.
    cutoff
        Distance (Å) at which energy, slope and curvature of a pair without a reference reach zero.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    width = 1.6  # a, 1/Å

    def __init__(self, reference: Atoms | None = None, *, cutoff: float = 4.0) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.rest = None if reference is None else reference.get_all_distances()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Compute energy (eV), forces (eV/Å) and, for a full cell, stress (eV/Å³)."""
        super().calculate(atoms, properties, system_changes)
        numbers = self.atoms.numbers
        i, j, d, vectors = ase_neighbor_list("ijdD", self.atoms, self.cutoff if self.rest is None else 15.0)
        energies, slopes = self._pair(i, j, d)
        pull = (slopes / d)[:, None] * vectors  # each pair comes twice: i→j and j→i
        forces = np.zeros((len(numbers), 3))
        np.add.at(forces, i, pull)
        total = 0.5 * energies.sum() + sum(ATOM_ENERGY.get(int(z), 0.0) for z in numbers)
        self.results = {"energy": float(total), "free_energy": float(total), "forces": forces}
        if self.atoms.cell.rank == 3 and self.atoms.pbc.all():
            stress = 0.5 * vectors.T @ pull / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _pair(self, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return energies and their derivatives with respect to the distance."""
        numbers = self.atoms.numbers
        if self.rest is None:
            r0 = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
            depth = np.where(numbers[i] == numbers[j], 0.1, 1.5)
        else:
            r0 = self.rest[i, j]
            depth = np.select([r0 < 1.65, r0 < 2.7], [4.0, 1.0], 0.1)
        decay = np.exp(-self.width * (d - r0))
        morse = depth * ((1 - decay) ** 2 - 1)
        slope = 2 * depth * self.width * decay * (1 - decay)
        if self.rest is not None:
            return morse, slope
        x = d / self.cutoff
        switch = 1 - x**3 * (10 - 15 * x + 6 * x**2)
        return morse * switch, slope * switch - 30 * morse * x**2 * (1 - x) ** 2 / self.cutoff


def labelled(atoms: Atoms, teacher: Teacher | None = None) -> Atoms:
    """Return a copy with the teacher's labels in canonical places: energy, forces and, for crystals, stress (3×3)."""
    copy = atoms.copy()
    copy.calc = teacher or Teacher()
    copy.info["energy"] = copy.get_potential_energy()
    copy.arrays["forces"] = copy.get_forces()
    if copy.pbc.all():
        copy.info["stress"] = copy.get_stress(voigt=False)
    copy.calc = None
    return copy


def molecule_frames(n: int = 60, *, name: str = "CH3CH2OH", seed: int = 0, spread: float = 0.07) -> list[Atoms]:
    """Return labelled, randomly displaced copies of a molecule that ASE knows (ethanol has 9 atoms).

    Parameters
    ----------
    spread
        Standard deviation (Å) of each coordinate.
    """
    rng = np.random.default_rng(seed)
    start = molecule(name)
    teacher = Teacher(start)
    return [labelled(_shaken(start, spread, rng), teacher) for _ in range(n)]


def crystal_frames(n: int = 20, *, seed: int = 0, spread: float = 0.08, strain: float = 0.03) -> list[Atoms]:
    """Return labelled, strained and displaced cells of NaCl with 8 atoms, periodic in all directions, with stress."""
    rng = np.random.default_rng(seed)
    start = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    frames = []
    for _ in range(n):
        atoms = start.copy()
        deformation = rng.normal(scale=strain, size=(3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.5 * (deformation + deformation.T)), scale_atoms=True)
        frames.append(labelled(_shaken(atoms, spread, rng)))
    return frames


def isolated_atoms(numbers=(1, 6, 7, 8, 11, 17)) -> list[Atoms]:
    """Return one labelled frame per element, the limit of separated atoms."""
    return [labelled(Atoms([z], [[0.0, 0.0, 0.0]])) for z in numbers]


def as_reference(frames: list[Atoms]) -> list[Atoms]:
    """Return copies with the labels under REF_energy, REF_forces and REF_stress, as data files have them."""
    copies = []
    for atoms in frames:
        copy = atoms.copy()
        for label in ("energy", "stress"):
            if label in copy.info:
                copy.info[f"REF_{label}"] = copy.info.pop(label)
        if "forces" in copy.arrays:
            copy.set_array("REF_forces", copy.arrays.pop("forces"))
        copies.append(copy)
    return copies


def with_calculator(frames: list[Atoms]) -> list[Atoms]:
    """Return copies with the labels in a SinglePointCalculator, as ASE's own readers leave them."""
    copies = []
    for atoms in frames:
        copy = atoms.copy()
        results = {"energy": copy.info.pop("energy"), "forces": copy.arrays.pop("forces")}
        if "stress" in copy.info:
            results["stress"] = full_3x3_to_voigt_6_stress(copy.info.pop("stress"))
        copy.calc = SinglePointCalculator(copy, **results)
        copies.append(copy)
    return copies


def _shaken(atoms: Atoms, spread: float, rng: np.random.Generator) -> Atoms:
    atoms = atoms.copy()
    atoms.positions += rng.normal(scale=spread, size=atoms.positions.shape)
    return atoms
