"""A model file as a teacher: an embedded-atom potential, a foundation model, or any other .pt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip.calculators.loading import load_calculator
from asecalc_mlip.files import sha256_of
from asecalc_mlip.teachers.base import Failed, Labels, checked

__all__ = ["ModelTeacher"]


class ModelTeacher:
    """Labels by a model, in batches.

    Parameters
    ----------
    model : path or name
        As `PIWSLCalculator.load` takes it.
    """

    def __init__(self, model: str | Path):
        self.calculator: Any = load_calculator(model)
        self.path = Path(self.calculator.model.path)
        self.name = self.path.name

    def recipe(self) -> dict[str, Any]:
        """Return the file and its checksum."""
        return {"teacher": self.name, "teacher_sha256": f"x{sha256_of(self.path)[:16]}"}

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order.

        Raises
        ------
        InputError
            For elements that the model does not know.
        """
        for atoms in structures:
            self.calculator.check_elements(atoms.numbers)
        for result in self.calculator.evaluate_iter(structures):
            stress = result.get("stress")
            full = None if stress is None else np.array(voigt_6_to_full_3x3_stress(stress), dtype=float)
            yield checked(Labels(float(result["energy"]), np.array(result["forces"], dtype=float), full))
