"""One training run: data, census, split, fit, test errors, figures and the .pt file.

Run again with the same settings, it continues from the last checkpoint; a finished run only writes its results anew.
Ctrl-C and SIGTERM end a run at the end of its epoch, with a checkpoint.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from asecalc_mlip.errors import InputError
from asecalc_mlip.file_format import archive
from asecalc_mlip.locks import locked
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.quantities import seconds_of
from training.config import TrainConfig, label_weights
from training.losses.methods import list_skin
from training.prepare import Run, device_of, prepare
from training.pretrain.difference import learn_difference
from training.processes.ranks import Environment, OneMessage, Rank, Workers, take_rows
from training.results.card import save_model
from training.results.final_shift import shift_reference_energies
from training.run.callbacks import (
    AveragedWeights,
    BestModel,
    EarlyStop,
    LastCheckpoint,
    LastSignal,
    StopSignals,
    StopTogether,
    TimeBudget,
)
from training.run.log import RunLog
from training.settings import RunConfig
from training.task import PotentialAdapter, TrainingTask, make_outputs

__all__ = ["Run", "Stopped", "fit", "prepare", "set_threads", "train", "train_before"]


class Stopped(KeyboardInterrupt):
    """A run that a signal ended at the end of an epoch; the checkpoint and the best model so far are written."""

    def __init__(self, folder: Path, number: int, model: Path | None = None):
        best = "" if model is None else f" with the best model so far in {model}"
        super().__init__(f"stopped{best}; run the same command again to continue from {folder / 'last.ckpt'}")
        self.signal, self.model = number, model


def train(config: TrainConfig, callbacks: Sequence[pl.Callback] = ()) -> Any:
    """Train a model and write everything about it into `config.run.output`.

    Parameters
    ----------
    config : TrainConfig
    callbacks : sequence of Callback
        To watch the run; they come after its own, and what they raise ends it without results.

    Returns
    -------
    training.results.finish.TrainingResult
        Test errors and where the files are.

    Raises
    ------
    InputError, DataError
        Before anything is written, for settings or data that cannot be used; when the loss is no longer a number; and
        when the disk is full or a signal ends one of several processes: what was written before stays as it is.
    Stopped
        After SIGINT or SIGTERM.
    """
    set_threads(config.run)
    with locked(Path(config.run.output)):
        if config.pretrain.correct:
            learn_difference(config, train_before)
        run = prepare(config)
        try:
            with Workers(run.folder, config.run.devices, on_cpu=device_of(config.run.device) == "cpu") as workers:
                average = fit(run, callbacks, rank=workers.rank)
        except Stopped as stop:
            if stop.model is not None and config.model.final_shift:
                shift_reference_energies(run, stop.model)
            raise
        # Imported late: figures need matplotlib, which a run without results does not.
        from training.results.finish import finish

        return finish(run, average)


def train_before(config: TrainConfig) -> None:
    """Train a model as `train` does, after which a training goes on: a signal in the last epoch ends that as well.

    Raises
    ------
    Stopped
        After SIGINT or SIGTERM, whenever it comes.
    """
    watch = LastSignal()
    train(config, [watch])
    if watch.signal is not None:
        raise Stopped(Path(config.run.output), watch.signal)


def set_threads(settings: RunConfig) -> None:
    """Take the threads that are asked for; without a number, processes on one CPU divide torch's choice."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    elif settings.devices > 1 and device_of(settings.device) == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // settings.devices))


def fit(run: Run, watchers: Sequence[pl.Callback] = (), *, rank: Rank = Rank()) -> AveragedWeights:  # noqa: B008
    """Fit until max_epochs, the end of the time, early stop or a signal; the state is in last.ckpt.

    The model file is written when the validation loss is the lowest so far. Of several processes only the first writes.
    """
    config = run.config
    budget = TimeBudget(None if config.run.time is None else seconds_of(config.run.time))
    average = AveragedWeights(run.potential, config.optimizer.ema_decay)
    checkpoint, signals = LastCheckpoint(run.folder), StopSignals()
    best = BestModel(average, lambda: save_model(run, average))
    saved = _readable(checkpoint.path)
    if saved is not None and _is_over(saved, average, budget, config):
        return average
    callbacks: list[pl.Callback] = [average, budget, checkpoint, signals]
    if rank.number == 0:
        callbacks.append(RunLog(run.folder, progress=config.run.progress, budget=budget))
    if config.run.early_stop is not None:
        callbacks.append(EarlyStop(average, config.run.early_stop))
    callbacks += [*watchers, StopTogether()]
    with _quiet(), signals:
        trainer = _trainer(run, [*callbacks, best] if rank.number == 0 else callbacks, rank)
        path = None if saved is None else checkpoint.path
        try:
            trainer.fit(_task(run, budget, rank), datamodule=run.data, ckpt_path=path, weights_only=True)
        finally:
            # A training that ends within an epoch leaves the place of its last batch.
            take_rows(None)
            if rank.total > 1 and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
    if signals.signal is not None and not (budget.is_over or trainer.current_epoch == config.run.max_epochs):
        raise Stopped(run.folder, signals.signal, run.model if best.written >= 0 else None)
    return average


def _task(run: Run, budget: TimeBudget, rank: Rank) -> TrainingTask:
    config, weights = run.config, label_weights(run.config.loss)
    reach = run.potential.cutoff + list_skin(config.weak)
    adapter = PotentialAdapter(
        run.potential, forces="forces" in weights, stress="stress" in weights, weak=run.weak, reach=reach
    )
    outputs, decay = make_outputs(config.loss, run.weak), config.finetune.layer_decay
    epochs = config.run.max_epochs
    return TrainingTask(adapter, outputs, config.optimizer, epochs, config.weak, decay, budget, rank.link)


def _trainer(run: Run, callbacks: list[pl.Callback], rank: Rank) -> pl.Trainer:
    settings = run.config.run
    device = torch.device(device_of(settings.device))
    on_cpu = device.type == "cpu"
    trainer = pl.Trainer(
        accelerator="cpu" if on_cpu else "gpu",
        # A number of devices is that of the first ones.
        devices=rank.total if on_cpu or device.index is None else [device.index],
        strategy="auto"
        if rank.total == 1
        else OneMessage(cluster_environment=Environment(rank), process_group_backend="gloo" if on_cpu else "nccl"),
        # The data module divides the batches.
        use_distributed_sampler=False,
        max_epochs=-1 if settings.max_epochs is None else settings.max_epochs,
        gradient_clip_val=run.config.optimizer.gradient_clip,
        callbacks=callbacks,
        logger=TensorBoardLogger(run.folder, name="tensorboard", version="") if rank.number == 0 else False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        num_sanity_val_steps=0,
    )
    # Lightning would end the process at a SIGTERM without a checkpoint, and sends a message for it at once and in every
    # step, for which another process may not be waiting. StopSignals and StopTogether look at the end of each epoch.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def _is_over(saved: dict[str, Any], average: AveragedWeights, budget: TimeBudget, config: TrainConfig) -> bool:
    """Return whether a checkpoint is that of a run with nothing left to do; its weights are in `average` then."""
    states = saved["callbacks"]
    state = next(value for name, value in states.items() if "AveragedWeights" in name)
    if used := next((value for name, value in states.items() if "TimeBudget" in name), None):
        budget.load_state_dict(used)
    done, patience, epochs = saved["epoch"] + 1, config.run.early_stop, config.run.max_epochs
    stopped_early = patience is not None and saved["epoch"] - state["best_epoch"] >= patience
    if not (stopped_early or budget.is_over or (epochs is not None and done >= epochs)):
        return False
    LOGGER.info(f"nothing left to train after {done} epochs; the command writes the results again")
    average.load_state_dict(dict(state))
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's advice on workers, loggers and clouds, none of which applies."""
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
    """Return the checkpoint to continue from, if there is one."""
    if not path.exists():
        return None
    try:
        archive.check(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  damaged archives raise many kinds
        raise InputError(
            f"{path} cannot be read ({str(error).splitlines()[0][:120]}). Delete it to start this run again, or put a "
            "copy of it back"
        ) from None
