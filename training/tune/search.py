"""`asecalc tune`: a search of the coefficients of weak supervision, or of other settings, with Optuna.

Trial 0 has the given settings, without weak supervision where settings of that are searched; each further one has
values that a tree-structured Parzen estimator chose (Bergstra et al., NeurIPS 2011). They are compared by the lowest
validation loss of the supervised losses. All of a search is in its folder: it can be killed at any time, and the same
command continues the training that was cut off from its checkpoint. The sampler is seeded anew for each trial, so an
interrupted search proposes what an uninterrupted one does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.locks import locked
from asecalc_mlip.logs import LOGGER, into
from training.config import TrainConfig, load_config, replace_values
from training.data.split import split_structures
from training.run.callbacks import LastSignal
from training.run.length import replay_share, with_length
from training.run.useless import without_useless
from training.train import Stopped, train
from training.tune.shared import take_labels
from training.tune.space import Parameter, make_space
from training.tune.storage import TrialState, open_study, optuna, quiet_optuna, sampler, stored
from training.tune.trials import TrialRecord, TuneResult, trial_folder, trial_values

__all__ = ["main", "tune"]


class _Pruned(Exception):
    """Raised inside a training that is worse than most were at its epoch."""


class _OutOfTime(Exception):
    """Raised inside a training when the time of the search is over; the checkpoint is written."""


def main(
    configs: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    space: Sequence[str] = (),
    trials: int = 20,
    timeout: float | None = None,
    output: str = "runs/tune",
    prune: bool = True,
) -> None:
    """Search as `asecalc tune` does; exit with 128 + signal when a signal ended the search."""
    try:
        # What older versions began with it goes on.
        if any(t.partition("=")[0] == "run.output" for t in overrides) and not (Path(output) / "study.db").exists():
            raise InputError("run.output has no effect in a search, whose folder is that of -o DIR: leave it out")
        config = load_config(configs, overrides)
        result = tune(config, space, trials=trials, timeout=timeout, output=output, prune=prune)
        LOGGER.info(repr(result))
    except KeyboardInterrupt as stop:
        LOGGER.warning("stopped; run the same command again to continue")
        sys.exit(128 + getattr(stop, "signal", 2))


def tune(
    config: TrainConfig,
    space: Sequence[str] = (),
    *,
    trials: int = 20,
    timeout: float | None = None,
    output: str | Path = "runs/tune",
    prune: bool = True,
) -> TuneResult:
    """Search, or continue a search, until `output` holds so many trials.

    Parameters
    ----------
    config : TrainConfig
        Settings of every trial; `run.seed` seeds the sampler too. `run.output` is not used: best.yaml trains in the
        folder best.
    space : sequence of str
        What is varied, KEY=LOW:HIGH[:log] or KEY=A,B,C; the coefficients of `weak.method` if empty.
    trials : int
        In all, the plain training included.
    timeout : float, optional
        Minutes after which this call ends, at the end of an epoch.
    output : str or Path
        Folder of the search.
    prune : bool
        End trials that after half of the epochs are worse than the median of the others at the same epoch.

    Raises
    ------
    InputError
        For settings that cannot be used, and a folder that holds another search.
    training.train.Stopped
        After SIGINT or SIGTERM.
    """
    if trials < 2:
        raise InputError(f"--trials is {trials}; expected at least 2, the plain training and one to compare it with")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise InputError(f"--timeout is {timeout} minutes; expected a number above 0")
    parameters, config = make_space(space, _with_length(config))
    folder = Path(output)
    with locked(folder, "-o"), quiet_optuna(), stored(folder):
        study = open_study(config, parameters, folder)
        deadline = None if timeout is None else time.monotonic() + 60 * timeout
        search = _Search(config, parameters, folder, study, trials, deadline, prune)
        LOGGER.info(f"{config.weak.method}: {', '.join(map(str, parameters))}; {trials} trials in {folder}")
        while search.step():
            search.result().write()
        result = search.result()
        result.write()
        return result


def _with_length(config: TrainConfig) -> TrainConfig:
    """Return the settings with a length in epochs, the same for all trials."""
    if config.run.time is not None:
        raise InputError("run.time gives trials unlike lengths; set run.max_epochs, and --timeout for the whole search")
    if config.run.max_epochs is not None:
        return config
    if not config.data.train:
        raise InputError("data.train is empty; name the file with the labelled structures, e.g. data.train=train.xyz")
    frames = read_frames(config.data.train, **config.data.reading())
    n_train = len(split_structures(frames, config.data).train)
    if config.pretrain.teacher is not None:
        n_train *= config.pretrain.rounds
    run = with_length(config.run, n_train, replay=replay_share(config))
    return replace_values(config, {"run.max_epochs": run.max_epochs, "run.steps_per_epoch": run.steps_per_epoch})


@dataclass
class _Search:
    """A search that is under way."""

    config: TrainConfig
    parameters: list[Parameter]
    folder: Path
    study: optuna.Study
    n_trials: int
    deadline: float | None
    prune: bool

    def step(self) -> bool:
        """Run the next trial, or the one that was cut off; False when there is none, or no time for it."""
        known = self.study.get_trials(deepcopy=False)
        cut = [t for t in known if t.state == TrialState.RUNNING]
        if (not cut and len(known) >= self.n_trials) or self._late():
            return False
        number = cut[0].number if cut else len(known)
        self.study.sampler = sampler(self.config.run.seed, number, len(self.parameters))
        # Optuna has no public way back to a trial that a dead process left.
        trial = optuna.Trial(self.study, cut[0]._trial_id) if cut else self.study.ask()
        values = {} if number == 0 else {p.key: p.suggest(trial) for p in self.parameters}
        seen = set(cut[0].intermediate_values) if cut else set()
        self._say(number, values, bool(cut))
        return self._run(trial, values, _Watch(trial, seen, self.prune and number > 0, self.deadline))

    def result(self) -> TuneResult:
        """Return the trials so far."""
        records = [
            TrialRecord.read(
                self.folder,
                trial.number,
                "failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
                trial.params,
                trial.user_attrs.get("note", ""),
            )
            for trial in self.study.get_trials(deepcopy=False)
        ]
        return TuneResult(self.config, self.parameters, records, self.folder)

    def _run(self, trial: optuna.Trial, values: dict[str, Any], watch: _Watch) -> bool:
        first, folder = (trial_folder(self.folder, number) for number in (0, trial.number))
        changes = {**trial_values(trial.number, values, self.parameters), "run.output": str(folder)}
        take_labels(first, folder, self.config, values)
        state = TrialState.COMPLETE
        try:
            with self._talk(trial.number):
                # Of a search that an older version began, or where a searched setting makes another one useless.
                train(without_useless(replace_values(self.config, changes)), [watch])
        except _Pruned:
            state = TrialState.PRUNED
        except _OutOfTime:
            return False
        except InputError as error:
            if not _is_of_this_trial(error, trial.number):
                raise
            trial.set_user_attr("note", str(error).partition(". ")[0])
            state = TrialState.FAIL
        self._tell(trial, values, state)
        if watch.signal is not None:  # that came in the last epoch
            raise Stopped(self.folder, watch.signal)
        return True

    def _tell(self, trial: optuna.Trial, values: dict[str, Any], state: TrialState) -> None:
        record = TrialRecord.read(self.folder, trial.number, state.name.lower(), values)
        self.study.tell(trial, record.loss if state == TrialState.COMPLETE else None, state=state)
        errors = "".join(f", {name.replace('_', ' ')} {value:.1f}" for name, value in record.mae.items())
        result = self.result()
        best = "" if result.best is None else f"; best so far {result.best.loss:.4g} of trial {result.best.number}"
        loss = "none" if record.loss is None else f"{record.loss:.4g}"
        LOGGER.info(f"  {state.name.lower()}: validation loss {loss}{errors}, {record.seconds:.0f} s{best}")

    def _say(self, number: int, values: dict[str, Any], cut: bool) -> None:
        what = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        times = [t.seconds for t in self.result().trials if t.state in ("complete", "pruned")]
        left = f", about {np.mean(times) * (self.n_trials - number) / 60:.0f} min left" if times else ""
        saved = (trial_folder(self.folder, number) / "last.ckpt").exists()
        again = (", continued" if saved else ", begun again") * cut
        LOGGER.info(f"trial {number} ({number + 1} of {self.n_trials}{again}{left}): {what or self.result().first}")

    @contextmanager
    def _talk(self, number: int) -> Iterator[None]:
        """Send the messages of trials after the first into tune.log: what they say about the data is the same."""
        with (self.folder / "tune.log").open("a", encoding="utf-8") as log:
            with nullcontext() if number == 0 else into(log):
                yield

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline


class _Watch(LastSignal):
    """Tells Optuna the validation loss of each epoch, and ends trainings that are hopeless or out of time."""

    def __init__(self, trial: optuna.Trial, seen: set[int], prunable: bool, deadline: float | None):
        self.trial, self.seen, self.prunable, self.deadline = trial, seen, prunable, deadline
        self._end: type[Exception] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Report, and ask for the end if it is time; the checkpoint is written after this."""
        epoch, loss = trainer.current_epoch, float(trainer.callback_metrics["val_loss"])
        if epoch not in self.seen and np.isfinite(loss):
            self.trial.report(loss, epoch)
        if trainer.should_stop or epoch + 1 == trainer.max_epochs:
            return
        if self.prunable and self.trial.should_prune():
            self._end = _Pruned
        elif self.deadline is not None and time.monotonic() >= self.deadline:
            self._end = _OutOfTime
        if self._end is not None:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Leave the training without the results of a whole one."""
        super().on_train_end(trainer)
        if self._end is not None:
            raise self._end


def _is_of_this_trial(error: InputError, number: int) -> bool:
    """Return whether the next trial may do better: not after a full disk, nor where the plain training fails."""
    if number == 0 or isinstance(error.__cause__, OSError):
        return False
    return isinstance(error, DataError) or number > 1
