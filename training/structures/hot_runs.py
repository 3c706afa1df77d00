"""Short, hot dynamics of a teacher: structures for far-field training and for pretraining."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from asecalc_mlip.teachers import Failed, Labels, Teacher
from asecalc_mlip.teachers.bare import bare

__all__ = ["FRAMES", "hot_run"]

# fs, 1/fs, frames that are taken of a trajectory, and steps before each of them.
STEP, FRICTION, FRAMES, EVERY = 0.5, 0.02, 10, 20


def hot_run(
    atoms: Atoms,
    teacher: Teacher,
    temperature: float,
    rng: np.random.Generator,
    failed: list[str] | None = None,
) -> Iterator[tuple[Atoms, Labels]]:
    """Yield frames of a short Langevin run and their labels, until a structure that the teacher cannot label ends it.

    Parameters
    ----------
    atoms : Atoms
        Where the run starts, with velocities drawn at the temperature.
    teacher : Teacher
    temperature : float
        K.
    rng : numpy.random.Generator
    failed : list of str, optional
        Gets the reason why a run ended early.
    """
    atoms = bare(atoms)
    atoms.calc = calculator = _OfTeacher(teacher)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    # The centre of mass may drift: labels do not know where a structure is.
    run = Langevin(
        atoms, STEP * units.fs, temperature_K=temperature, friction=FRICTION / units.fs, fixcm=False, rng=rng
    )
    try:
        for _ in range(FRAMES):
            run.run(EVERY)
            atoms.get_forces()
            yield bare(atoms), calculator.labels
    except _NoLabels as error:
        if failed is not None:
            failed.append(str(error))


class _NoLabels(Exception):
    """A structure that a teacher cannot label."""


class _OfTeacher(Calculator):
    """A teacher as an ASE calculator, for its dynamics."""

    implemented_properties = ["energy", "forces"]
    labels: Labels

    def __init__(self, teacher: Teacher):
        super().__init__()
        self.teacher = teacher

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Ask the teacher."""
        super().calculate(atoms, properties, system_changes)
        (labels,) = self.teacher.label([bare(self.atoms)])
        if isinstance(labels, Failed):
            raise _NoLabels(labels.reason)
        self.labels = labels
        self.results = {"energy": labels.energy, "forces": labels.forces}
