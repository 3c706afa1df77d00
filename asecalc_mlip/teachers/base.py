"""What a teacher is, and what it says of a structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip.calculators.checks import ElementCheck
from asecalc_mlip.errors import InputError, NotEnoughMemoryError
from asecalc_mlip.teachers.bare import bare, stated_charge, stated_multiplicity

__all__ = ["AseTeacher", "Failed", "Labels", "Teacher", "TeacherOptions", "checked", "labelled"]

# eV/Å; a larger force is of nuclei on top of each other, or of a calculation that went wrong.
LARGEST_FORCE = 1e4


@dataclass(frozen=True)
class TeacherOptions:
    """Electronic state of the structures, for teachers that have electrons.

    Attributes
    ----------
    charge : int
        Total charge, e, of all structures; 0 takes what each of them states, see `asecalc_mlip.teachers.bare`.
    multiplicity : int, optional
        2S+1 of all structures; None takes what each of them states, else the lowest that the number of electrons
        allows.
    """

    charge: int = 0
    multiplicity: int | None = None

    def charge_of(self, atoms: Atoms) -> int:
        """Return the total charge of a structure, e."""
        return self.charge or stated_charge(atoms)

    def unpaired(self, atoms: Atoms) -> int:
        """Return the number of unpaired electrons of a structure, 2S.

        Raises
        ------
        InputError
            For a multiplicity that the number of electrons does not allow. Initial magnetic moments that do not go
            with it are a guess, and count for nothing.
        """
        charge = self.charge_of(atoms)
        electrons = int(atoms.numbers.sum()) - charge
        multiplicity = self.multiplicity or stated_multiplicity(atoms)
        if multiplicity is None:
            return electrons % 2
        if multiplicity < 1 or (electrons - multiplicity) % 2 == 0 or multiplicity > electrons + 1:
            if self.multiplicity is None and "multiplicity" not in atoms.info:
                return electrons % 2
            raise InputError(
                f"{atoms.get_chemical_formula()} with charge {charge} has {electrons} electrons, which does not "
                f"go with multiplicity {multiplicity}; check the charge, or give the multiplicity (2S+1)"
            )
        return multiplicity - 1

    def recipe(self) -> dict[str, int]:
        """Return what is the same for all structures, for files of labels."""
        charge = {"charge": self.charge} if self.charge else {}
        return charge if self.multiplicity is None else {**charge, "multiplicity": self.multiplicity}


@dataclass(frozen=True)
class Labels:
    """Labels of one structure.

    Attributes
    ----------
    energy : float
        eV.
    forces : ndarray
        (N, 3), eV/Å.
    stress : ndarray or None
        (3, 3), eV/Å³, ASE's sign; of structures that are periodic in three directions.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None


@dataclass(frozen=True)
class Failed:
    """Why a structure has no labels."""

    reason: str


class Teacher(Protocol):
    """Something that labels structures."""

    name: str

    def recipe(self) -> dict[str, Any]:
        """Return what made the labels: name, settings, version; plain values for files and cards."""

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order, as soon as they are there."""


class AseTeacher:
    """A teacher made of an ASE calculator, asked for one structure at a time.

    Parameters
    ----------
    name : str
    calculator : ase.calculators.calculator.BaseCalculator
    recipe : dict
        Plain values; `name` is added.
    """

    def __init__(self, name: str, calculator: BaseCalculator, recipe: dict[str, Any] | None = None):
        self.name, self.calculator, self._recipe = name, calculator, recipe or {}
        self._apart: Path | None = None

    def recipe(self) -> dict[str, Any]:
        """Return name, settings and version."""
        return {"teacher": self.name, **self._recipe}

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order.

        Raises
        ------
        InputError
            For elements that a calculator of this package does not know, and structures that memory does not hold.
        """
        check = getattr(self.calculator, "check_elements", None)
        for atoms in structures:
            if isinstance(check, ElementCheck):
                check(atoms.numbers)
            yield self._one(atoms)

    def write_apart(self, name: str) -> None:
        """Let a calculator that writes files use a folder of its own in place of one it shares with other processes."""
        calculator: Any = self.calculator
        if hasattr(calculator, "directory"):
            self._apart = Path(calculator.directory) / name
            calculator.directory = str(self._apart)

    def _one(self, atoms: Atoms) -> Labels | Failed:
        # A copy without constraints and old results; with no memory of the structure before, a label depends on its
        # structure alone.
        asked = bare(atoms)
        try:
            if isinstance(self.calculator, Calculator):
                self.calculator.reset()
            asked.calc = self.calculator
            energy = float(asked.get_potential_energy())
            forces = np.array(asked.get_forces(), dtype=float)
            stress = self._stress(asked)
        except NotEnoughMemoryError:
            raise
        except Exception as error:  # programs raise their own kinds
            return Failed(f"{type(error).__name__}: {error}")
        finally:
            # ASE makes the folder for calculators that write nothing, too.
            if self._apart is not None:
                with suppress(OSError):
                    self._apart.rmdir()
        return checked(Labels(energy, forces, stress))

    def _stress(self, atoms: Atoms) -> np.ndarray | None:
        if not (atoms.pbc.all() and "stress" in self.calculator.implemented_properties):
            return None
        try:
            return np.array(voigt_6_to_full_3x3_stress(atoms.get_stress()), dtype=float)
        except (PropertyNotImplementedError, NotImplementedError):  # in this mode of the program, as VASP's ISIF=0
            return None


def checked(labels: Labels) -> Labels | Failed:
    """Return the labels, or why they cannot be meant."""
    if not (np.isfinite(labels.energy) and np.isfinite(labels.forces).all()):
        return Failed("energy or forces are not finite")
    if labels.stress is not None and not np.isfinite(labels.stress).all():
        return Failed("the stress is not finite")
    largest = float(np.abs(labels.forces).max(initial=0.0))
    return Failed(f"a force of {largest:.3g} eV/Å") if largest > LARGEST_FORCE else labels


def labelled(atoms: Atoms, labels: Labels) -> Atoms:
    """Return a copy with labels in the names that readers look for: REF_energy, REF_forces, REF_stress."""
    frame = atoms.copy()
    frame.calc = None
    frame.info["REF_energy"] = labels.energy
    frame.arrays["REF_forces"] = labels.forces
    if labels.stress is not None:
        frame.info["REF_stress"] = labels.stress
    return frame
