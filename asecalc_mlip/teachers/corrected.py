"""A teacher and what labels say against it: E = E_T + the mean of networks that learned E_labels − E_T.

The difference of two methods is smoother than either, so few labels teach it well (Ramakrishnan et al. 2015,
10.1021/acs.jctc.5b00099). The sum labels structures that the labels do not hold, near them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.digests import digest_of, sha256_of, word_of
from asecalc_mlip.teachers.base import Failed, Labels, Teacher, checked
from asecalc_mlip.teachers.model import ModelTeacher

__all__ = ["CorrectedTeacher"]


class CorrectedTeacher:
    """Labels by a teacher, to which the mean of networks is added.

    Parameters
    ----------
    teacher : Teacher
    networks : sequence of path
        Model files that learned the difference between labels and this teacher. They are no potentials by themselves.
    device : str
        Of the networks, as `PIWSLCalculator.load` takes it.
    """

    def __init__(self, teacher: Teacher, networks: Sequence[Path], *, device: str = "auto"):
        self.teacher, self.networks = teacher, [ModelTeacher(path, device=device) for path in networks]
        self.name = f"{teacher.name}, corrected by {len(networks)} network{'s' if len(networks) > 1 else ''}"

    def recipe(self) -> dict[str, Any]:
        """Return what the teacher is, and a checksum of it and the networks."""
        recipe = self.teacher.recipe()
        parts = [str(sorted(recipe.items())), *(sha256_of(network.path) for network in self.networks)]
        return {**recipe, "teacher": self.name, "teacher_sha256": word_of(digest_of([" ".join(parts)]))}

    def knows(self, atoms: Atoms) -> bool:
        """Return whether the networks have all elements of a structure."""
        return all(
            set(network.calculator.potential.elements).issuperset(atoms.numbers.tolist()) for network in self.networks
        )

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order; what the teacher or a network cannot label fails."""
        known = [atoms for atoms in structures if self.knows(atoms)]
        found = zip(*(part.label(known) for part in (self.teacher, *self.networks)), strict=True)
        for atoms in structures:
            if self.knows(atoms):
                labels, *corrections = next(found)
                yield _sum(labels, corrections)
            else:
                yield Failed("no frame that the networks learned from has all of its elements")


def _sum(labels: Labels | Failed, corrections: Sequence[Labels | Failed]) -> Labels | Failed:
    whole = []
    for part in (labels, *corrections):
        if isinstance(part, Failed):
            return part
        whole.append(part)
    teacher, *networks = whole
    stresses = [part.stress for part in whole if part.stress is not None]
    mean = float(np.mean([part.energy for part in networks])), np.mean([part.forces for part in networks], axis=0)
    stress = stresses[0] + np.mean(stresses[1:], axis=0) if len(stresses) == len(whole) else None
    return checked(Labels(teacher.energy + mean[0], teacher.forces + mean[1], stress))
