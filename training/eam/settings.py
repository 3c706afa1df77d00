"""Settings of the fit of an EAM, with the published values as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from asecalc_mlip.errors import InputError

__all__ = ["FitSettings"]

# Gradient steps of a fit that says nothing of its length, and the epochs that it has at least and at most: 30 frames
# need some 1500 epochs, of which 1160 would take an hour.
STEPS, FEWEST, MOST = 12_000, 60, 3000
STRESS_WEIGHT = 50.0


@dataclass(frozen=True)
class FitSettings:
    """How an EAM is fitted; a fit is only continued with the settings it was begun with.

    Attributes
    ----------
    cutoff : float
        Å.
    n_exponentials : int
        Exponentials in the density of each pair of elements.
    core : {"zbl"} or None
    density : bool
        False fits a Morse potential, to compare with.
    epochs : int or None
        None: as many as make about 12 000 gradient steps, at least 60 and at most 3000; see `whole`.
    batch_size, seed : int
    lr, weight_decay : float
        Of AdamW. The parameters are physical quantities, which have no reason to be near zero: no decay.
    clip : float
        Largest norm of the gradient.
    plateau_factor, plateau_patience
        The rate falls by the factor when the loss has not for so many epochs.
    energy_weight : float
        Per eV per atom.
    forces_weight : float
        Per eV/Å.
    stress_weight : float or None
        Per eV/Å³. None: 50 for the frames that have a stress; a weight above 0 that is given needs such frames.
    """

    cutoff: float = 8.0
    n_exponentials: int = 10
    core: Literal["zbl"] | None = None
    density: bool = True
    epochs: int | None = None
    batch_size: int = 4
    seed: int = 0
    lr: float = 2e-3
    weight_decay: float = 0.0
    clip: float = 10.0
    plateau_factor: float = 0.8
    plateau_patience: int = 10
    energy_weight: float = 0.01
    forces_weight: float = 50.0
    stress_weight: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "clip", "cutoff", "n_exponentials"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} is {value}; expected a number above 0")
        weights = (self.energy_weight, self.forces_weight, self.stress_weight or 0.0)
        if min(weights) < 0 or self.energy_weight + self.forces_weight == 0:
            raise InputError(f"the weights are {weights}; expected 0 or more, and energy or forces above 0")

    def whole(self, n_frames: int) -> FitSettings:
        """Return the settings with what they leave open: epochs by the number of frames, the weight of the stress."""
        weight = STRESS_WEIGHT if self.stress_weight is None else self.stress_weight
        steps = math.ceil(n_frames / self.batch_size)
        epochs = self.epochs or min(MOST, max(FEWEST, math.ceil(STEPS / steps)))
        return replace(self, epochs=epochs, stress_weight=weight)
