"""Energies and forces of many structures from any ASE calculator, in batches where it can."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from asecalc_mlip.errors import InputError

__all__ = ["energies_and_forces", "model_name"]


def energies_and_forces(calc: Any, structures: Sequence[Atoms]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Compute energies (n,) in eV and forces in eV/Å of each structure.

    Parameters
    ----------
    calc : ASE calculator
        With `evaluate(list)` of this package's calculators all go in batches, otherwise one by one.
    structures : sequence of Atoms

    Raises
    ------
    InputError
        For something that is no calculator, or has no energies or forces.
    """
    evaluate = getattr(calc, "evaluate", None)
    if evaluate is not None:
        found = evaluate(list(structures))
        return np.array([one["energy"] for one in found]), [np.asarray(one["forces"], float) for one in found]
    if not hasattr(calc, "get_potential_energy"):
        raise InputError(f"{calc!r} is no ASE calculator: give one, such as PIWSLCalculator.load('aspirin.pt')")
    energies, forces = [], []
    for atoms in structures:
        atoms = atoms.copy()
        atoms.calc = calc
        try:
            energies.append(atoms.get_potential_energy())
            forces.append(np.array(atoms.get_forces(apply_constraint=False)))
        except (NotImplementedError, PropertyNotImplementedError) as error:
            raise InputError(f"{model_name(calc)} cannot give energy and forces of {atoms}: {error}") from None
    return np.array(energies, float), forces


def model_name(calc: Any) -> str:
    """Return a name for reports: of the model file if there is one, else of the class."""
    path = getattr(getattr(calc, "model", None), "path", None)
    return Path(path).name if path is not None else type(calc).__name__
