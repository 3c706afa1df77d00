"""Parts of the card of a model that others read, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["force_statistics", "temperatures_of"]


def temperatures_of(card: Any) -> tuple[float, float] | None:
    """Return the lowest and highest temperature of the training data in K, or None where the card does not tell.

    Under "temperatures_K", or "temperature_K" of "training_data", as older trainings wrote it.
    """
    if not isinstance(card, Mapping):
        return None
    training = card.get("training_data")
    known = card.get("temperatures_K") or (training if isinstance(training, Mapping) else {}).get("temperature_K")
    numbers = [t for t in np.atleast_1d(known) if isinstance(t, (int, float))] if known is not None else []
    return (float(min(numbers)), float(max(numbers))) if numbers else None


def force_statistics(card: Any) -> tuple[float, float] | None:
    """Return mean and standard deviation of the length of the forces in the training data in eV/Å, or None."""
    known = card.get("training_forces") if isinstance(card, Mapping) else None
    if not (isinstance(known, Mapping) and {"mean", "std"} <= set(known)):
        return None
    return float(known["mean"]), float(known["std"])
