"""Which frames are trained on: read, counted and divided into training, validation and test.

Frames of one isolated atom are E0s and have no part in the division.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.checkpoint import load
from asecalc_mlip.data.census import census, has_label
from asecalc_mlip.data.labels import frame_name, is_isolated_atom, without_open_stress
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.structure_checks import shared_structures
from asecalc_mlip.digests import digest_of, sha256_of
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.units import LABELS
from training.config import TrainConfig, label_weights, load_config
from training.data.digests import fingerprint, weights_digest
from training.data.hints import hint_of_stress
from training.data.reading import read_data, require
from training.data.split import Split, split_structures
from training.data.weights import check_weights
from training.finetune.replay import find_old_data
from training.pretrain.labels import LABELLED, check_pretraining, label_sources, large_labels
from training.run.useless import without_useless

__all__ = ["check_test", "isolated_atoms", "other_contents", "read_structures", "split_frames"]


def read_structures(config: TrainConfig, folder: Path) -> tuple[list[Atoms], Split | None]:
    """Read the labelled frames, and their split where that follows from how they were made.

    Raises
    ------
    InputError, DataError
        For files that cannot be read, and labels that are missing or cannot be right.
    """
    data, split, name = config.data, None, config.data.train
    check_pretraining(config)
    frames = read_data(data)
    if config.pretrain.teacher is not None:
        check_test(config, [frames[i] for i in split_structures(frames, data).train], tell=False)
        frames, split = label_sources(config, frames, folder)
        name = str(folder / LABELLED)
    structures = _structures(frames)
    counts = census(structures)
    LOGGER.info(f"{name}: {counts}")
    for text in counts.warnings:
        LOGGER.warning(text)
    allowed = data.trust or large_labels(name, structures)
    if allowed is True:
        for problem in counts.problems:
            LOGGER.warning(f"{problem.text} (data.trust is set)")
    require(counts, label_weights(config.loss), allowed)
    check_weights(structures, data.weights)
    hint_of_stress(counts, structures, config.loss)
    return frames, split


def split_frames(
    config: TrainConfig, folder: Path, frames: Sequence[Atoms], continuing: bool, drawn: Split | None
) -> Split:
    """Divide the frames: as the run in `folder` did, as they were made, by a file, or at random.

    Raises
    ------
    InputError, DataError
        For data that have changed since the run began, and files that do not fit.
    """
    data = config.data
    digests = fingerprint(frames), _beside(without_useless(config), frames)
    before = Split.load(folder / "split.json", len(frames)) if continuing else None
    if before is not None:
        _check_same(before, *digests, config, folder, frames)
    if before is not None and (data.split_file is None or drawn is not None):
        split = before
    elif drawn is not None:
        split = drawn
    else:
        split = split_structures(frames, data)
        if before is not None and (before.train, before.val) != (split.train, split.val):
            raise InputError(f"{data.split_file} is not the split of the run in {folder}; choose another run.output")
    split = replace(_known_elements(split, frames), data_sha256=digests[0], beside_sha256=digests[1])
    LOGGER.info(f"split: {len(split.train)} train, {len(split.val)} validation, {len(split.test)} test")
    return split


def isolated_atoms(frames: Sequence[Atoms], split: Split) -> list[Atoms]:
    """Return the frames that are E0s; none where a run of an older version has them in its split, as structures."""
    found = {i for i, atoms in enumerate(frames) if is_isolated_atom(atoms)}
    if not found or found.intersection([*split.train, *split.val, *split.test]):
        return []
    symbols = ", ".join(sorted({frames[i].get_chemical_formula() for i in found}))
    LOGGER.info(f"isolated atoms: {len(found)} frames ({symbols}) are E0s, not structures to train on")
    if silent := sorted({frames[i].get_chemical_formula() for i in found if not has_label(frames[i], "energy")}):
        LOGGER.warning(f"the isolated atoms {', '.join(silent)} have no energy and give no E0")
    return [frames[i] for i in sorted(found)]


def check_test(config: TrainConfig, training: Sequence[Atoms], *, tell: bool = True) -> None:
    """Refuse a test file now that would be refused after hours of training, or of labelling by a teacher.

    Parameters
    ----------
    config : TrainConfig
    training : sequence of Atoms
        The frames to train on; before a teacher labels copies of them, the structures that it gets.
    tell : bool
        Warn of structures that are in both.

    Raises
    ------
    InputError, DataError
        For a file that cannot be read, has no labels or wrong ones, or has an element that no training frame has.
    """
    if config.data.test is None:
        return
    frames = without_open_stress(_structures(read_frames(config.data.test, **config.data.reading())))
    found = census(frames)
    if not any(found.counts.values()):
        keys = {key: name for key, name in config.data.reading().items() if key.endswith("_key") and name}
        looked = f"looked for under {', '.join(f'{k} {v}' for k, v in keys.items())}" if keys else "of any usual name"
        raise DataError(f"{config.data.test} has no labels {looked} ({found}); data.test is read as data.train is")
    found.refuse([label for label in LABELS if found.counts[label]], allow_implausible=True)
    if tell:
        _warn_of_shared(config.data.test, training, frames)
    known = {int(z) for atoms in training for z in atoms.numbers}
    absent = sorted({chemical_symbols[z] for atoms in frames for z in atoms.numbers if int(z) not in known})
    if absent:
        raise DataError(f"{config.data.test} has {', '.join(absent)}, which no training frame has; leave them out")


def _warn_of_shared(name: str, training: Sequence[Atoms], frames: Sequence[Atoms]) -> None:
    """Tell a test file that holds structures of the training set."""
    if shared := shared_structures(training, frames):
        i, j = shared[0]
        LOGGER.warning(
            f"{len(shared)} of {len(frames)} frames of {name} are in the training set too, e.g. "
            f"{frame_name(frames[j], j)} is {frame_name(training[i], i)}: errors on them say nothing about other "
            "structures. Name another data.test, or none"
        )


def _structures(frames: Sequence[Atoms]) -> list[Atoms]:
    """Return the frames that are structures to train on, not isolated atoms."""
    found = [atoms for atoms in frames if not is_isolated_atom(atoms)]
    if not found:
        raise DataError("every frame is one isolated atom, whose energy is an E0; give structures to train on")
    return found


def _check_same(
    before: Split, data: str, beside: str, config: TrainConfig, folder: Path, frames: Sequence[Atoms]
) -> None:
    """Refuse to go on with other structures or labels, or with what else the run was not begun with."""
    changed = None
    if before.beside_sha256 is None:  # of an older version, which had one digest of everything
        asked = load_config([folder / "config.yaml"])
        if before.data_sha256 not in (None, fingerprint(frames, *_contents(asked))):
            changed = "structures or labels have changed, or those of the other files that it starts from"
    elif before.data_sha256 != data:
        changed = "structures or labels have changed"
    elif before.beside_sha256 != beside:
        changed = "the kinds of frames (config_type) have changed, or the other files that it starts from"
    if changed:
        raise InputError(
            f"{config.data.train} is not what the run in {folder} was started with: {changed}. Put the old file back, "
            "or choose another run.output"
        )


def _beside(config: TrainConfig, frames: Sequence[Atoms]) -> str:
    """Return the digest of what decides a run beside structures and labels."""
    # Only what is read: a config_type counts where frames are weighted by it, or where it makes an atom an E0.
    kinds = [str(atoms.info.get("config_type", "")) if config.data.weights else "" for atoms in frames]
    alone = [i for i, atoms in enumerate(frames) if is_isolated_atom(atoms)]
    return digest_of([repr((kinds, alone, *other_contents(config)))])


def other_contents(config: TrainConfig) -> tuple[list[str], list[Any]]:
    """Return digests of what decides a run beside its data: other files, and models by their weights."""
    return [sha256_of(path) for path in _files(config)], _models(config)


def _contents(config: TrainConfig) -> list[Any]:
    """Return what older versions took the digest of."""
    return [*(path.read_bytes() for path in _files(config)), *_models(config)]


def _files(config: TrainConfig) -> list[Path]:
    names: list[str | Path | None] = [config.model.isolated_atoms, config.far.data]
    if config.finetune.replay > 0:
        names.append(find_old_data(config))
    return [Path(name) for name in names if name and Path(name).is_file()]


def _models(config: TrainConfig) -> list[Any]:
    names = [name for name in (config.finetune.base, config.finetune.delta) if name not in (None, "zbl")]
    potentials = [load(name).potential for name in names]
    return [(p.architecture, sorted(p.hyperparameters.items()), weights_digest(p)) for p in potentials]


def _known_elements(split: Split, frames: Sequence[Atoms]) -> Split:
    """Return the split without validation and test frames that have an element which no training frame has."""
    known = {int(z) for i in split.train for z in frames[i].numbers}
    fits = {i: known.issuperset(frames[i].numbers.tolist()) for i in (*split.val, *split.test)}
    out = [i for i, good in fits.items() if not good]
    if not out:
        return split
    absent = sorted({chemical_symbols[z] for i in out for z in frames[i].numbers if int(z) not in known})
    LOGGER.warning(f"{len(out)} validation or test frames left out, because no training frame has {', '.join(absent)}")
    val, test = ([i for i in part if fits[i]] for part in (split.val, split.test))
    if not val:
        raise DataError("no validation frame is left; choose another data.split_seed or a larger data.n_val")
    return replace(split, val=val, test=test)
