"""The far-field structures of a run: made, labelled and weighted in its folder; what is there is not made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.label_checks import refuse_without_cores
from asecalc_mlip.data.labels import frame_name, is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.xyz_files import xyz_bytes
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import read_structures, write_bytes
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from training.config import TrainConfig
from training.data.digests import fingerprint, structures_word
from training.far.distance import Nearest, weight
from training.far.level import SAME, TeacherLevel
from training.far.sources import make_structures
from training.start.cohesion import cohesion_of
from training.start.initial import Start, shift_text, without_energies_of

__all__ = ["LABELLED_FAR", "STRUCTURES", "Far", "atoms_of", "make_far"]

LABELLED_FAR = "far.xyz"
"""Name of the file with the labels, in the folder of the run."""
STRUCTURES = "far_structures.xyz"
"""Name of the file with the structures before they are labelled."""
# Structures that count less than this are neither labelled nor trained on.
LEAST_WEIGHT = 0.01
# eV/Å; where forces are larger, what counts is their relative error.
LARGE = 10.0


@dataclass
class Far:
    """Far-field structures with labels at the level of the data.

    Attributes
    ----------
    frames : list of Atoms
    weights : list of float
        Factor on the loss of each.
    shift : dict
        Atomic number → Δ from the teacher to the data, eV.
    card : dict
    """

    frames: list[Atoms]
    weights: list[float]
    shift: dict[int, float]
    card: dict[str, Any]


def make_far(
    config: TrainConfig,
    level: TeacherLevel | None,
    start: Start,
    training: Sequence[Atoms],
    folder: Path,
    labels: Sequence[str],
) -> Far | None:
    """Make, label and weight the far-field structures of a run; None where it asks for none.

    Parameters
    ----------
    config : TrainConfig
    level : TeacherLevel or None
        Of `open_level`.
    start : Start
    training : sequence of Atoms
        The data, which the structures are made from and kept away from.
    folder : Path
        Of the run.
    labels : sequence of str
        Labels with a weight in the loss.

    Raises
    ------
    InputError, DataError
        Where nothing is left that is far from the data, for elements that the model does not know, and labels of a file
        that are not finite.
    """
    settings = config.far
    if level is None and settings.data is None:
        return None
    nearest = Nearest(training, start.potential.cutoff)
    frames: list[Atoms] = []
    shift: dict[int, float] = {}
    if level is not None:
        shift = level.shift(start)
        frames = [_moved(atoms, shift) for atoms in _labelled(config, level, nearest, start, training, folder)]
        frames = _with_cohesion_of_data(frames, level, start, training, shift)
    frames += _of_file(config, start)
    kept, weights = [], []
    for atoms in frames:
        factor = _factor(nearest, atoms, settings.width)
        if factor >= LEAST_WEIGHT and (complete := _with(atoms, labels)) is not None:
            kept.append(complete)
            weights.append(settings.weight * factor)
    if not kept:
        raise InputError(
            "no structure is far from the data: give far.sources=[dimers,bonds], a larger far.strength or "
            "far.temperature, or leave far.teacher out"
        )
    counts = dict(sorted(Counter(str(a.info.get("config_type", "of a file")) for a in kept).items()))
    told = ", ".join(f"{name.removeprefix('far_')} {n}" for name, n in counts.items())
    LOGGER.info(f"far from the data: {told}; mean weight {np.mean(weights):.2g}, {settings.share:g} of each batch")
    card = {
        "share": settings.share,
        "weight": settings.weight,
        **({} if level is None else {"teacher": level.teacher.recipe(), "sources": list(settings.sources)}),
        **({} if settings.data is None else {"file": Path(settings.data).name}),
        "structures": counts,
        **({"e0_shift_eV": {chemical_symbols[z]: round(x, 6) for z, x in sorted(shift.items())}} if shift else {}),
    }
    if shift:
        LOGGER.info(f"E0 shift from {level.teacher.name} to the data: {shift_text(shift)}")  # type: ignore[union-attr]
    return Far(kept, weights, shift, card)


def atoms_of(config: TrainConfig) -> list[Atoms]:
    """Return the isolated atoms in far.data, which are E0s."""
    if config.far.data is None:
        return []
    return [atoms for atoms in read_frames(config.far.data) if is_isolated_atom(atoms) and has_label(atoms, "energy")]


def _labelled(
    config: TrainConfig, level: TeacherLevel, nearest: Nearest, start: Start, training: Sequence[Atoms], folder: Path
) -> list[Atoms]:
    """Return the structures of all sources with the labels of the teacher, from files where they are there."""
    settings, teacher, given = config.far, level.teacher, _given(config, start)
    # Where the files are is of no matter: a run that goes on from another folder has their whole paths.
    plain = asdict(settings) | {"teacher": _file_name(settings.teacher), "data": _file_name(settings.data)}
    # It does not change the structures, and files of before these were settings go on.
    del plain["weight"], plain["structures"]
    if given:
        plain["structures"] = fingerprint(given)
    recipe = {
        "far": structures_word(training, sorted(plain.items()), start.potential.cutoff),
        **teacher.recipe(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / STRUCTURES
    structures = _read(path, recipe["far"])
    if structures is None:
        LOGGER.info(f"making structures far from the data by {', '.join(settings.sources)}")
        made = [*make_structures(training, settings, start.potential.cutoff, teacher), *given]
        structures = [a for a in made if weight(nearest.excess(a), settings.width) >= LEAST_WEIGHT]
        for atoms in structures:
            atoms.info["far"] = recipe["far"]
        write_bytes(path, xyz_bytes(structures))
        structures = _read(path, recipe["far"]) or []  # as they are on the disk, so that a continued run has the same
    labelled = folder / LABELLED_FAR
    # With far.data, a run whose teacher could label nothing has gone on.
    label_structures(
        structures, teacher, labelled, recipe={"far": recipe["far"]}, progress=config.run.progress,
        again=settings.data is None,
    )  # fmt: skip
    if failed := failures_of(labelled):
        LOGGER.info(f"{len(failed)} of {len(structures)} have no labels, the first one: {failed[0]['reason'][:120]}")
    return read_frames(labelled) if labelled.is_file() else []


def _given(config: TrainConfig, start: Start) -> list[Atoms]:
    """Return the structures of far.structures, without what they say of themselves."""
    name, known = config.far.structures, set(start.potential.elements)
    if name is None:
        return []
    frames = [bare(atoms) for atoms in read_structures(name, what="far.structures")]
    if absent := sorted({chemical_symbols[z] for atoms in frames for z in atoms.numbers if int(z) not in known}):
        raise InputError(f"far.structures {name} has {', '.join(absent)}, which the data lack; leave those out")
    # The last frame of a run that broke may have no numbers.
    frames = [a for a in frames if np.isfinite(a.positions).all() and np.isfinite(a.cell.array).all()]
    for atoms in frames:
        atoms.info["config_type"] = "far_structures"
    return frames


def _file_name(name: str | None) -> str | None:
    """Return the name of a file, or of a teacher in one (FILE.py:NAME), without its folder; others as they are."""
    file, colon, rest = (name or "").partition(":")
    return f"{Path(file).name}{colon}{rest}" if Path(file).is_file() else name


def _read(path: Path, recipe: str) -> list[Atoms] | None:
    if not path.is_file() or path.stat().st_size == 0:
        return None
    frames: list[Atoms] = list(ase.io.read(path, ":", format="extxyz"))
    return frames if all(atoms.info.get("far") == recipe for atoms in frames) else None


def _of_file(config: TrainConfig, start: Start) -> list[Atoms]:
    """Return the frames of far.data, at the level of the data as they are."""
    if config.far.data is None:
        return []
    frames = [atoms for atoms in read_frames(config.far.data) if not is_isolated_atom(atoms)]
    refuse_without_cores(frames)
    known = set(start.potential.elements)
    if absent := sorted({chemical_symbols[z] for atoms in frames for z in atoms.numbers if int(z) not in known}):
        raise InputError(f"far.data {config.far.data} has {', '.join(absent)}, which the data lack; leave those out")
    if bad := [frame_name(atoms) for atoms in frames if not _is_finite(atoms)]:
        raise DataError(f"far.data: labels of {', '.join(bad[:5])} are NaN or infinite; leave {len(bad)} frame(s) out")
    return frames


def _is_finite(atoms: Atoms) -> bool:
    labels = (atoms.info.get("energy"), atoms.arrays.get("forces"), atoms.info.get("stress"))
    return all(np.isfinite(label).all() for label in labels if label is not None)


def _factor(nearest: Nearest, atoms: Atoms, width: float) -> float:
    """Return the weight of a frame: by its distance from the data, and less where forces are large."""
    largest = float(np.abs(atoms.arrays["forces"]).max(initial=0.0)) if has_label(atoms, "forces") else 0.0
    return weight(nearest.excess(atoms), width) / max(1.0, largest / LARGE)


def _moved(atoms: Atoms, shift: dict[int, float]) -> Atoms:
    atoms.info["energy"] = atoms.info["energy"] + float(sum(shift.get(int(z), 0.0) for z in atoms.numbers))
    return atoms


def _with_cohesion_of_data(
    frames: list[Atoms], level: TeacherLevel, start: Start, training: Sequence[Atoms], shift: dict[int, float]
) -> list[Atoms]:
    """Give a teacher the binding energy of the data, where atoms have the neighbours of the data.

    With the right isolated atoms it is wrong about the energy of atomisation, some 10 eV for a molecule. Next to the
    data that would be a step between its energies and theirs.
    """
    if level.is_base or start.e0.fitted or not frames:
        return frames
    # How much more the teacher says, which is taken off.
    more = [Atoms(atoms.numbers, info={"energy": -atoms.info["energy"]}) for atoms in level.compared]
    less = {z: -change for z, change in shift.items()}
    found = cohesion_of(more, less, start.potential.cutoff, counted=training, least=SAME)
    return frames if found is None else without_energies_of([found], frames)


def _with(atoms: Atoms, labels: Sequence[str]) -> Atoms | None:
    """Return a frame with all of the labels; a molecule gets its stress in a box from its forces, others None."""
    if "stress" in labels and not has_label(atoms, "stress"):
        if atoms.pbc.any() or not has_label(atoms, "forces"):
            return None
        atoms = atoms.copy()
        atoms.set_cell(np.ptp(atoms.positions, axis=0) + 20.0)
        atoms.center()
        atoms.pbc = True
        # σ = (1/V) ∂E/∂η of a molecule that does not cross the box.
        atoms.info["stress"] = -(atoms.positions.T @ atoms.arrays["forces"]) / atoms.get_volume()
    return atoms if all(has_label(atoms, name) for name in labels) else None
