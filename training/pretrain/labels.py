"""Labels of a teacher to pretrain on: made in the folder of the run, or read from a file.

The structures are those that a training with the same `data` settings would train and validate on, so a model that is
pretrained here and fine-tuned with the same settings has not seen the test structures of either.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.data.readers import iter_frames, read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.teachers import Failed, Labels, Teacher, open_teacher
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.corrected import CorrectedTeacher
from asecalc_mlip.teachers.labelling import (
    begin_again,
    failures_of,
    label_structures,
    labelled_by,
    open_labels,
    record_failure,
)
from asecalc_mlip.teachers.model import ModelTeacher
from asecalc_mlip.units import LABELS
from asecalc_mlip.zoo import find
from training.config import TrainConfig
from training.data.digests import structures_word
from training.data.split import Split, split_structures
from training.eam.worker import perturbed
from training.settings import BASE, PretrainConfig
from training.structures.hot_runs import FRAMES, hot_run

__all__ = [
    "DIFFERENCE",
    "LABELLED",
    "Copies",
    "check_pretraining",
    "difference_networks",
    "label_sources",
    "large_labels",
    "open_sampler",
    "recipe_of",
]

LABELLED = "labelled.xyz"
"""Name of the file with the labels, in the folder of the run."""
DIFFERENCE = "difference"
"""Name of the folder with the networks that correct the teacher, in the folder of the run."""
PERTURBATION = ("rounds", "strength", "n_pairs", "max_atoms", "seed")
DYNAMICS = ("rounds", "temperature", "seed")
SAMPLER = ("sampler", "sampler_sha256")
_ORDER = ["teacher", "teacher_sha256", *PERTURBATION, "temperature", *SAMPLER, "source_sha256", "dimers"]


def label_sources(config: TrainConfig, sources: Sequence[Atoms], folder: Path) -> tuple[list[Atoms], Split]:
    """Label copies of the structures to train and to validate on, or frames of dynamics from them; return their split.

    What comes from a structure is on the same side of the split. `sources` are all frames of the data, as a
    split file counts them; isolated atoms among them are no structures. What an earlier call wrote is not made again.
    """
    settings, split = config.pretrain, split_structures(sources, config.data)
    assert settings.teacher is not None
    teacher = open_teacher(settings.teacher, device=config.run.device)
    chosen = sorted([*split.train, *split.val])
    folder.mkdir(parents=True, exist_ok=True)
    if settings.correct:
        teacher = CorrectedTeacher(teacher, difference_networks(config, folder), device=config.run.device)
    structures = [bare(sources[i]) for i in chosen]
    recipe = {name: getattr(settings, name) for name in (PERTURBATION if settings.temperature is None else DYNAMICS)}
    recipe["source_sha256"] = structures_word(structures)
    path, progress = folder / LABELLED, config.run.progress
    if settings.temperature is None:
        _check_elements(teacher, structures)
        label_structures(Copies(structures, settings), teacher, path, recipe=recipe, progress=progress, again=True)
    else:
        sampler = open_sampler(config, structures)
        if sampler is not None:
            named = {"teacher": "sampler", "teacher_sha256": "sampler_sha256"}
            recipe |= {named[name]: value for name, value in sampler.recipe().items() if name in named}
        label_hot_runs(structures, settings, teacher, path, recipe=recipe, progress=progress, sampler=sampler)
    frames, validation = read_frames(path) if path.is_file() else [], set(split.val)
    # By what they say of themselves: those that the teacher could not label are not there.
    held = [k for k, atoms in enumerate(frames) if chosen[int(atoms.info["structure"])] in validation]
    training = sorted(set(range(len(frames))) - set(held))
    if (failed := failures_of(path)) and settings.temperature is None:
        LOGGER.warning(f"{teacher.name} could not label {len(failed)} copies, the first one: {failed[0]['reason']}")
    if not (training and held):
        why = (
            f", the first failure: {failed[0]['reason'][:200]}; see {path.stem}.failed.jsonl"
            if failed
            else "; choose more structures or a lower pretrain.temperature"
        )
        raise DataError(f"{teacher.name} left too few labels to train and to validate on{why}")
    LOGGER.info(f"{len(frames)} labels by {teacher.name} from {len(chosen)} structures: {path}")
    return frames, Split(training, held, [])


class Copies(Sequence[Atoms]):
    """Perturbed copies of structures, all rounds of one and then of the next; each is made when it is asked for.

    Parameters
    ----------
    structures : sequence of Atoms
    settings : PretrainConfig

    Raises
    ------
    InputError
        For a structure that cannot be perturbed, of one atom.
    """

    def __init__(self, structures: Sequence[Atoms], settings: PretrainConfig):
        self.structures, self.settings = structures, settings
        # The first round moves nothing: so a structure that cannot be is refused before others are labelled.
        for k, atoms in enumerate(structures):
            perturbed(settings, k, 0, atoms)

    def __len__(self) -> int:
        return len(self.structures) * self.settings.rounds

    def __getitem__(self, place: Any) -> Any:
        """Make one copy, or a list of some."""
        if isinstance(place, slice):
            return [self[k] for k in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(f"there are {len(self)} copies, and none {place}")
        k, number = divmod(place, self.settings.rounds)
        return perturbed(self.settings, k, number, self.structures[k])


def check_pretraining(config: TrainConfig) -> None:
    """Refuse settings of which nothing would come.

    Raises
    ------
    InputError
        For networks and a sampler without a teacher, and a sampler without a temperature or a base that it names.
    """
    settings = config.pretrain
    if settings.correct and settings.teacher is None:
        raise InputError("pretrain.correct adds networks to a teacher, and there is none; name pretrain.teacher")
    if settings.sampler is None:
        return
    if settings.teacher is None:
        raise InputError("pretrain.sampler makes frames for a teacher, and there is none; name pretrain.teacher")
    if settings.temperature is None:
        raise InputError(
            "pretrain.sampler makes frames of dynamics, and there is no temperature; name it, for example "
            "pretrain.temperature=1000, or leave the sampler out"
        )
    if settings.sampler == BASE and config.finetune.base is None:
        raise InputError("pretrain.sampler is base, but the run has none; name finetune.base, or a model")


def open_sampler(config: TrainConfig, structures: Sequence[Atoms]) -> Teacher | None:
    """Return what makes the frames in place of the teacher: a model, or the base of the run.

    Raises
    ------
    InputError
        For a name that says nothing, and a model that does not know all elements of the structures.
    """
    name = config.pretrain.sampler
    if name is None:
        return None
    path = str(find(config.finetune.base or "")) if name == BASE else name
    sampler = open_teacher(path, device=config.run.device)
    _check_elements(sampler, structures)
    return sampler


def _check_elements(teacher: Teacher, structures: Sequence[Atoms]) -> None:
    """Refuse elements that a model does not know before the first label."""
    if isinstance(teacher, CorrectedTeacher):  # what its networks do not know fails by itself
        structures = list(filter(teacher.knows, structures))
        teacher = teacher.teacher
    if isinstance(teacher, ModelTeacher) and structures:
        teacher.calculator.check_elements(np.unique(np.concatenate([atoms.numbers for atoms in structures])))


def label_hot_runs(
    structures: Sequence[Atoms],
    settings: PretrainConfig,
    teacher: Teacher,
    path: Path,
    *,
    recipe: Mapping[str, Any],
    progress: bool,
    sampler: Teacher | None = None,
) -> None:
    """Write frames of dynamics from each structure with the labels of the teacher, or go on with such a file.

    The dynamics are those of the sampler, if there is one, and else those of the teacher. A run ends at a structure
    that it cannot label; the next structure follows. Frames of a sampler that the teacher cannot label are left out.
    Structures of which frames are missing are in ``NAME.failed.jsonl`` beside the file, with the first reason.
    """
    begin_again(path)  # a training needs labels, so nothing has come of failures without any
    file = open_labels(path, teacher, recipe)
    there = [int(atoms.info["structure"]) for atoms in read_frames(path)] if file.count() else []
    failed, found = {one["number"]: one["reason"] for one in failures_of(path)}, Counter(there)
    # Of the last run before a kill some frames may be missing.
    last = there[-1] if there else 0
    begun = max([last + (found[last] == settings.rounds), *(number + 1 for number in failed)])
    for k in tqdm(range(begun, len(structures)), unit="run", disable=None if progress else True):
        made, reasons = _frames_of_runs(k, structures[k], settings, teacher, sampler)
        if made[found[k] :]:
            file.append(made[found[k] :])
        if reasons:
            record_failure(path, k, structures[k], Failed(reasons[0]))
            failed[k] = reasons[0]
    missing = len(structures) * settings.rounds - file.count()
    if missing:
        who = teacher.name if sampler is None else f"{sampler.name} or {teacher.name}"
        why = f"; the first one: {next(iter(failed.values()))[:200]}" if failed else ""
        LOGGER.warning(f"{who} could not label structures of the dynamics, which left out {missing} frames{why}")


def _frames_of_runs(
    index: int, start: Atoms, settings: PretrainConfig, teacher: Teacher, sampler: Teacher | None
) -> tuple[list[Atoms], list[str]]:
    """Return the labelled frames from one structure, and why there are not more."""
    assert settings.temperature is not None
    rng, made = np.random.default_rng([settings.seed, index]), []
    reasons: list[str] = []
    for _ in range(math.ceil(settings.rounds / FRAMES)):
        made += list(hot_run(start, sampler or teacher, settings.temperature, rng, reasons))
    made = made[: settings.rounds]
    if sampler is not None:
        structures = [atoms for atoms, _ in made]
        found = list(zip(structures, teacher.label(structures), strict=True))
        made = [(atoms, labels) for atoms, labels in found if isinstance(labels, Labels)]
        reasons += [failed.reason for _, failed in found if isinstance(failed, Failed)]
    frames = [labelled_by(teacher, atoms, labels) for atoms, labels in made]
    for n, atoms in enumerate(frames):
        atoms.info.update(structure=index, round=n + 1)
    return frames, reasons


def recipe_of(path: str | Path, frames: Sequence[Atoms] | None = None) -> dict[str, Any] | None:
    """Return how a teacher labelled a file: `teacher`, its `teacher_sha256` and the perturbation; None for others."""
    path = Path(path)
    if frames is not None:
        found: Any = frames[0].info
    else:
        found = next(iter_frames(path)).info
    if not _is_recipe(found) and path.suffix == ".db":
        found = ase.db.connect(path).metadata.get("recipe", {})
    if not _is_recipe(found):
        return None
    # `asecalc eam label` calls the teacher its model.
    names = {"model": "teacher", "model_sha256": "teacher_sha256"}
    kept = {"teacher", "teacher_sha256", "source_sha256", "dimers", *PERTURBATION, *DYNAMICS, *SAMPLER}
    plain = {names.get(name, name): _plain(value) for name, value in found.items()}
    return {name: plain[name] for name in sorted(kept & set(plain), key=_ORDER.index)}


def large_labels(path: str | Path, frames: Sequence[Atoms]) -> tuple[str, ...]:
    """Return the labels that may be larger than ab-initio ones, as of pulled pairs: all, if a teacher made them."""
    recipe = recipe_of(path, frames)
    if recipe is None or (_is_recipe(frames[0].info) and not all(_is_recipe(atoms.info) for atoms in frames)):
        return ()
    # Isolated dimers overlap because they are meant to.
    return ("structure", *LABELS) if recipe.get("dimers") else LABELS


def _is_recipe(info: Mapping[str, Any]) -> bool:
    made = any(set(names) <= set(info) for names in (PERTURBATION, DYNAMICS))
    return ("model_sha256" in info or "teacher" in info) and made


def difference_networks(config: TrainConfig, folder: Path) -> list[Path]:
    """Return the files of the networks of `training.pretrain.difference`, which correct the teacher of a run."""
    return [folder / DIFFERENCE / str(number) / "network.pt" for number in range(config.pretrain.correct)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
