"""Losses of a training: supervised distances, PITC and PISC, their variants and rivals."""

from training.losses.taylor import PISC, PITC, WeakLoss

__all__ = ["PISC", "PITC", "WeakLoss"]
