"""Mean and its error of a series whose values are correlated in time."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from asecalc_mlip.errors import InputError

MIN_BLOCKS = 16  # fewer blocks tell too little about their own spread


@dataclass(frozen=True, repr=False)
class BlockAverage:
    """Answer of `block_average`.

    Attributes
    ----------
    mean : float
        Of the series.
    error : float
        Standard error of the mean, correlation allowed for.
    std : float
        Standard deviation of the values themselves.
    inefficiency : float
        How many values count as one independent value, at least 1.
    converged : bool
        Whether the error reached a plateau; if not it is a lower bound, and the series is too short.
    n : int
        Number of values.
    """

    mean: float
    error: float
    std: float
    inefficiency: float
    converged: bool
    n: int

    def to_dict(self) -> dict:
        """Return plain numbers, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        note = "" if self.converged else ", a lower bound: the series is short against its correlation"
        return (
            f"BlockAverage({self.mean:.6g} ± {self.error:.2g}, std {self.std:.3g}, {self.n} values, "
            f"one in {self.inefficiency:.1f} independent{note})"
        )


def block_average(values: np.ndarray) -> BlockAverage:
    """Take the mean of a correlated series and its standard error, pairing neighbours until the error grows no more.

    At each level the values x are replaced by (x_{2i} + x_{2i+1}) / 2, and the naive error of the mean
    s² = var(x) / (n − 1) grows until the blocks are independent. The level taken is the first whose s lies within its
    own error, s / √(2 (n − 1)), of every later one.

    Parameters
    ----------
    values : (n,) array
        Equally spaced in time, n ≥ 4.

    Raises
    ------
    InputError
        Fewer than four values, or values that are not finite.

    Source: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989).
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 4 or not np.isfinite(x).all():
        raise InputError(f"a block average needs at least four finite numbers in one dimension, not shape {x.shape}")
    mean, std, n = float(x.mean()), float(x.std()), len(x)
    errors, spreads = [], []
    while len(x) >= max(2, min(MIN_BLOCKS, n)):
        error = float(np.sqrt(x.var() / (len(x) - 1)))
        errors.append(error)
        spreads.append(error / np.sqrt(2 * (len(x) - 1)))
        x = x[: len(x) // 2 * 2].reshape(-1, 2).mean(axis=1)
    level = _plateau(np.array(errors), np.array(spreads))
    error = errors[level]
    ratio = (error / errors[0]) ** 2 if errors[0] > 0 else 1.0
    return BlockAverage(mean, error, std, max(1.0, ratio), level < len(errors) - 1 or len(errors) == 1, n)


def _plateau(errors: np.ndarray, spreads: np.ndarray) -> int:
    for level in range(len(errors) - 1):
        later = slice(level + 1, None)
        if np.all(errors[later] <= errors[level] + np.hypot(spreads[level], spreads[later])):
            return level
    return len(errors) - 1
