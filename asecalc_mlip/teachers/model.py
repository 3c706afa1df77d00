"""A model file as a teacher: an embedded-atom potential, a foundation model, or any other .pt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip.calculators.loading import load_calculator
from asecalc_mlip.digests import sha256_of, word_of
from asecalc_mlip.errors import InputError, NotEnoughMemoryError
from asecalc_mlip.teachers.base import Failed, Labels, checked

__all__ = ["ModelTeacher"]


class ModelTeacher:
    """Labels by a model, in batches.

    Parameters
    ----------
    model : path or name
        As `PIWSLCalculator.load` takes it.
    device : str
        Likewise.
    """

    def __init__(self, model: str | Path, *, device: str = "auto"):
        self.calculator: Any = load_calculator(model, device=device)
        self.path = Path(self.calculator.model.path)
        self.name = self.path.name

    def recipe(self) -> dict[str, Any]:
        """Return the file and its checksum."""
        return {"teacher": self.name, "teacher_sha256": word_of(sha256_of(self.path))}

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order; those with atoms on top of each other fail.

        Raises
        ------
        InputError
            For elements that the model does not know, and structures that memory does not hold.
        """
        for atoms in structures:
            self.calculator.check_elements(atoms.numbers)
        done = 0
        try:
            for result in self.calculator.evaluate_iter(structures):
                yield _labels(result)
                done += 1
        except NotEnoughMemoryError:
            raise
        except InputError:  # of one in a batch
            yield from map(self._alone, structures[done:])

    def _alone(self, atoms: Atoms) -> Labels | Failed:
        try:
            return _labels(self.calculator.evaluate([atoms])[0])
        except NotEnoughMemoryError:
            raise
        except InputError as error:
            return Failed(str(error).removeprefix("structure 0: "))


def _labels(result: dict[str, Any]) -> Labels | Failed:
    stress = result.get("stress")
    full = None if stress is None else np.array(voigt_6_to_full_3x3_stress(stress), dtype=float)
    return checked(Labels(float(result["energy"]), np.array(result["forces"], dtype=float), full))
