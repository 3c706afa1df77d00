"""One training run: data, census, split, fit, test errors, figures and the .pt file.

Run again with the same settings, it continues from the last checkpoint; a finished run only writes its results anew.
Ctrl-C and SIGTERM end a run at the end of its epoch, with a checkpoint.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from ase import Atoms
from ase.data import chemical_symbols
from pytorch_lightning.loggers import TensorBoardLogger

from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.models import Potential, build_potential
from training.callbacks import AveragedWeights, EarlyStop, LastCheckpoint, RunLog, StopSignals
from training.census import census
from training.config import LossConfig, TrainConfig, load_config
from training.data import FramesDataModule, Split, fingerprint, make_split, replace_text
from training.folders import locked
from training.readers import read_frames
from training.reference_energies import ReferenceEnergies, reference_energies
from training.task import PotentialAdapter, TrainingTask, make_outputs
from training.weak import NoisyNodes, WeakSupervision, list_skin, make_weak

__all__ = ["Run", "Stopped", "main", "prepare", "train"]


class Stopped(KeyboardInterrupt):
    """A run that a signal ended at the end of an epoch; the checkpoint is written."""

    def __init__(self, folder: Path, number: int):
        super().__init__(f"stopped; run the same command again to continue from {folder / 'last.ckpt'}")
        self.signal = number


@dataclass
class Run:
    """A run that is ready to fit: what was read, split and built."""

    config: TrainConfig
    folder: Path
    frames: list[Atoms]
    split: Split
    e0: ReferenceEnergies
    potential: Potential
    data: FramesDataModule
    weak: WeakSupervision | NoisyNodes | None


def main(config_paths: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Entry of `asecalc train`; exits with 128 + signal when a signal ended the run."""
    try:
        print(train(load_config(config_paths, overrides)))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def train(config: TrainConfig, callbacks: Sequence[pl.Callback] = ()) -> Any:
    """Train a model and write everything about it into `config.run.output`.

    Parameters
    ----------
    config : TrainConfig
    callbacks : sequence of Callback
        To watch the run; they come after its own, and what they raise ends it without results.

    Returns
    -------
    training.results.TrainingResult
        Test errors and where the files are.

    Raises
    ------
    InputError, DataError
        Before anything is written, for settings or data that cannot be used; when the loss is no longer a number; and
        when the disk is full: what was written before stays as it is.
    Stopped
        After SIGINT or SIGTERM.
    """

    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    with locked(Path(config.run.output)):
        run = prepare(config)
        average = fit(run, callbacks)
        # Imported late: figures need matplotlib, which a run without results does not.
        from training.results import finish

        return finish(run, average)


def prepare(config: TrainConfig) -> Run:
    """Read, check, split and build; the output folder gets config.yaml, split.json and data.db once all is well."""
    folder = Path(config.run.output)
    continuing = _continues(config, folder)
    weights, _, skin = _weights(config.loss), _device(config.run.device), list_skin(config.weak)
    frames = _read(config)
    split = _split(config, folder, frames, continuing)
    training = [frames[i] for i in split.train]
    _check_test(config, training)
    e0 = reference_energies(
        training, config.model.reference_energies, given=config.model.given, isolated=config.model.isolated_atoms
    )
    print(e0.table())
    pl.seed_everything(config.run.seed, verbose=False)
    potential = build_potential(
        config.model.architecture,
        config.model.hyperparameters,
        reference_energies=e0.values,
        scale=_scale(training, config.loss),
    )
    weak = make_weak(config.weak, config.loss, potential)
    folder.mkdir(parents=True, exist_ok=True)
    split.save(folder / "split.json")
    replace_text(folder / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    data = FramesDataModule(
        frames,
        split,
        labels=list(weights),
        cutoff=potential.cutoff + skin,
        folder=folder,
        batch_size=config.run.batch_size,
        seed=config.run.seed,
        steps_per_epoch=config.run.steps_per_epoch,
    )
    n_parameters = sum(p.numel() for p in potential.parameters())
    name = config.model.architecture
    print(f"{name} with {n_parameters} parameters, cutoff {potential.cutoff} Å; output in {folder}")
    return Run(config, folder, frames, split, e0, potential, data, weak)


def fit(run: Run, watchers: Sequence[pl.Callback] = ()) -> AveragedWeights:
    """Fit until max_epochs, early stop or a signal; the state is in last.ckpt."""
    config = run.config
    weights = _weights(config.loss)
    adapter = PotentialAdapter(
        run.potential,
        forces="forces" in weights,
        stress="stress" in weights,
        weak=run.weak,
        reach=run.potential.cutoff + list_skin(config.weak),
    )
    outputs = make_outputs(config.loss, run.weak)
    task = TrainingTask(adapter, outputs, config.optimizer, config.run.max_epochs, config.weak)
    average = AveragedWeights(run.potential, config.optimizer.ema_decay)
    checkpoint, signals = LastCheckpoint(run.folder), StopSignals()
    callbacks: list[pl.Callback] = [average, RunLog(run.folder, progress=config.run.progress), checkpoint, signals]
    if config.run.early_stop is not None:
        callbacks.append(EarlyStop(average, config.run.early_stop))
    callbacks += watchers
    saved = _readable(checkpoint.path)
    if saved is not None and _is_over(saved, average, config):
        return average
    try:
        with _quiet():
            trainer = pl.Trainer(
                accelerator="cpu" if _device(config.run.device) == "cpu" else "gpu",
                devices=1,
                max_epochs=config.run.max_epochs,
                gradient_clip_val=config.optimizer.gradient_clip,
                callbacks=callbacks,
                logger=TensorBoardLogger(run.folder, name="tensorboard", version=""),
                enable_progress_bar=False,
                enable_model_summary=False,
                inference_mode=False,
                num_sanity_val_steps=0,
            )
            path = None if saved is None else checkpoint.path
            trainer.fit(task, datamodule=run.data, ckpt_path=path, weights_only=True)
    finally:
        signals.restore()
    if signals.signal is not None and trainer.current_epoch < config.run.max_epochs:
        raise Stopped(run.folder, signals.signal)
    return average


def _is_over(saved: dict[str, Any], average: AveragedWeights, config: TrainConfig) -> bool:
    """Whether a checkpoint is that of a run with nothing left to do; its weights are in `average` then."""
    state = next(value for name, value in saved["callbacks"].items() if "AveragedWeights" in name)
    done, patience = saved["epoch"] + 1, config.run.early_stop
    if done < config.run.max_epochs and not (patience and saved["epoch"] - state["best_epoch"] >= patience):
        return False
    print(f"nothing left to train after {done} epochs; the results are written anew")
    average.load_state_dict(dict(state))
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice on workers, loggers and clouds, none of which applies."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _read(config: TrainConfig) -> list[Atoms]:
    data = config.data
    if not data.train:
        raise InputError("data.train is empty; name the file with the labelled structures, e.g. data.train=train.xyz")
    frames = _read_file(config, data.train)
    counts = census(frames)
    print(f"{data.train}: {counts}")
    counts.require(_weights(config.loss))
    return frames


def _read_file(config: TrainConfig, path: str) -> list[Atoms]:
    data = config.data
    return read_frames(
        path,
        energy_key=data.energy_key,
        forces_key=data.forces_key,
        stress_key=data.stress_key,
        energy_unit=data.energy_unit,
        length_unit=data.length_unit,
    )


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
            f"{folder} holds a run with other settings: {'; '.join(changed)}. Choose another run.output, or use "
            "the same settings to continue it"
        )
    print(f"continuing the run in {folder}")
    if config.optimizer.schedule == "cosine" and before["run"]["max_epochs"] != config.run.max_epochs:
        print(
            f"note: the cosine of the learning rate ended at epoch {before['run']['max_epochs']} and now ends at "
            f"{config.run.max_epochs}; the rate jumps, and the result is not that of one run of this length"
        )
    return True


def _readable(path: Path) -> dict[str, Any] | None:
    """The checkpoint to continue from, if there is one."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  damaged archives raise many kinds
        raise InputError(
            f"{path} cannot be read ({str(error).splitlines()[0][:120]}). Delete it to start this run anew, or put a "
            "copy of it back"
        ) from None


# What may change between two parts of one run without making it another run.
_FREE = {"run.max_epochs", "run.threads", "run.device", "run.progress", "run.output", "run.name", "run.licence"}
_FREE |= {"run.early_stop", "data.test", "data.source", "data.level_of_theory"}


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [_differences(before.get(k), now.get(k), f"{prefix}.{k}".lstrip(".")) for k in {**before, **now}]
        return [line for part in parts for line in part]
    return [] if before == now or prefix in _FREE else [f"{prefix} was {before}, is {now}"]


def _split(config: TrainConfig, folder: Path, frames: Sequence[Atoms], continuing: bool) -> Split:
    data = config.data
    atoms_file = Path(config.model.isolated_atoms or "")
    extra = [atoms_file.read_bytes()] if atoms_file.is_file() else []
    digest = fingerprint(frames, *extra)
    before = Split.load(folder / "split.json", len(frames)) if continuing else None
    if before is not None and before.data_sha256 not in (None, digest):
        raise InputError(
            f"{data.train} is not what the run in {folder} was started with: structures or labels have changed. Put "
            "the old file back, or choose another run.output"
        )
    if before is not None and data.split_file is None:
        split = before
    elif data.split_file is not None:
        split = Split.load(data.split_file, len(frames))
        if before is not None and (before.train, before.val) != (split.train, split.val):
            raise InputError(f"{data.split_file} is not the split of the run in {folder}; choose another run.output")
    else:
        split = make_split(len(frames), data.n_train, data.n_val, seed=data.split_seed)
    split = replace(_known_elements(split, frames), data_sha256=digest)
    print(f"split: {len(split.train)} train, {len(split.val)} validation, {len(split.test)} test")
    return split


def _known_elements(split: Split, frames: Sequence[Atoms]) -> Split:
    """The split without validation and test frames that have an element which no training frame has."""
    known = {int(z) for i in split.train for z in frames[i].numbers}
    fits = {i: known.issuperset(frames[i].numbers.tolist()) for i in (*split.val, *split.test)}
    out = [i for i, good in fits.items() if not good]
    if not out:
        return split
    absent = sorted({chemical_symbols[z] for i in out for z in frames[i].numbers if int(z) not in known})
    print(f"warning: {len(out)} validation or test frames left out, because no training frame has {', '.join(absent)}")
    val, test = ([i for i in part if fits[i]] for part in (split.val, split.test))
    if not val:
        raise DataError("no validation frame is left; choose another data.split_seed or a larger data.n_val")
    return replace(split, val=val, test=test)


def _check_test(config: TrainConfig, training: Sequence[Atoms]) -> None:
    """Refuse a test file now that would be refused after hours of training."""
    if config.data.test is None:
        return
    frames = _read_file(config, config.data.test)
    counts = census(frames).counts
    if not any(count == len(frames) for count in counts.values()):
        raise DataError(f"{config.data.test} has no label that all of its {len(frames)} frames have: {counts}")
    known = {int(z) for atoms in training for z in atoms.numbers}
    absent = sorted({chemical_symbols[z] for atoms in frames for z in atoms.numbers if int(z) not in known})
    if absent:
        raise DataError(f"{config.data.test} has {', '.join(absent)}, which no training frame has; leave them out")


def _weights(loss: LossConfig) -> dict[str, float]:
    weights = {"energy": loss.energy_weight, "forces": loss.forces_weight, "stress": loss.stress_weight}
    negative = [name for name, weight in weights.items() if weight < 0]
    if negative or not any(weights.values()):
        raise InputError(f"loss weights {weights}: none may be negative and at least one must be above zero")
    return {name: weight for name, weight in weights.items() if weight > 0}


def _scale(frames: Sequence[Atoms], loss: LossConfig) -> float:
    # Network outputs of order one; forces change energies by about their rms over one Å.
    if loss.forces_weight <= 0:
        return 1.0
    squares = torch.cat([torch.as_tensor(atoms.arrays["forces"]).double().flatten() for atoms in frames]).square()
    return float(squares.mean().sqrt()) or 1.0


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or (name.startswith("cuda") and torch.cuda.is_available()):
        return name
    raise InputError(f"run.device is {name!r}; allowed here: auto, cpu" + (", cuda" * torch.cuda.is_available()))
