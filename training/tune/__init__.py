"""Search for the settings with the lowest validation loss, by Optuna."""

from training.tune.search import main, tune

__all__ = ["main", "tune"]
