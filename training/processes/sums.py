"""Means over the rows of an epoch, on all processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.processes.ranks import mean_over_ranks

__all__ = ["Sums"]


class Sums:
    """Means of numbers over all batches of an epoch, each batch weighted with its rows.

    Nothing is sent before the end: a message in every step would cost more than the numbers.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def add(self, name: str, mean: Tensor | float, rows: int) -> None:
        """Take the mean over the rows of a batch."""
        total, n = self._sums.get(name, (0.0, 0))
        mean = mean.detach().double() if isinstance(mean, Tensor) else mean
        self._sums[name] = (total + mean * rows, n + rows)

    def take(self, device: torch.device) -> dict[str, float]:
        """Return the means by name and begin anew; those that end in "_rmse" are the roots of their means."""
        totals = [torch.as_tensor(total, dtype=torch.float64, device=device) for total, _ in self._sums.values()]
        rows = torch.tensor([n for _, n in self._sums.values()], dtype=torch.float64, device=device)
        totals, rows = mean_over_ranks(torch.stack([torch.stack(totals), rows])).tolist()
        means = {name: t / n for name, t, n in zip(self._sums, totals, rows, strict=True)}
        self._sums = {}
        return {name: math.sqrt(mean) if name.endswith("_rmse") else mean for name, mean in means.items()}
