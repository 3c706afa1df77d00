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
from asecalc_mlip.models import Potential, architecture_text, check_trainable
from training.config import TrainConfig, label_weights
from training.curvature_labels import CurvatureLabels, check_curvature, make_curvature_labels
from training.data.module import FramesDataModule, Replay
from training.data.split import Split
from training.far import Far, make_far, open_level
from training.far.make import atoms_of
from training.finetune.replay import OldLevel, make_old_level
from training.losses.methods import Weak, list_skin, make_weak
from training.pretrain.labels import recipe_of
from training.results.card import conditions_of
from training.run.continuing import placed, settings_before
from training.run.length import describe, replay_share, with_length
from training.run.useless import refuse_useless
from training.settings import RunConfig
from training.splitting import check_test, isolated_atoms, read_structures, split_frames
from training.start.initial import Start, make_start
from training.start.reference_energies import ReferenceEnergies

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
        write_text(folder / "config.yaml", yaml.safe_dump(placed(asked.to_dict()), sort_keys=False))
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
    return f"{architecture_text(potential)} with {trained} parameters{also}"


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


def device_of(name: str) -> str:
    """Return the device of a training by the name in run.device; "auto" takes a GPU if there is one."""
    try:
        return str(checked_device(name))
    except InputError as error:
        raise InputError(f"run.{error}") from None
