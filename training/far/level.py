r"""The zero of a teacher's energies, moved to that of the data.

A teacher T and the data have energies of their own zero. A structure S that T labels gets

    E'(S) = E_T(S) + Σ_i Δ(Z_i)

- The E0 of the run are those of isolated atoms: Δ(Z) = E0(Z) − E_T(atom Z). Energies of atomisation stay what T says.
- No isolated atoms are known: Δ by least squares on some training frames that T labels as well, and the E0 of the run
  are E0(Z) = E_T(atom Z) + Δ(Z): the isolated atoms of the teacher. Energies are then right far from the data and near.
- T is the base of the run: Δ is the shift of its E0.

Where T is at the level of the data, Δ is zero by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.teachers import Teacher, open_teacher
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from asecalc_mlip.teachers.structures import isolated_atoms
from asecalc_mlip.zoo import find
from training.config import TrainConfig
from training.data.digests import structures_word
from training.data.split import spread
from training.settings import BASE
from training.start.reference_energies import least_squares

if TYPE_CHECKING:
    from training.start.initial import Start

__all__ = ["LABELLED_LEVEL", "TeacherLevel", "open_level"]

LABELLED_LEVEL = "far_level.xyz"
"""Name of the file with the labels, in the folder of the run."""

# Training frames that the teacher labels, to compare the two levels, and frames for each element where there are many:
# more say nothing new about constants, fewer leave some of them open.
COMPARED, EACH = 20, 3
# eV per atom; two levels that differ by less are one.
SAME = 0.005


@dataclass
class TeacherLevel:
    """A teacher and how its energies compare with those of the data.

    Attributes
    ----------
    teacher : Teacher
    atoms : dict
        Atomic number → energy of the isolated atom by the teacher, eV; of those that it can label.
    compared : list of Atoms
        Training frames, with the energy of the data less that of the teacher, eV.
    is_base : bool
        Whether the teacher is what the run starts from.
    """

    teacher: Teacher
    atoms: dict[int, float] = field(default_factory=dict)
    compared: list[Atoms] = field(default_factory=list)
    is_base: bool = False

    def moved_atoms(self) -> list[Atoms]:
        """Return the teacher's isolated atoms at the level of the data, for E0; none where it does not know all."""
        shift = self._by_least_squares()
        if not shift or not set(shift) <= set(self.atoms):
            return []
        found = [Atoms([z], info={"energy": self.atoms[z] + change}) for z, change in shift.items()]
        text = ", ".join(f"{chemical_symbols[z]} {change:+z.3f}" for z, change in shift.items())
        LOGGER.info(f"E0: isolated atoms by {self.teacher.name}, shifted to the level of the data by {text} eV")
        return found

    def shift(self, start: Start) -> dict[int, float]:
        """Return Δ in eV by atomic number, for the E0 of a start."""
        if self.is_base:
            return dict(start.shift)
        elements = sorted(start.e0.values)
        if not start.e0.fitted and set(elements) <= set(self.atoms):
            return {z: start.e0.values[z] - self.atoms[z] for z in elements}
        found = self._by_least_squares()
        LOGGER.warning(
            f"the E0 of the run are not isolated atoms of {self.teacher.name}: its energies are those of the data near "
            "them, but not those of separated atoms. Leave dimers and bonds out of far.sources, or give isolated atoms"
        )
        return {z: found.get(z, 0.0) for z in elements}

    def _by_least_squares(self) -> dict[int, float]:
        """Return the smallest Δ that fits the frames that both label; zero for two names of one level."""
        if not self.compared:
            return {}
        elements = sorted({int(z) for atoms in self.compared for z in atoms.numbers})
        energies = np.array([atoms.info["energy"] for atoms in self.compared])
        sizes = np.array([len(atoms) for atoms in self.compared])
        if np.max(np.abs(energies) / sizes) < SAME:
            return dict.fromkeys(elements, 0.0)
        return least_squares(self.compared, energies, elements)[0]


def open_level(config: TrainConfig, training: Sequence[Atoms], folder: Path) -> TeacherLevel | None:
    """Open the teacher of a run, and have it label isolated atoms and some training frames.

    Raises
    ------
    InputError
        For a name that is no teacher, `base` in a run without one, and structures without a teacher.
    """
    name, is_base = config.far.teacher, config.far.teacher == BASE
    if name is None:
        if config.far.structures is not None:
            raise InputError("far.structures are for a teacher to label, and there is none; name far.teacher")
        return None
    if is_base:
        if config.finetune.base is None:
            raise InputError("far.teacher is base, but the run has none; name finetune.base, or another teacher")
        base = str(find(config.finetune.base))
        return TeacherLevel(open_teacher(base, device=config.run.device), is_base=True)
    teacher = open_teacher(name, device=config.run.device)
    numbers = {int(z) for atoms in training for z in atoms.numbers}
    some = [atoms for atoms in training if has_label(atoms, "energy")]
    some = [some[i] for i in spread(some, max(COMPARED, EACH * len(numbers)))]
    asked = [*isolated_atoms(numbers), *some]
    plain = [bare(atoms) for atoms in asked]
    for place, atoms in enumerate(plain):
        atoms.info["place"] = place
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {"structures": structures_word(plain)}
    path = label_structures(
        plain, teacher, folder / LABELLED_LEVEL, recipe=recipe, progress=config.run.progress, again=True
    )
    level = TeacherLevel(teacher)
    for labelled in read_frames(path) if path.is_file() else []:
        place, energy = int(labelled.info["place"]), labelled.info["energy"]
        if place < len(numbers):
            level.atoms[int(labelled.numbers[0])] = energy
        else:
            difference = asked[place].info["energy"] - energy
            level.compared.append(Atoms(labelled.numbers, info={"energy": difference}))
    if not (level.atoms or level.compared) and (failed := failures_of(path)):
        # Its energies would stay at their own zero, hundreds of eV from that of the data.
        raise InputError(
            f"far.teacher {name} can label neither an isolated atom nor one of {len(some)} training frames: "
            f"{failed[-1]['reason'][:200]}"
        )
    return level
