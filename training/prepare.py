"""The steps before the first gradient: read, check, split, build.

The output folder gets config.yaml and split.json once all is well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.analysis import make_reference
from asecalc_mlip.checkpoint import load
from asecalc_mlip.data.census import census
from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.engine.device import checked_device
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import write_text
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import Potential, check_trainable, parts_of
from training.config import DataConfig, TrainConfig, label_weights, load_config
from training.data import FramesDataModule, Replay, Split, check_weights, fingerprint, make_split, weights_digest
from training.hints import hint_of_stress
from training.initial import Start, make_start
from training.length import describe, seconds_of, with_length
from training.losses.methods import list_skin, make_weak
from training.losses.weak import NoisyNodes, WeakSupervision
from training.pretrain import LABELLED, label_sources, large_labels, recipe_of
from training.reference_energies import ReferenceEnergies
from training.replay import OldLevel, find_old_data, make_old_level

__all__ = ["Run", "device_of", "prepare"]


@dataclass
class Run:
    """A run that is ready to fit: what was read, split and built."""

    config: TrainConfig
    """With the length that was chosen where none was given."""
    folder: Path
    frames: list[Atoms]
    split: Split
    start: Start
    data: FramesDataModule
    weak: WeakSupervision | NoisyNodes | None
    old: OldLevel | None = None
    pretraining: dict[str, Any] | None = None
    """How the labels were made, if an EAM made them."""

    @property
    def potential(self) -> Potential:
        """The potential that is trained."""
        return self.start.potential

    @property
    def e0(self) -> ReferenceEnergies:
        """Reference energies before the training."""
        return self.start.e0

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / f"{self.config.run.name}.pt"

    @property
    def training(self) -> list[Atoms]:
        """The frames to train on."""
        return [self.frames[i] for i in self.split.train]

    @cached_property
    def reference(self) -> dict[str, Any]:
        """How the training data look, by which runs are judged; for the model file."""
        return make_reference(self.training, Path(self.config.data.train).name).to_dict()

    @property
    def test_device(self) -> str:
        """Where the finished model is tested: a GPU only if one was named."""
        return "cpu" if self.config.run.device == "auto" else self.config.run.device


def prepare(config: TrainConfig) -> Run:
    """Read, check, split and build; the output folder gets config.yaml and split.json once all is well.

    Raises
    ------
    InputError, DataError
        For settings or data that cannot be used.
    """
    folder = Path(config.run.output)
    if config.finetune.base is None:
        check_trainable(config.model.architecture)
    continuing = _continues(config, folder)
    weights, _, skin = label_weights(config.loss), device_of(config.run.device), list_skin(config.weak)
    if config.run.time is not None:
        seconds_of(config.run.time)
    frames, drawn = _read(config, folder)
    split = _split(config, folder, frames, continuing, drawn)
    training = [frames[i] for i in split.train]
    atoms = _isolated_atoms(frames, split)
    length = with_length(config.run, len(training), replay=config.finetune.replay)
    asked, config = config, replace(config, run=length)
    _check_test(config, training)
    start = make_start(config, training, atoms)
    LOGGER.info(start.table())
    old = make_old_level(config, start)
    weak = make_weak(config.weak, config.loss, start.potential)
    folder.mkdir(parents=True, exist_ok=True)
    split.save(folder / "split.json")
    write_text(folder / "config.yaml", yaml.safe_dump(asked.to_dict(), sort_keys=False))
    data = FramesDataModule(
        frames,
        split,
        labels=list(weights),
        cutoff=start.potential.cutoff + skin,
        batch_size=config.run.batch_size,
        seed=config.run.seed,
        steps_per_epoch=config.run.steps_per_epoch,
        weights=config.data.weights,
        replay=Replay(old.replay, config.finetune.replay) if old is not None and old.replay else None,
    )
    LOGGER.info(f"{_name(start.potential)}, cutoff {start.potential.cutoff} Å; output in {folder}")
    LOGGER.info(describe(config.run, len(training), replay=config.finetune.replay))
    return Run(config, folder, frames, split, start, data, weak, old, recipe_of(config.data.train, frames))


def _name(potential: Potential) -> str:
    trained = sum(p.numel() for p in potential.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in potential.parameters()) - trained
    also = f" ({fixed} more are kept as they are)" if fixed else ""
    parts = " + ".join(part.architecture for part in parts_of(potential))
    return f"{parts} with {trained} parameters{also}"


def _read(config: TrainConfig, folder: Path) -> tuple[list[Atoms], Split | None]:
    """The labelled frames, and their split where that follows from how they were made."""
    data, split, name = config.data, None, config.data.train
    if not data.train:
        raise InputError("data.train is empty; name the file with the labelled structures, e.g. data.train=train.xyz")
    frames = read_frames(data.train, **config.data.reading())
    if config.pretrain.eam is not None:
        frames, split = label_sources(config, _structures(frames), folder)
        name = str(folder / LABELLED)
    structures = _structures(frames)
    counts = census(structures)
    LOGGER.info(f"{name}: {counts}")
    counts.require(label_weights(config.loss), allow_implausible=large_labels(name, structures))
    check_weights(structures, data.weights)
    hint_of_stress(counts, structures, config.loss)
    return frames, split


def _structures(frames: Sequence[Atoms]) -> list[Atoms]:
    """The frames that are structures to train on, not isolated atoms."""
    found = [atoms for atoms in frames if not is_isolated_atom(atoms)]
    if not found:
        raise DataError("every frame is one isolated atom, whose energy is an E0; give structures to train on")
    return found


def _isolated_atoms(frames: Sequence[Atoms], split: Split) -> list[Atoms]:
    """Frames that are E0s; none where a run of an older version has them in its split, as structures."""
    found = {i for i, atoms in enumerate(frames) if is_isolated_atom(atoms)}
    if not found or found.intersection([*split.train, *split.val, *split.test]):
        return []
    symbols = sorted({frames[i].get_chemical_formula() for i in found})
    LOGGER.info(f"isolated atoms: {len(found)} frames ({', '.join(symbols)}) are E0s, not structures to train on")
    return [frames[i] for i in sorted(found)]


def _continues(config: TrainConfig, folder: Path) -> bool:
    """Whether the folder holds a run with these settings that got somewhere; refuses one with other settings."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run.output {str(folder)!r} is a file; name a folder")
    if not (folder / "last.ckpt").exists() and not any(folder.glob("*.pt")):
        return False
    saved = folder / "config.yaml"
    if not saved.exists():
        raise InputError(f"{folder} holds a model but no config.yaml to say of which run; choose another run.output")
    # Through load_config, so that settings which are newer than the run have their defaults.
    before = load_config([saved]).to_dict()
    changed = _differences(before, config.to_dict())
    if changed:
        raise InputError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. Choose another run.output, or continue "
            f"it with its own settings: asecalc train {saved}"
        )
    LOGGER.info(f"continuing the run in {folder}")
    if config.optimizer.schedule == "cosine" and before["run"]["max_epochs"] != config.run.max_epochs:
        LOGGER.info(
            f"note: the cosine of the learning rate ended at epoch {before['run']['max_epochs']} and now ends at "
            f"{config.run.max_epochs}; the rate jumps, and the result is not that of one run of this length"
        )
    return True


# What may change between two parts of one run without making it another run.
_FREE = {
    "run.max_epochs",
    "run.time",
    "run.threads",
    "run.device",
    "run.progress",
    "run.output",
    "run.name",
    "run.licence",
}
_FREE |= {"run.early_stop", "data.test", "data.source", "data.level_of_theory"}


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [_differences(before.get(k), now.get(k), f"{prefix}.{k}".lstrip(".")) for k in {**before, **now}]
        return [line for part in parts for line in part]
    return [] if before == now or prefix in _FREE else [f"{prefix} was {before}, is {now}"]


def _split(config: TrainConfig, folder: Path, frames: Sequence[Atoms], continuing: bool, drawn: Split | None) -> Split:
    data = config.data
    digest = fingerprint(frames, *_other_files(config))
    before = Split.load(folder / "split.json", len(frames)) if continuing else None
    if before is not None and before.data_sha256 not in (None, digest):
        raise InputError(
            f"{data.train} is not what the run in {folder} was started with: structures or labels have changed, or "
            "those of the other files that it starts from. Put the old file back, or choose another run.output"
        )
    if before is not None and (data.split_file is None or drawn is not None):
        split = before
    elif drawn is not None:
        split = drawn
    elif data.split_file is not None:
        split = _without_atoms(Split.load(data.split_file, len(frames)), frames)
        if before is not None and (before.train, before.val) != (split.train, split.val):
            raise InputError(f"{data.split_file} is not the split of the run in {folder}; choose another run.output")
    else:
        split = _drawn_split(frames, data)
    split = replace(_known_elements(split, frames), data_sha256=digest)
    LOGGER.info(f"split: {len(split.train)} train, {len(split.val)} validation, {len(split.test)} test")
    return split


def _without_atoms(split: Split, frames: Sequence[Atoms]) -> Split:
    train, val, test = (
        [i for i in part if not is_isolated_atom(frames[i])] for part in (split.train, split.val, split.test)
    )
    return Split(train, val, test, split.data_sha256)


def _drawn_split(frames: Sequence[Atoms], data: DataConfig) -> Split:
    """A random split of the structures, in which isolated atoms have no part."""
    places = [i for i, atoms in enumerate(frames) if not is_isolated_atom(atoms)]
    split = make_split(len(places), data.n_train, data.n_val, seed=data.split_seed)
    train, val, test = ([places[i] for i in part] for part in (split.train, split.val, split.test))
    return Split(train, val, test)


def _other_files(config: TrainConfig) -> list[Any]:
    """Return what decides a run beside its data: contents of files, and weights of models."""
    names: list[str | Path | None] = [config.model.isolated_atoms]
    if config.finetune.replay > 0:
        names.append(find_old_data(config))
    files = [Path(name).read_bytes() for name in names if name and Path(name).is_file()]
    models = [name for name in (config.finetune.base, config.finetune.delta) if name not in (None, "zbl")]
    potentials = [load(name).potential for name in models]
    return [*files, *((p.architecture, sorted(p.hyperparameters.items()), weights_digest(p)) for p in potentials)]


def _known_elements(split: Split, frames: Sequence[Atoms]) -> Split:
    """The split without validation and test frames that have an element which no training frame has."""
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


def _check_test(config: TrainConfig, training: Sequence[Atoms]) -> None:
    """Refuse a test file now that would be refused after hours of training."""
    if config.data.test is None:
        return
    frames = _structures(read_frames(config.data.test, **config.data.reading()))
    found = census(frames)
    if not any(found.counts.values()):
        keys = {key: name for key, name in config.data.reading().items() if key.endswith("_key") and name}
        looked = f"looked for under {', '.join(f'{k} {v}' for k, v in keys.items())}" if keys else "of any usual name"
        raise DataError(f"{config.data.test} has no labels {looked} ({found}); data.test is read as data.train is")
    known = {int(z) for atoms in training for z in atoms.numbers}
    absent = sorted({chemical_symbols[z] for atoms in frames for z in atoms.numbers if int(z) not in known})
    if absent:
        raise DataError(f"{config.data.test} has {', '.join(absent)}, which no training frame has; leave them out")


def device_of(name: str) -> str:
    """Device of a training by the name in run.device; "auto" takes a GPU if there is one."""
    try:
        return str(checked_device(name))
    except InputError as error:
        raise InputError(f"run.{error}") from None
