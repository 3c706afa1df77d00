"""Noise of replicas that move on a device: a function of seed, step and atom alone, so nothing of it needs storing.

The generator is Philox4x32-10: ten rounds that scramble a counter (atom, step, call) under a key, here made from the
seed of the replica. Numbers of a step are the same whatever else is in the batch, on any device, and after a restart.

Source: Salmon, Moraes, Dror, Shaw, SC'11 (2011), doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["SeededNoise", "philox"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
# Tells these keys from those of other generators that start from the same seeds.
_STREAM = 0x6D64


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scramble a counter of four 32-bit words under a key of two; all are int64 tensors that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # Products wrap around at 64 bits, and the shift brings the sign along, which the mask takes off.
        one, two = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = ((two >> 32) & _MASK) ^ c1 ^ k0, two & _MASK, ((one >> 32) & _MASK) ^ c3 ^ k1, one & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


class SeededNoise:
    """Standard normal numbers for Langevin replicas.

    Parameters
    ----------
    seeds : sequence of int
        One for each replica.
    sizes : sequence of int
        Number of atoms of each replica.
    device : torch.device
    """

    def __init__(self, seeds: Sequence[int], sizes: Sequence[int], device: torch.device) -> None:
        states = np.array([np.random.SeedSequence([seed, _STREAM]).generate_state(2) for seed in seeds], dtype=np.int64)
        key = torch.from_numpy(np.repeat(states, sizes, axis=0)).to(device)
        self._key = key[:, 0, None], key[:, 1, None]
        atoms = np.concatenate([np.arange(n) for n in sizes])
        self._atom = torch.from_numpy(atoms).to(device)[:, None]
        self._call = torch.arange(2, device=device)

    def block(self, first: Tensor, number: int) -> Tensor:
        """Return the noise of `number` steps, (number, 2, N, 3) float64.

        Parameters
        ----------
        first : (N,) int64
            Number of the first of these steps, for each atom, as replicas may be at different ones.
        number : int
        """
        step = first[None, :, None] + torch.arange(number, device=first.device)[:, None, None]
        words = philox((self._atom, step & _MASK, step >> 32, self._call), self._key)
        # Eight words for six numbers: the middles of 2^32 equal parts of (0, 1).
        uniform = (torch.stack(words, dim=-1).flatten(2).double() + 0.5) * 2.0**-32
        radius, angle = (-2.0 * uniform[..., :3].log()).sqrt(), 2.0 * math.pi * uniform[..., 3:6]
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
