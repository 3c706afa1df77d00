"""Callbacks around the gradient steps: averaged weights, checkpoints, log and progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from asecalc_mlip.files import replacing
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.stopping import SoftStop

__all__ = [
    "AveragedWeights",
    "BestModel",
    "EarlyStop",
    "LastCheckpoint",
    "LastSignal",
    "StopSignals",
    "StopTogether",
    "TimeBudget",
]


class AveragedWeights(pl.Callback):
    """Exponential moving average of the weights; validates with it and remembers the best one.

    The average θ̄ ← d·θ̄ + (1 − d)·θ starts with a smaller d, min(d, (1 + n)/(10 + n)), so that the first steps do not
    linger. Average, best weights and random state are part of every checkpoint.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.module = module
        self.average = [p.detach().clone() for p in module.parameters()]
        self.steps = 0
        self.best: list[Tensor] | None = None
        self.best_loss = float("inf")
        self.best_epoch = -1
        self._raw: list[Tensor] | None = None

    def on_train_start(self, *_: Any) -> None:
        """Follow the weights to where they are trained: a new average and that of a checkpoint are on the CPU."""
        pairs = zip(self.average, self.module.parameters(), strict=True)
        self.average = [average.to(parameter.device) for average, parameter in pairs]

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the average."""
        self.steps += 1
        weight = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.decay > 0 else 1.0
        torch._foreach_lerp_(self.average, [p.detach() for p in self.module.parameters()], weight)

    def on_validation_start(self, *_: Any) -> None:
        """Put the average in place of the weights."""
        self._raw = [p.detach().clone() for p in self.module.parameters()]
        self.copy_to_module(self.average)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Put the weights back, and keep the average if it is the best so far."""
        loss = trainer.callback_metrics.get("val_loss")
        if not trainer.sanity_checking and loss is not None and float(loss) < self.best_loss:
            self.best_loss, self.best_epoch = float(loss), trainer.current_epoch
            self.best = [p.clone() for p in self.average]
        if self._raw is not None:
            self.copy_to_module(self._raw)
            self._raw = None

    def copy_to_module(self, weights: list[Tensor]) -> None:
        """Write a list of weights into the module."""
        with torch.no_grad():
            for parameter, value in zip(self.module.parameters(), weights, strict=True):
                parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, best weights and torch's random state."""
        names = ("average", "steps", "best", "best_loss", "best_epoch")
        return {**{name: getattr(self, name) for name in names}, "rng": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore all of it."""
        torch.set_rng_state(state.pop("rng").cpu())
        for name, value in state.items():
            setattr(self, name, value)


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Writes last.ckpt at the end of an epoch, at most every `seconds`, and always at the last one.

    The file is replaced in one step: a run killed while writing keeps the one before.
    """

    def __init__(self, folder: Path, *, seconds: float = 30.0):
        self.path = folder / "last.ckpt"
        self.seconds = seconds
        self._written = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write if it is time."""
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = last or time.monotonic() - self._written >= self.seconds
        # Lightning gathers the state of all processes, so they must come together.
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self.write(trainer)

    def write(self, trainer: pl.Trainer) -> None:
        """Write now, on the first of several processes."""
        if trainer.is_global_zero:
            with replacing(self.path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self.path)
        self._written = time.monotonic()


class BestModel(pl.Callback):
    """Writes the model when its average is the best so far, at most every `seconds`: a run that is stopped leaves one.

    Parameters
    ----------
    average : AveragedWeights
    write : callable
        Writes the model file with the weights that the module has then.
    seconds : float
        Between two writings.
    """

    def __init__(self, average: AveragedWeights, write: Callable[[], None], *, seconds: float = 5.0):
        self.average, self.write, self.seconds = average, write, seconds
        self.written = -1
        self._last = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write if there is a better one and it is time."""
        if trainer.should_stop or time.monotonic() - self._last >= self.seconds:
            self.update()

    def on_exception(self, *_: Any) -> None:
        """Write what an interruption would lose."""
        self.update()

    def update(self) -> None:
        """Write the best average, if it has not been yet; the weights of the module stay as they are."""
        average = self.average
        if average.best is None or average.best_epoch == self.written:
            return
        raw = [p.detach().clone() for p in average.module.parameters()]
        average.copy_to_module(average.best)
        try:
            self.write()
        finally:
            average.copy_to_module(raw)
        self.written, self._last = average.best_epoch, time.monotonic()


class TimeBudget(pl.Callback):
    """Ends a training within a time, whatever parts it is cut into, and tells the schedule how much of it is used.

    Parameters
    ----------
    seconds : float or None
        None: no end.
    """

    def __init__(self, seconds: float | None):
        self.seconds = math.inf if seconds is None else seconds
        self.used = self._epoch = 0.0
        self._start = 0.0

    @property
    def fraction(self) -> float:
        """Share of the time that is used, 1 when there is none for another epoch."""
        return 1.0 if self.is_over else self.used / self.seconds

    @property
    def is_over(self) -> bool:
        """Whether another epoch would take too long."""
        return self.used + self._epoch > self.seconds

    def on_train_start(self, *_: Any) -> None:
        """Start the clock."""
        self._start = time.monotonic() - self.used

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Ask for the end if it is time."""
        # By the clock of the first process, if there are several: the schedule goes by it.
        now = trainer.strategy.broadcast(time.monotonic() - self._start)
        self._epoch, self.used = now - self.used, now
        if self.is_over:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds used so far, and those of an epoch."""
        return {"used": self.used, "epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.used, self._epoch = state["used"], state["epoch"]


class EarlyStop(pl.Callback):
    """Ends the run after `patience` epochs without a better validation loss, however it was cut into parts.

    It has no memory of its own: the averaged weights know the best epoch, so another patience counts at once.
    """

    def __init__(self, average: AveragedWeights, patience: int):
        self.average, self.patience = average, patience

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Ask for the end if it is time."""
        if self.is_over(trainer.current_epoch):
            trainer.should_stop = True

    def is_over(self, epoch: int) -> bool:
        """Return whether `epoch` (counted from 0) is the last one."""
        return epoch - self.average.best_epoch >= self.patience


class StopTogether(pl.Callback):
    """Ends a training on several processes for all when one of them is to stop; begins with one random state."""

    def __init__(self) -> None:
        self._state = torch.get_rng_state()

    def setup(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Take the random state of the first process; Lightning seeds anew where there are several."""
        torch.set_rng_state(trainer.strategy.broadcast(self._state))

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Tell the others."""
        trainer.should_stop = trainer.strategy.reduce_boolean_decision(trainer.should_stop, all=False)


class StopSignals(pl.Callback):
    """Turns SIGINT and SIGTERM into an end, with a checkpoint, at the end of the epoch; twice means at once."""

    def __init__(self) -> None:
        self._stop = SoftStop(told=self._tell)

    @property
    def signal(self) -> int | None:
        """The last signal that came."""
        return self._stop.signal

    def __enter__(self) -> StopSignals:
        self._stop.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.__exit__(*exception)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Ask for the end if a signal came."""
        if self.signal is not None:
            trainer.should_stop = True

    @staticmethod
    def _tell(count: int) -> None:
        if count > 1:
            raise KeyboardInterrupt
        LOGGER.warning("stopping at the end of this epoch; again: at once")


class LastSignal(pl.Callback):
    """Keeps the signal of a training whose last epoch it came in, which is then as good as over.

    Attributes
    ----------
    signal : int or None
    """

    signal: int | None = None

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Ask the callback that took it."""
        self.signal = next((c.signal for c in trainer.callbacks if isinstance(c, StopSignals)), None)  # type: ignore[attr-defined]
