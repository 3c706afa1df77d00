"""One training run: data, census, split, fit, test errors, figures and the .pt file.

Run again with the same settings, it continues from the last checkpoint; a finished run only writes its results anew.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

import pytorch_lightning as pl
import torch
import yaml
from ase import Atoms
from pytorch_lightning.loggers import TensorBoardLogger

from asecalc_mlip.errors import InputError
from asecalc_mlip.models import Potential, build_potential
from training.callbacks import AveragedWeights, LastCheckpoint, RunLog
from training.census import census
from training.config import LossConfig, TrainConfig, load_config
from training.data import FramesDataModule, Split, make_split
from training.readers import read_frames
from training.reference_energies import ReferenceEnergies, reference_energies
from training.task import PotentialAdapter, TrainingTask, make_outputs

__all__ = ["Run", "main", "prepare", "train"]


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


def main(config_paths: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Entry of `asecalc train`."""
    print(train(load_config(config_paths, overrides)))


def train(config: TrainConfig) -> Any:
    """Train a model and write everything about it into `config.run.output`.

    Returns
    -------
    training.results.TrainingResult
        Test errors and where the files are.

    Raises
    ------
    InputError, DataError
        Before anything is written, for settings or data that cannot be used; and when the loss is no longer a number.
    """

    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    run = prepare(config)
    average = fit(run)
    # Imported late: figures need matplotlib, which a run without results does not.
    from training.results import finish

    return finish(run, average)


def prepare(config: TrainConfig) -> Run:
    """Read, check, split and build; the output folder gets config.yaml and split.json."""
    frames = _read(config)
    folder = _claim_folder(config)
    split = _split(config, folder, len(frames))
    training = [frames[i] for i in split.train]
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
    data = FramesDataModule(
        frames,
        split,
        labels=list(_weights(config.loss)),
        cutoff=potential.cutoff,
        folder=folder,
        batch_size=config.run.batch_size,
        seed=config.run.seed,
    )
    n_parameters = sum(p.numel() for p in potential.parameters())
    print(f"{config.model.architecture} with {n_parameters} parameters, cutoff {potential.cutoff} Å; output in {folder}")
    return Run(config, folder, frames, split, e0, potential, data)


def fit(run: Run) -> AveragedWeights:
    """Fit until max_epochs, early stop or interruption; the state is in last.ckpt."""
    config = run.config
    weights = _weights(config.loss)
    adapter = PotentialAdapter(run.potential, forces="forces" in weights, stress="stress" in weights)
    task = TrainingTask(adapter, make_outputs(config.loss), config.optimizer, config.run.max_epochs)
    average = AveragedWeights(run.potential, config.optimizer.ema_decay)
    checkpoint = LastCheckpoint(run.folder)
    callbacks: list[pl.Callback] = [average, RunLog(run.folder, progress=config.run.progress), checkpoint]
    if config.run.early_stop is not None:
        callbacks.append(pl.callbacks.EarlyStopping("val_loss", patience=config.run.early_stop, mode="min"))
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
    with warnings.catch_warnings():
        # Samples are in memory and every metric is over whole epochs; Lightning's advice on workers does not apply.
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        trainer.fit(task, datamodule=run.data, ckpt_path=_readable(checkpoint.path), weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return average


def _read(config: TrainConfig) -> list[Atoms]:
    data = config.data
    if not data.train:
        raise InputError("data.train is empty; name the file with the labelled structures, e.g. data.train=train.xyz")
    frames = read_frames(
        data.train,
        energy_key=data.energy_key,
        forces_key=data.forces_key,
        stress_key=data.stress_key,
        energy_unit=data.energy_unit,
        length_unit=data.length_unit,
    )
    counts = census(frames)
    print(f"{data.train}: {counts}")
    counts.require(_weights(config.loss))
    return frames


def _claim_folder(config: TrainConfig) -> Path:
    folder = Path(config.run.output)
    saved = folder / "config.yaml"
    if saved.exists():
        before = yaml.safe_load(saved.read_text())
        changed = _differences(before, config.to_dict())
        if changed:
            raise InputError(
                f"{folder} holds a run with other settings: {'; '.join(changed)}. Choose another run.output, or use "
                "the same settings to continue it"
            )
        print(f"continuing the run in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    saved.write_text(yaml.safe_dump(config.to_dict(), sort_keys=False))
    return folder


def _readable(path: Path) -> Path | None:
    """The checkpoint to continue from, if there is one."""
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  damaged archives raise many kinds
        raise InputError(
            f"{path} cannot be read ({str(error).splitlines()[0][:120]}). Delete it to start this run anew, or put a copy "
            "of it back"
        ) from None
    return path


# What may change between two parts of one run without making it another run.
_FREE = {"run.max_epochs", "run.threads", "run.device", "run.progress", "run.output", "run.name", "run.licence"}
_FREE |= {"run.early_stop", "data.test", "data.source", "data.level_of_theory"}


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [_differences(before.get(k), now.get(k), f"{prefix}.{k}".lstrip(".")) for k in {**before, **now}]
        return [line for part in parts for line in part]
    return [] if before == now or prefix in _FREE else [f"{prefix} was {before}, is {now}"]


def _split(config: TrainConfig, folder: Path, n_frames: int) -> Split:
    path = folder / "split.json"
    if config.data.split_file is not None:
        split = Split.load(config.data.split_file, n_frames)
    elif path.exists():
        split = Split.load(path, n_frames)
    else:
        split = make_split(n_frames, config.data.n_train, config.data.n_val, seed=config.data.split_seed)
    split.save(path)
    print(f"split: {len(split.train)} train, {len(split.val)} validation, {len(split.test)} test")
    return split


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


def summary(folder: str | Path) -> dict[str, Any]:
    """summary.json of a finished run."""
    return json.loads((Path(folder) / "summary.json").read_text())
