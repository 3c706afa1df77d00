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
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from asecalc_mlip.errors import InputError
from asecalc_mlip.files import locked
from asecalc_mlip.logs import LOGGER
from training.callbacks import AveragedWeights, EarlyStop, LastCheckpoint, RunLog, StopSignals
from training.config import TrainConfig, label_weights, load_config
from training.losses.weak import list_skin
from training.prepare import Run, device_of, prepare
from training.task import PotentialAdapter, TrainingTask, make_outputs

__all__ = ["Run", "Stopped", "fit", "main", "prepare", "run_config", "train"]


class Stopped(KeyboardInterrupt):
    """A run that a signal ended at the end of an epoch; the checkpoint is written."""

    def __init__(self, folder: Path, number: int):
        super().__init__(f"stopped; run the same command again to continue from {folder / 'last.ckpt'}")
        self.signal = number


def main(config_paths: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Entry of `asecalc train`; see `run_config`."""
    run_config(load_config(config_paths, overrides))


def run_config(config: TrainConfig) -> None:
    """Train and print the result; exits with 128 + signal when a signal ended the run."""
    try:
        LOGGER.info(repr(train(config)))
    except Stopped as stop:
        LOGGER.warning(str(stop))
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        LOGGER.warning("interrupted; run the same command again to continue from the last checkpoint")
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


def fit(run: Run, watchers: Sequence[pl.Callback] = ()) -> AveragedWeights:
    """Fit until max_epochs, early stop or a signal; the state is in last.ckpt."""
    config = run.config
    weights = label_weights(config.loss)
    adapter = PotentialAdapter(
        run.potential,
        forces="forces" in weights,
        stress="stress" in weights,
        weak=run.weak,
        reach=run.potential.cutoff + list_skin(config.weak),
    )
    outputs = make_outputs(config.loss, run.weak)
    task = TrainingTask(
        adapter, outputs, config.optimizer, config.run.max_epochs, config.weak, config.finetune.layer_decay
    )
    average = AveragedWeights(run.potential, config.optimizer.ema_decay)
    checkpoint, signals = LastCheckpoint(run.folder), StopSignals()
    callbacks: list[pl.Callback] = [average, RunLog(run.folder, progress=config.run.progress), checkpoint, signals]
    if config.run.early_stop is not None:
        callbacks.append(EarlyStop(average, config.run.early_stop))
    callbacks += watchers
    saved = _readable(checkpoint.path)
    if saved is not None and _is_over(saved, average, config):
        return average
    with _quiet(), signals:
        trainer = pl.Trainer(
            accelerator="cpu" if device_of(config.run.device) == "cpu" else "gpu",
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
    if signals.signal is not None and trainer.current_epoch < config.run.max_epochs:
        raise Stopped(run.folder, signals.signal)
    return average


def _is_over(saved: dict[str, Any], average: AveragedWeights, config: TrainConfig) -> bool:
    """Whether a checkpoint is that of a run with nothing left to do; its weights are in `average` then."""
    state = next(value for name, value in saved["callbacks"].items() if "AveragedWeights" in name)
    done, patience = saved["epoch"] + 1, config.run.early_stop
    if done < config.run.max_epochs and not (patience and saved["epoch"] - state["best_epoch"] >= patience):
        return False
    LOGGER.info(f"nothing left to train after {done} epochs; the results are written anew")
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
