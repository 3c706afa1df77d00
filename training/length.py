"""How long a training is: given, or chosen by the number of frames, within a time budget."""

from __future__ import annotations

import re
from dataclasses import replace

from asecalc_mlip.errors import InputError
from training.settings import RunConfig

__all__ = ["LARGEST_EPOCH", "MOST_EPOCHS", "MOST_STEPS", "describe", "seconds_of", "steps_of", "with_length"]

# A training that says nothing of its length takes as many epochs as make these steps, and no more epochs than these.
MOST_STEPS, MOST_EPOCHS = 20_000, 500
# Steps; of larger sets an epoch is this part of a pass, so that the schedule and the best model have a fine grid.
LARGEST_EPOCH = 1000
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


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


def steps_of(run: RunConfig, n_train: int, *, replay: float = 0.0) -> int:
    """Return the gradient steps of an epoch."""
    return run.steps_per_epoch or max(1, int(n_train / (run.batch_size * (1.0 - replay))))


def seconds_of(text: str) -> float:
    """Return the seconds of a text such as "30min", "2h" or "1h30min".

    Raises
    ------
    InputError
        For a text of another form, and for no time at all.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)(?![a-z])", text)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != re.sub(r"\s", "", text) or not total > 0:
        raise InputError(f"run.time is {text!r}; expected a time such as 30min, 2h or 1h30min")
    return total


def describe(run: RunConfig, n_train: int, *, replay: float = 0.0) -> str:
    """Return one line about the length of a training, and how to change it."""
    steps = steps_of(run, n_train, replay=replay)
    within = "" if run.time is None else f"within {run.time}"
    if run.max_epochs is None:
        return f"length: epochs of {steps} steps, {within}"
    counted = f"{run.max_epochs} epochs of {steps} steps, {run.max_epochs * steps} in all"
    return f"length: {counted}{', ' * bool(within)}{within}; change it with run.max_epochs or run.time=30min"
