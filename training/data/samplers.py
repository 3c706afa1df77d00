"""Random orders of frames that depend on seed and epoch alone, so that a resumed run sees the same batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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
    """Batches with fixed shares of frames from other sets beside the first, all in random order, pass after pass.

    Step k (counted from 0 through all epochs) has ⌊(k + 1) s B⌋ − ⌊k s B⌋ frames of a set with the share s, B being the
    size of a batch: over many steps the share is s even where s B is no whole number.

    Parameters
    ----------
    sizes : sequence of int
        Frames of the first set and of the others; the indices of each follow those of the one before.
    shares : float or sequence of float
        Of the others, between 0 and 1, together less than 1.
    batch_size, seed : int
    steps : int, optional
        Batches per epoch; None means one pass over the first set.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        shares: float | Sequence[float],
        batch_size: int,
        seed: int,
        steps: int | None = None,
    ):
        self.sizes, self.batch_size, self.seed, self.epoch = tuple(sizes), batch_size, seed, 0
        self.shares = (shares,) if isinstance(shares, (int, float)) else tuple(shares)
        self.steps = steps or max(1, math.floor(sizes[0] / (batch_size * (1.0 - sum(self.shares)))))

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch, as Lightning tells it before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        start, end = self.epoch * self.steps, (self.epoch + 1) * self.steps
        # Of the other sets before each step, and of the first what is left of the batches.
        before = [
            [math.floor(k * share * self.batch_size + 1e-9) for share in self.shares] for k in range(start, end + 1)
        ]
        counts = [[k * self.batch_size - sum(n), *n] for k, n in zip(range(start, end + 1), before, strict=True)]
        passes = [iter(_passes(size, self.seed + j, counts[0][j], counts[-1][j])) for j, size in enumerate(self.sizes)]
        offsets = [sum(self.sizes[:j]) for j in range(len(self.sizes))]
        for k in range(self.steps):
            for j, (offset, frames) in enumerate(zip(offsets, passes, strict=True)):
                yield from (offset + next(frames) for _ in range(counts[k + 1][j] - counts[k][j]))

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
