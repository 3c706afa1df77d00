"""Networks that learn what the labels say against a teacher; the sum labels the structures to pretrain on.

In the folder of the run, `difference/` holds the teacher's labels of the labelled structures, the difference, and one
training for each network. What an earlier call finished is not made again. The function that trains is an argument, as
a training itself calls this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from asecalc_mlip.data.census import census, has_label
from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import replacing
from asecalc_mlip.logs import LOGGER, into
from asecalc_mlip.models import check_trainable
from asecalc_mlip.quantities import derived_seed
from asecalc_mlip.teachers import Teacher, open_teacher
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.corrected import CorrectedTeacher
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from asecalc_mlip.teachers.structures import ATOM
from asecalc_mlip.units import LABELS
from training.config import TrainConfig, label_weights, load_config
from training.data.digests import fingerprint, structures_word
from training.data.reading import read_data, require
from training.data.split import Split, split_structures
from training.data.weights import check_weights
from training.pretrain.labels import (
    DIFFERENCE,
    LABELLED,
    check_pretraining,
    difference_networks,
    open_sampler,
)
from training.run.continuing import changed_settings, settings_before
from training.run.useless import refuse_useless
from training.splitting import check_test

__all__ = ["corrected", "learn_difference"]

# A network of seconds per hundred steps: the difference is smooth, and more networks help more than a larger one.
NETWORK = {"n_features": 64, "n_interactions": 2, "n_rbf": 32}
EPOCHS = 20
# Steps up to that many structures; more for each further one, as long as there are not too many.
STEPS, STRUCTURES, FURTHER, MOST = 2000, 50, 20, 20_000
# Files in the folder.
TEACHER, FRAMES, SPLIT = "teacher.xyz", "difference.xyz", "split.json"


def learn_difference(config: TrainConfig, train: Callable[[TrainConfig], Any]) -> None:
    """Train the `pretrain.correct` networks of a run, those that are not there yet.

    Parameters
    ----------
    config : TrainConfig
    train : callable
        Trains a model by its settings.

    Raises
    ------
    InputError, DataError
        For data and teachers that cannot be used, and a folder in which a run with others has begun.
    Stopped
        After a signal, with a checkpoint.
    """
    check_pretraining(config)
    # What teachers label has no config_type.
    check_weights([], config.data.weights)
    folder = Path(config.run.output)
    # What the run would be refused for after its networks.
    if config.finetune.base is None:
        check_trainable(config.model.architecture)
    if settings_before(config, folder) is None:
        refuse_useless(config)
    assert config.pretrain.teacher is not None
    teacher = open_teacher(config.pretrain.teacher, device=config.run.device)
    sources = read_data(config.data)
    split = split_structures(sources, config.data)
    open_sampler(config, [sources[k] for k in (*split.train, *split.val)])
    check_test(config, [sources[k] for k in split.train], tell=False)
    made = folder / LABELLED
    if made.is_file() and not all(map(_is_trained, difference_networks(config, folder))):
        raise InputError(
            f"{made} has labels already, with fewer networks than the {config.pretrain.correct} of pretrain.correct; "
            "choose another run.output"
        )
    corrected(config, sources, split, teacher, folder, train)


def corrected(
    config: TrainConfig,
    sources: Sequence[Atoms],
    split: Split,
    teacher: Teacher,
    folder: Path,
    train: Callable[[TrainConfig], Any],
) -> CorrectedTeacher:
    """Return the teacher plus the mean of networks that learned the difference to the labels.

    Parameters
    ----------
    config : TrainConfig
    sources : sequence of Atoms
        All frames of the data, with their labels.
    split : Split
        Frames to train and to validate on; no others are looked at, but isolated atoms of their elements.
    teacher : Teacher
    folder : Path
        Of the run.
    train : callable
        As for `learn_difference`.

    Raises
    ------
    InputError, DataError
        For labels that cannot be right, and networks that have learned from others, or by other settings.
    """
    _check_labels(config, [sources[k] for k in (*split.train, *split.val)])
    place = folder / DIFFERENCE
    place.mkdir(parents=True, exist_ok=True)
    frames, kept = _difference(sources, split, _labels(config, sources, split, teacher, place))
    if not (kept.train and kept.val):
        failed = failures_of(place / TEACHER)
        why = f"; the first that failed: {failed[0]['reason'][:200]}" if failed else ""
        raise DataError(
            f"pretrain.correct: {teacher.name} and the data have {len(kept.train)} labels in common to train and "
            f"{len(kept.val)} to validate the difference on{why}"
        )
    networks = difference_networks(config, folder)
    settings = [_settings(config, path, k, frames, kept, len(split.train)) for k, path in enumerate(networks)]
    _refuse_others(settings, kept, place)
    with replacing(place / FRAMES) as temporary:
        ase.io.write(temporary, frames, format="extxyz")
    kept.save(place / SPLIT)
    for number, path in enumerate(networks):
        if not _is_trained(path):
            run, log = settings[number].run, place / f"{number}.log"
            LOGGER.info(
                f"network {number + 1} of {len(networks)} for the difference to {teacher.name}: "
                f"{(run.steps_per_epoch or 1) * (run.max_epochs or 1)} steps, told in {log}"
            )
            with open(log, "a", encoding="utf-8") as stream, into(stream):
                train(settings[number])
    found = CorrectedTeacher(teacher, networks, device=config.run.device)
    _tell(found, [frames[k] for k in kept.val])
    return found


def _is_trained(path: Path) -> bool:
    return (path.parent / "summary.json").is_file()


def _check_labels(config: TrainConfig, frames: Sequence[Atoms]) -> None:
    """Refuse labels that a training on them would refuse; those that all frames lack are not missed."""
    counts, weights = census(frames), label_weights(config.loss)
    for text in counts.warnings:
        LOGGER.warning(text)
    present = {name: weight for name, weight in weights.items() if counts.counts[name]}
    if not present:
        raise DataError(f"{config.data.train} has no {' and no '.join(weights)}, which the loss gives weight to")
    require(counts, present, config.data.trust)


def _labels(
    config: TrainConfig, sources: Sequence[Atoms], split: Split, teacher: Teacher, place: Path
) -> dict[int, Atoms]:
    """Return what the teacher says of the frames, by their place in the data, and tell what it cannot label."""
    elements = {int(z) for k in split.train for z in sources[k].numbers}
    atoms = [k for k, frame in enumerate(sources) if is_isolated_atom(frame) and int(frame.numbers[0]) in elements]
    chosen = [*split.train, *split.val, *atoms]
    plain = [bare(sources[k]) for k in chosen]
    for k, frame in zip(chosen, plain, strict=True):
        if k in atoms and not is_isolated_atom(frame):  # its name alone says so; the box is too small
            frame.pbc = False
        frame.info["place"] = k
    path = place / TEACHER
    recipe = {"source_sha256": structures_word(plain)}
    label_structures(plain, teacher, path, recipe=recipe, progress=config.run.progress, again=True)
    if failed := failures_of(path):
        LOGGER.warning(f"{teacher.name} could not label {len(failed)} frames, the first one: {failed[0]['reason']}")
    return {int(frame.info["place"]): frame for frame in (read_frames(path) if path.is_file() else [])}


def _difference(sources: Sequence[Atoms], split: Split, found: dict[int, Atoms]) -> tuple[list[Atoms], Split]:
    """Return frames with the labels less those of the teacher, and the split of those that have any."""
    frames: list[Atoms] = []
    kept: dict[int, int] = {}
    for k, by_teacher in found.items():
        frame = Atoms(sources[k].numbers, sources[k].positions, cell=sources[k].cell, pbc=by_teacher.pbc)
        if is_isolated_atom(sources[k]):
            frame.info["config_type"] = ATOM
        here, there = ({**a.info, **a.arrays} for a in (sources[k], by_teacher))
        for name in LABELS:
            if has_label(sources[k], name) and has_label(by_teacher, name):
                (frame.arrays if name == "forces" else frame.info)[name] = np.asarray(here[name]) - there[name]
                kept[k] = len(frames)
        if k in kept:
            frames.append(frame)
    train, val = ([kept[k] for k in part if k in kept] for part in (split.train, split.val))
    return frames, Split(train, val, [], fingerprint(frames))


def _refuse_others(settings: Sequence[TrainConfig], split: Split, place: Path) -> None:
    """Refuse networks of other labels, of another split or by other settings, trained or not."""
    begun = [config for config in settings if (Path(config.run.output) / "config.yaml").is_file()]
    if not begun:
        return
    before, why = Split.load(place / SPLIT, len(read_frames(place / FRAMES))), []
    if before.data_sha256 not in (None, split.data_sha256) or (before.train, before.val) != (split.train, split.val):
        why = ["the labels or their split have changed"]
    for config in begun:
        changed = changed_settings(config, Path(config.run.output) / "config.yaml")[1]
        # Files of the run itself, which may be in another place now.
        why += [line for name, line in changed.items() if name not in ("data.train", "data.split_file")]
    if why:
        raise InputError(
            f"{place} has networks that learned something else: {'; '.join(why)}. Choose another run.output"
        )


def _settings(
    config: TrainConfig, path: Path, number: int, frames: Sequence[Atoms], split: Split, n_train: int
) -> TrainConfig:
    place = path.parent.parent
    steps = min(MOST, STEPS + FURTHER * max(0, n_train - STRUCTURES))
    structures = [frames[k] for k in (*split.train, *split.val)]
    lacking = [name for name in LABELS if not any(has_label(atoms, name) for atoms in structures)]
    given: dict[str, Any] = {
        "data.train": str(place / FRAMES),
        "data.split_file": str(place / SPLIT),
        # No energy surface, but the difference of two: it has neither bonds nor repulsion of nuclei.
        "data.trust": True,
        "model.prior": "none",
        "model.cohesion": False,
        "model.architecture": "tensornet",
        **{f"model.hyperparameters.{name}": value for name, value in NETWORK.items()},
        **_reference_energies(frames, [frames[k] for k in split.train]),
        **{f"loss.{name}": value for name, value in asdict(config.loss).items()},
        **{f"loss.{name}_weight": 0.0 for name in lacking},
        "optimizer.lr": 1e-3,
        "optimizer.warmup_steps": 100,
        "optimizer.ema_decay": 0.99,
        "run.output": str(path.parent),
        "run.name": path.stem,
        "run.seed": derived_seed(config.run.seed, number),
        "run.batch_size": min(config.run.batch_size, len(split.train)),
        "run.steps_per_epoch": steps // EPOCHS,
        "run.max_epochs": EPOCHS,
        "run.threads": config.run.threads,
        "run.device": config.run.device,
        "run.progress": False,
    }
    return load_config([], [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()])


def _reference_energies(frames: Sequence[Atoms], structures: Sequence[Atoms]) -> dict[str, Any]:
    """Return where E0 come from: isolated atoms of all elements, else the fit, of which they may be a part."""
    if not any(has_label(atoms, "energy") for atoms in structures):
        return {"model.reference_energies": "zero"}
    alone = {str(a.symbols): float(a.info["energy"]) for a in frames if is_isolated_atom(a) and has_label(a, "energy")}
    if not set(alone).issuperset(symbol for atoms in structures for symbol in atoms.symbols):
        return {}
    # Given, as what remains is no binding energy, which E0 of isolated atoms are tested by.
    return {"model.reference_energies": "given", "model.given": alone}


def _tell(teacher: CorrectedTeacher, frames: Sequence[Atoms]) -> None:
    """Tell how well teacher and sum know the labels that no network trained on."""
    held = [frame for frame in frames if has_label(frame, "forces") and teacher.knows(frame)]
    if not held:
        return
    before = np.concatenate([np.asarray(frame.arrays["forces"]) for frame in held])
    found = [network.calculator.evaluate(held) for network in teacher.networks]
    mean = np.mean([np.concatenate([result["forces"] for result in results]) for results in found], axis=0)
    LOGGER.info(
        f"forces on {len(held)} validation frames: {teacher.teacher.name} is {1e3 * np.abs(before).mean():.0f} meV/Å "
        f"from the labels, with the networks {1e3 * np.abs(before - mean).mean():.0f}"
    )
