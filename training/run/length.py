"""How long a training is: given, or chosen by the number of frames, within a time budget."""

from __future__ import annotations

from dataclasses import replace

from asecalc_mlip.errors import InputError
from training.config import TrainConfig
from training.settings import RunConfig

__all__ = ["LARGEST_EPOCH", "MOST_EPOCHS", "MOST_STEPS", "describe", "replay_share", "steps_of", "with_length"]

# A training that says nothing of its length takes as many epochs as make these steps, and no more epochs than these.
MOST_STEPS, MOST_EPOCHS = 20_000, 500
# Steps; of larger sets an epoch is this part of a pass, so that the schedule and the best model have a fine grid.
LARGEST_EPOCH = 1000


def with_length(run: RunConfig, n_train: int, *, replay: float = 0.0) -> RunConfig:
    """Return the settings with the length that they leave open.

    Without `max_epochs` a training takes the epochs that make 20 000 gradient steps, at most 500 of them, and of a
    large training set 1000 steps are an epoch. With `time` alone, epochs are not counted: `max_epochs` stays None.

    Parameters
    ----------
    run : RunConfig
    n_train : int
        Frames to train on.
    replay : float
        Share of each batch that comes from elsewhere.
    """
    if run.max_epochs is not None:
        return run
    if run.steps_per_epoch is None and steps_of(run, n_train, replay=replay) > LARGEST_EPOCH:
        run = replace(run, steps_per_epoch=LARGEST_EPOCH)
    if run.time is not None:
        return run
    epochs = MOST_STEPS // steps_of(run, n_train, replay=replay)
    return replace(run, max_epochs=min(MOST_EPOCHS, max(1, epochs)))


def replay_share(config: TrainConfig) -> float:
    """Return the share of each batch that does not come from the training set: replay and structures far from it.

    Raises
    ------
    InputError
        Where nothing is left for the training set.
    """
    far = config.far.share if config.far.teacher is not None or config.far.data is not None else 0.0
    if far + config.finetune.replay >= 1:
        raise InputError(
            f"far.share {far:g} and finetune.replay {config.finetune.replay:g} leave nothing of a batch for the data; "
            "lower them, to 0.1 each for example"
        )
    return far + config.finetune.replay


def steps_of(run: RunConfig, n_train: int, *, replay: float = 0.0) -> int:
    """Return the gradient steps of an epoch."""
    return run.steps_per_epoch or max(1, int(n_train / (run.batch_size * (1.0 - replay))))


def describe(run: RunConfig, n_train: int, *, replay: float = 0.0) -> str:
    """Return one line about the length of a training, and how to change it."""
    steps = steps_of(run, n_train, replay=replay)
    within = "" if run.time is None else f"within {run.time}"
    if run.max_epochs is None:
        return f"length: epochs of {steps} steps, {within}"
    counted = f"{run.max_epochs} epochs of {steps} steps, {run.max_epochs * steps} in all"
    return f"length: {counted}{', ' * bool(within)}{within}; change it with run.max_epochs or run.time=30min"
