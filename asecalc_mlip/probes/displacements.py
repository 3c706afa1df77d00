r"""How a landscape rises and how rough it is where all atoms are displaced at once, farther than the data go.

    R(s) = R_0 + s d        d random, with a root mean square of 1 over all coordinates; s from 0 to `length`
    rise        (E(length) − E(0)) / N              how soon displaced atoms are driven back
    roughness   max_s |F(s+h) − 2F(s) + F(s−h)|     F(s) = Σ F_i·d_i / √(3N), h the step: large where forces jump
    deviation   max_s |ΔE + h ΣF̄·d| / (h √(3N))     what the forces do not explain of the energy

Dynamics at high temperature go a part of this way. It needs no reference, takes seconds, and unlike diatomic curves it
looks at crystals and molecules as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.single_points import energies_and_forces, model_name

__all__ = ["DisplacementReport", "displacement_scan"]


@dataclass(frozen=True, repr=False)
class DisplacementReport:
    """Answer of `displacement_scan`; a value for each structure.

    Attributes
    ----------
    rise_eV_per_atom : list of float
        (n,) energy at the end of the line above its start.
    roughness_eV_per_A : list of float
        (n,) largest second difference of the force along the line.
    deviation_eV_per_A : list of float
        (n,) largest difference between forces and energies along it.
    length_A : float
        Root mean square displacement at the end.
    step_A : float
        Between points.
    model : str
        Name.
    """

    rise_eV_per_atom: list[float]
    roughness_eV_per_A: list[float]
    deviation_eV_per_A: list[float]
    length_A: float
    step_A: float
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        return asdict(self)

    def __repr__(self) -> str:
        rise = self.rise_eV_per_atom
        return (
            f"{self.model}, {len(rise)} structures displaced by {self.length_A:g} Å (rms): energy rises by "
            f"{np.mean(rise):z.3f} eV/atom (lowest {min(rise):z.3f}); roughness "
            f"{max(self.roughness_eV_per_A):.3g} eV/Å in steps of {self.step_A:.2g} Å; forces against energies "
            f"{max(self.deviation_eV_per_A):.2g} eV/Å"
        )


def displacement_scan(
    structures: Atoms | Sequence[Atoms], calc: Any, *, length_A: float = 0.3, points: int = 61, seed: int = 0
) -> DisplacementReport:
    """Scan one random line from each structure.

    Parameters
    ----------
    structures : Atoms or sequence of Atoms
        Near a minimum, or frames of the data; a handful is enough to compare models.
    calc : ASE calculator
        With `evaluate` a line goes in one batch.
    length_A : float
        Å; root mean square of the displacements at the end. Thermal ones are about 0.1 at 300 K, 0.2 at 1000 K.
    points : int
        Of each line, 3 or more.
    seed : int
        Of the directions, which are the same for every model.

    Raises
    ------
    InputError
        For no structures, and for lengths and numbers that make no line.
    """
    frames = [structures] if isinstance(structures, Atoms) else list(structures)
    if not frames:
        raise InputError("there are no structures to displace")
    if not 0 < length_A < np.inf or points < 3:
        raise InputError(f"length is {length_A} Å and points {points}; expected more than 0 Å, and 3 or more")
    steps, h = np.linspace(0.0, length_A, points, retstep=True)
    rise, roughness, deviation = [], [], []
    for index, atoms in enumerate(frames):
        direction = np.random.default_rng([seed, index]).normal(size=(len(atoms), 3))
        direction /= np.sqrt(np.mean(direction**2))
        line = [Atoms(atoms.numbers, atoms.positions + s * direction, cell=atoms.cell, pbc=atoms.pbc) for s in steps]
        energies, forces = energies_and_forces(calc, line)
        along = np.array([np.sum(f * direction) for f in forces]) / np.sqrt(direction.size)
        unexplained = np.diff(energies) / np.sqrt(direction.size) + 0.5 * h * (along[1:] + along[:-1])
        rise.append(float(energies[-1] - energies[0]) / len(atoms))
        roughness.append(float(np.abs(np.diff(along, 2)).max()))
        deviation.append(float(np.abs(unexplained).max() / h))
    return DisplacementReport(rise, roughness, deviation, float(length_A), float(h), model_name(calc))
