"""Some of many frames, evenly over their order: what checks, fits and figures look at where all would take long."""

from __future__ import annotations

import numpy as np

__all__ = ["evenly"]


def evenly(n: int, most: int) -> list[int]:
    """Return the places of at most `most` of n frames, from the first to the last, ascending."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()
