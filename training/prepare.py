"""The steps before the first gradient: read, check, split, build.

The output folder gets config.yaml and split.json once all is well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from ase import Atoms

from asecalc_mlip.analysis import make_reference
from asecalc_mlip.engine.device import checked_device
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import write_text
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import Potential, check_trainable, parts_of
from asecalc_mlip.teachers.naming import with_whole_path
from training.card import conditions_of
from training.config import TrainConfig, label_weights, load_config
from training.curvature_labels import CurvatureLabels, check_curvature, make_curvature_labels
from training.data import FramesDataModule, Replay, Split
from training.far import Far, make_far, open_level
from training.far.make import atoms_of
from training.initial import Start, make_start
from training.length import describe, replay_share, with_length
from training.losses.methods import Weak, list_skin, make_weak, settled
from training.pretrain import recipe_of
from training.reference_energies import ReferenceEnergies
from training.replay import OldLevel, make_old_level
from training.settings import RunConfig
from training.splitting import check_test, isolated_atoms, read_structures, split_frames
from training.useless import refuse_useless, without_useless

__all__ = ["Run", "changed_settings", "device_of", "prepare", "settings_before"]


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
    weak: Weak | None
    old: OldLevel | None = None
    far: Far | None = None
    curvature: CurvatureLabels | None = None
    pretraining: dict[str, Any] | None = None
    """How the labels were made, if a teacher made them."""

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
    def conditions(self) -> dict[str, Any]:
        """Temperatures and forces of the training data, by which dynamics are warned."""
        return conditions_of(self.training)

    @cached_property
    def reference(self) -> dict[str, Any]:
        """How the training data look, by which runs are judged; for the model file."""
        data = self.config.data
        level = "" if data.level_of_theory == "not stated" or self.pretraining else f", {data.level_of_theory}"
        source = f"{Path(data.train).name}, {len(self.split.train)} training frames{level}"
        return make_reference(self.training, source).to_dict()

    @property
    def test_device(self) -> str:
        """Where the finished model is tested: a GPU only if one was named."""
        return "cpu" if self.config.run.device == "auto" else self.config.run.device


def prepare(config: TrainConfig, *, writes: bool = True) -> Run:
    """Read, check, split and build; the output folder gets config.yaml and split.json once all is well.

    Parameters
    ----------
    config : TrainConfig
    writes : bool
        Write them; of several processes only the first does.

    Raises
    ------
    InputError, DataError
        For settings or data that cannot be used.
    """
    folder = Path(config.run.output)
    if config.finetune.base is None:
        check_trainable(config.model.architecture)
    continuing = _continues(config, folder)
    if not continuing:
        refuse_useless(config)
    check_curvature(config)
    weights, _, skin = label_weights(config.loss), device_of(config.run.device), list_skin(config.weak)
    frames, drawn = read_structures(config, folder)
    split = split_frames(config, folder, frames, continuing, drawn)
    training = [frames[i] for i in split.train]
    atoms = isolated_atoms(frames, split) or atoms_of(config)
    _check_devices(config.run, len(training))
    length = with_length(config.run, len(training), replay=replay_share(config))
    asked, config = config, replace(config, run=length)
    check_test(config, training)
    level = open_level(config, training, folder)
    start = make_start(config, training, atoms, level)
    LOGGER.info(start.table())
    old = make_old_level(config, start)
    far = make_far(config, level, start, training, folder, list(weights))
    weak = make_weak(config.weak, config.loss, start.potential)
    curvature = make_curvature_labels(config, frames, split.train, folder)
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        split.save(folder / "split.json")
        write_text(folder / "config.yaml", yaml.safe_dump(_placed(asked.to_dict()), sort_keys=False))
    data = FramesDataModule(
        frames,
        split,
        labels=list(weights),
        cutoff=start.potential.cutoff + skin,
        batch_size=config.run.batch_size,
        seed=config.run.seed,
        steps_per_epoch=config.run.steps_per_epoch,
        weights=config.data.weights,
        replay=[
            *([Replay(old.replay, config.finetune.replay)] if old is not None and old.replay else []),
            *([] if far is None else [Replay(far.frames, config.far.share, far.weights)]),
        ],
        more=None if curvature is None else curvature.of,
    )
    LOGGER.info(f"{_name(start.potential)}, cutoff {start.potential.cutoff} Å; output in {folder}")
    LOGGER.info(describe(config.run, len(training), replay=replay_share(config)))
    pretraining = recipe_of(config.data.train, frames)
    return Run(config, folder, frames, split, start, data, weak, old, far, curvature, pretraining)


def _check_devices(settings: RunConfig, n_train: int) -> None:
    size = min(settings.batch_size, n_train)
    if settings.devices > size:
        raise InputError(
            f"run.devices is {settings.devices}, but a batch has {size} structures, too few for one each: "
            f"run.devices={size} at most, or a larger run.batch_size"
        )
    device = torch.device(device_of(settings.device))
    if device.index is not None and settings.devices > 1:
        raise InputError(f"run.device is {settings.device}, one GPU, but run.devices is {settings.devices}; take cuda")
    if device.type != "cpu" and settings.devices > torch.cuda.device_count():
        raise InputError(f"run.devices is {settings.devices}, but there are {torch.cuda.device_count()} GPUs here")


def _name(potential: Potential) -> str:
    trained = sum(p.numel() for p in potential.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in potential.parameters()) - trained
    also = f" ({fixed} more are kept as they are)" if fixed else ""
    parts = " + ".join(part.architecture for part in parts_of(potential))
    return f"{parts} with {trained} parameters{also}"


def _continues(config: TrainConfig, folder: Path) -> bool:
    """Return whether the folder holds a run with these settings that got somewhere; refuse one with other settings."""
    before = settings_before(config, folder)
    if before is None:
        return False
    LOGGER.info(f"continuing the run in {folder}")
    if config.optimizer.schedule == "cosine" and before.run.max_epochs != config.run.max_epochs:
        LOGGER.info(
            f"note: the cosine of the learning rate ended at epoch {before.run.max_epochs} and now ends at "
            f"{config.run.max_epochs}; the rate jumps, and the result is not that of one run of this length"
        )
    return True


def settings_before(config: TrainConfig, folder: Path) -> TrainConfig | None:
    """Return the settings of the run in a folder, None where none got somewhere.

    Raises
    ------
    InputError
        For a folder that holds a run with other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run.output {str(folder)!r} is a file; name a folder")
    if not (folder / "last.ckpt").exists() and not any(folder.glob("*.pt")):
        return None
    saved = folder / "config.yaml"
    if not saved.exists():
        raise InputError(f"{folder} holds a model but no config.yaml to say of which run; choose another run.output")
    before, changed = changed_settings(config, saved)
    if changed:
        raise InputError(
            f"{folder} holds a run with other settings: {'; '.join(changed.values())}. Choose another run.output, or "
            f"continue it with its own settings: asecalc train {saved}"
        )
    return before


def changed_settings(config: TrainConfig, saved: Path) -> tuple[TrainConfig, dict[str, str]]:
    """Return the settings of a run from its config.yaml, and by name which of them are others now, in words."""
    # Through load_config, so that settings which are newer than the run have their defaults.
    before = load_config([saved])
    return before, _differences(_compared(before), _compared(config))


def _compared(config: TrainConfig) -> dict[str, Any]:
    config = without_useless(config)
    return _placed(replace(config, weak=settled(config.weak, config.loss)).to_dict())


# What may change between two parts of one run without making it another run.
_FREE = {
    "run.max_epochs",
    "run.time",
    "run.threads",
    "run.device",
    "run.devices",
    "run.progress",
    "run.output",
    "run.name",
    "run.licence",
}
_FREE |= {"run.early_stop", "data.test", "data.trust", "data.source", "data.level_of_theory"}


# Files by name: from another folder the same file has another name.
_PATHS = (
    *("data.train", "data.test", "data.split_file", "model.isolated_atoms", "finetune.base", "finetune.delta"),
    *("finetune.old_data", "far.teacher", "far.data", "far.structures", "pretrain.teacher", "pretrain.sampler"),
    "weak.teacher",
)


def _placed(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the whole paths of files that are there."""
    placed = {name: dict(section) for name, section in config.items()}
    for section, _, key in (path.partition(".") for path in _PATHS):
        name = placed[section][key]
        if name and key in ("teacher", "sampler"):
            placed[section][key] = with_whole_path(name)
        elif name and Path(name).is_file():
            placed[section][key] = str(Path(name).resolve())
    return placed


def _differences(before: Any, now: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [_differences(before.get(k), now.get(k), f"{prefix}.{k}".lstrip(".")) for k in {**before, **now}]
        return {name: line for part in parts for name, line in part.items()}
    return {} if before == now or prefix in _FREE else {prefix: f"{prefix} was {before}, is {now}"}


def device_of(name: str) -> str:
    """Return the device of a training by the name in run.device; "auto" takes a GPU if there is one."""
    try:
        return str(checked_device(name))
    except InputError as error:
        raise InputError(f"run.{error}") from None
