"""Random orders of frames that depend on seed and epoch alone, so that a resumed run sees the same batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

__all__ = ["EpochSampler", "MixedSampler"]


class EpochSampler(Sampler[int]):
    """Random order that depends on seed and epoch alone, so that a resumed run sees the same batches.

    Parameters
    ----------
    size : int
        Number of frames.
    seed : int
    length : int, optional
        Frames per epoch; None means all of them once. Passes follow each other without regard to epochs.
    """

    def __init__(self, size: int, seed: int, length: int | None = None):
        self.size, self.seed, self.epoch = size, seed, 0
        self.length = size if length is None else length

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch, as Lightning tells it before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.length
        return iter(_passes(self.size, self.seed, start, start + self.length))

    def __len__(self) -> int:
        return self.length


class MixedSampler(Sampler[int]):
    """Batches with a fixed share of frames from a second set, both in random order, pass after pass.

    Step k (counted from 0 through all epochs) has ⌊(k + 1) s B⌋ − ⌊k s B⌋ frames of the second set, s being the share
    and B the size of a batch: over many steps their share is s even where s B is no whole number.

    Parameters
    ----------
    sizes : (int, int)
        Frames of the first and of the second set; the indices of the second follow those of the first.
    share : float
        Between 0 and 1.
    batch_size, seed : int
    steps : int, optional
        Batches per epoch; None means one pass over the first set.
    """

    def __init__(self, sizes: tuple[int, int], share: float, batch_size: int, seed: int, steps: int | None = None):
        self.sizes, self.share, self.batch_size, self.seed, self.epoch = sizes, share, batch_size, seed, 0
        self.steps = steps or max(1, math.floor(sizes[0] / (batch_size * (1.0 - share))))

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch, as Lightning tells it before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        start, end = self.epoch * self.steps, (self.epoch + 1) * self.steps
        # Of the second set before each step, and of the first what is left of the batches.
        second = [math.floor(k * self.share * self.batch_size + 1e-9) for k in range(start, end + 1)]
        first = [k * self.batch_size - n for k, n in zip(range(start, end + 1), second, strict=True)]
        ours = iter(_passes(self.sizes[0], self.seed, first[0], first[-1]))
        others = iter(_passes(self.sizes[1], self.seed + 1, second[0], second[-1]))
        for k in range(self.steps):
            yield from (next(ours) for _ in range(first[k + 1] - first[k]))
            yield from (self.sizes[0] + next(others) for _ in range(second[k + 1] - second[k]))

    def __len__(self) -> int:
        return self.steps * self.batch_size


def _passes(size: int, seed: int, start: int, end: int) -> list[int]:
    """Return the numbers start to end of an endless row of random passes over `size` frames."""
    if end <= start:
        return []
    numbers = range(start // size, (end - 1) // size + 1)
    order = np.concatenate([np.random.default_rng([seed, k]).permutation(size) for k in numbers])
    first = start - numbers[0] * size
    return order[first : first + end - start].tolist()
