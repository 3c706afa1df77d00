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
from ase.calculators.singlepoint import SinglePointCalculator

from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import replacing
from asecalc_mlip.logs import LOGGER, into
from asecalc_mlip.teachers import Teacher, open_teacher
from asecalc_mlip.teachers.bare import bare, states_of
from asecalc_mlip.teachers.corrected import CorrectedTeacher
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from training.config import TrainConfig, load_config
from training.data import Split, fingerprint
from training.pretrain import DIFFERENCE, difference_networks, source_split

__all__ = ["corrected", "learn_difference"]

# A network of seconds per hundred steps: the difference is smooth, and more networks help more than a larger one.
NETWORK = {"n_features": 64, "n_interactions": 2, "n_rbf": 32}
EPOCHS = 20
# Steps up to that many structures; more for each further one, as long as there are not too many.
STEPS, STRUCTURES, FURTHER, MOST = 2000, 50, 20, 20_000


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
        For data and teachers that cannot be used.
    Stopped
        After a signal, with a checkpoint.
    """
    settings = config.pretrain
    if settings.teacher is None:
        raise InputError("pretrain.correct adds networks to a teacher, and there is none; name pretrain.teacher")
    sources = read_frames(config.data.train, **config.data.reading())
    split = source_split(config, sources)
    corrected(config, sources, split, open_teacher(settings.teacher), Path(config.run.output), train)


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
        Frames to train and to validate on; no others are looked at, but isolated atoms.
    teacher : Teacher
    folder : Path
        Of the run.
    train : callable
        As for `learn_difference`.
    """
    place = folder / DIFFERENCE
    place.mkdir(parents=True, exist_ok=True)
    _write_difference(config, sources, split, teacher, place)
    networks = difference_networks(config, folder)
    for number, path in enumerate(networks):
        if not (path.parent / "summary.json").is_file():
            LOGGER.info(f"network {number + 1} of {len(networks)} for the difference to {teacher.name}")
            with open(place / f"{number}.log", "a", encoding="utf-8") as stream, into(stream):
                train(_settings(config, path, number, len(split.train)))
    found = CorrectedTeacher(teacher, networks)
    _tell(found, place)
    return found


def _write_difference(
    config: TrainConfig, sources: Sequence[Atoms], split: Split, teacher: Teacher, place: Path
) -> None:
    """Write the labels less those of the teacher, and the split of those that it can label."""
    atoms = [k for k, frame in enumerate(sources) if is_isolated_atom(frame)]
    chosen = [*split.train, *split.val, *atoms]
    plain = [bare(sources[k]) for k in chosen]
    for k, frame in zip(chosen, plain, strict=True):
        frame.info["place"] = k
    path = place / "teacher.xyz"
    recipe = {"source_sha256": f"x{fingerprint(plain, *states_of(plain))[:16]}"}
    label_structures(plain, teacher, path, recipe=recipe, progress=config.run.progress, again=True)
    found = {int(frame.info["place"]): frame for frame in (read_frames(path) if path.is_file() else [])}
    frames, places = [], []
    for k in chosen:
        if k in found and (labels := _difference(sources[k], found[k])):
            frame = Atoms(sources[k].numbers, sources[k].positions, cell=sources[k].cell, pbc=sources[k].pbc)
            frame.calc = SinglePointCalculator(frame, **labels)
            frames.append(frame)
            places.append(k)
    kept = {k: n for n, k in enumerate(places)}
    train, val = ([kept[k] for k in part if k in kept] for part in (split.train, split.val))
    if not (train and val):
        failed = failures_of(path)
        why = f"; the first that failed: {failed[0]['reason'][:200]}" if failed else ""
        raise DataError(
            f"pretrain.correct: {teacher.name} and the data have {len(train)} labels in common to train and "
            f"{len(val)} to validate the difference on{why}"
        )
    with replacing(place / "difference.xyz") as temporary:
        ase.io.write(temporary, frames, format="extxyz")
    Split(train, val, []).save(place / "split.json")


def _difference(frame: Atoms, by_teacher: Atoms) -> dict[str, Any]:
    """Return the labels of a frame less those of the teacher, under ASE's names; of those that both have."""
    here, there = ({**a.info, **a.arrays} for a in (frame, by_teacher))
    names = [name for name in ("energy", "forces", "stress") if has_label(frame, name) and has_label(by_teacher, name)]
    return {name: np.asarray(here[name]) - there[name] for name in names}


def _settings(config: TrainConfig, path: Path, number: int, n_train: int) -> TrainConfig:
    place = path.parent.parent
    steps = min(MOST, STEPS + FURTHER * max(0, n_train - STRUCTURES))
    given: dict[str, Any] = {
        "data.train": str(place / "difference.xyz"),
        "data.split_file": str(place / "split.json"),
        # No energy surface, but the difference of two: it has neither bonds nor repulsion of nuclei.
        "data.trust": True,
        "model.prior": "none",
        "model.cohesion": False,
        "model.architecture": "tensornet",
        **{f"model.hyperparameters.{name}": value for name, value in NETWORK.items()},
        **{f"loss.{name}": value for name, value in asdict(config.loss).items()},
        "optimizer.lr": 1e-3,
        "optimizer.warmup_steps": 100,
        "optimizer.ema_decay": 0.99,
        "run.output": str(path.parent),
        "run.name": path.stem,
        "run.seed": config.run.seed + number,
        "run.batch_size": config.run.batch_size,
        "run.steps_per_epoch": steps // EPOCHS,
        "run.max_epochs": EPOCHS,
        "run.threads": config.run.threads,
        "run.device": config.run.device,
        "run.progress": False,
    }
    return load_config([], [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()])


def _tell(teacher: CorrectedTeacher, place: Path) -> None:
    """Tell how well teacher and sum know the labels that no network trained on."""
    frames = read_frames(place / "difference.xyz")
    split = Split.load(place / "split.json", len(frames))
    held = [frames[k] for k in split.val if has_label(frames[k], "forces")]
    if not held:
        return
    before = np.concatenate([np.asarray(frame.arrays["forces"]) for frame in held])
    found = [network.calculator.evaluate(held) for network in teacher.networks]
    mean = np.mean([np.concatenate([result["forces"] for result in results]) for results in found], axis=0)
    LOGGER.info(
        f"forces on {len(held)} validation frames: {teacher.teacher.name} is {1e3 * np.abs(before).mean():.0f} meV/Å "
        f"from the labels, with the networks {1e3 * np.abs(before - mean).mean():.0f}"
    )
