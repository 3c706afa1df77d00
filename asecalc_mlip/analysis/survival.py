"""How many of many runs are still stable after a time: the survival curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asecalc_mlip.errors import InputError


@dataclass(frozen=True, repr=False)
class Survival:
    """Fraction of runs that are stable, as steps.

    Attributes
    ----------
    time_ps : (n,) array
        From 0; at each later time one or more runs broke, the last is the longest run.
    fraction : (n,) array
        From that time on.
    low, high : (n,) array
        95 % confidence limits.
    n_runs, n_broken : int
        Counts.
    """

    time_ps: np.ndarray
    fraction: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_runs: int
    n_broken: int

    @property
    def median_ps(self) -> float | None:
        """Time at which half of the runs have broken; None if more survive."""
        below = np.flatnonzero(self.fraction <= 0.5)
        return float(self.time_ps[below[0]]) if len(below) else None

    def at(self, time_ps: float) -> float:
        """Return the fraction still stable at a time."""
        return float(self.fraction[np.searchsorted(self.time_ps, time_ps, side="right") - 1])

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("time_ps", "fraction", "low", "high")}
        return {**arrays, "n_runs": self.n_runs, "n_broken": self.n_broken, "median_ps": self.median_ps}

    def __repr__(self) -> str:
        end = f"{100 * self.fraction[-1]:.0f} % ({100 * self.low[-1]:.0f} to {100 * self.high[-1]:.0f})"
        half = "" if self.median_ps is None else f", half broken at {self.median_ps:g} ps"
        return f"Survival({self.n_runs} runs, {self.n_broken} broke; {end} stable at {self.time_ps[-1]:g} ps{half})"


def survival(stable_ps: Sequence[float], broken: Sequence[bool]) -> Survival:
    """Take the survival curve of runs, some of which ended before they broke.

    S(t) = Π over times t_i ≤ t of (1 − d_i / n_i), with d_i runs that broke at t_i of n_i that still ran. The limits
    are Wilson's, which do not collapse to a point when no run or every run broke.

    Parameters
    ----------
    stable_ps : sequence of float
        (n,) times, ps: of breaking, or of the end of a run that did not break.
    broken : sequence of bool
        (n,) whether it broke.

    Raises
    ------
    InputError
        No runs, lengths that differ, or negative times.

    Source: Kaplan and Meier, J. Am. Stat. Assoc. 53, 457 (1958); Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    times, gone = np.asarray(stable_ps, dtype=float), np.asarray(broken, dtype=bool)
    if times.ndim != 1 or len(times) == 0 or times.shape != gone.shape or not (times >= 0).all():
        raise InputError(f"a survival curve needs times ≥ 0 and as many marks, not {times.shape} and {gone.shape}")
    points, fractions, share = [0.0], [1.0], 1.0
    for time in np.unique(times[gone]):
        share *= 1.0 - np.sum(gone & (times == time)) / np.sum(times >= time)
        points.append(float(time))
        fractions.append(share)
    if times.max() > points[-1]:
        points.append(float(times.max()))
        fractions.append(share)
    at_risk = np.array([np.sum((times >= t) | gone) for t in points])  # those that left unbroken tell no more
    low, high = _wilson(np.array(fractions), at_risk)
    return Survival(np.array(points), np.array(fractions), low, high, len(times), int(gone.sum()))


def _wilson(fraction: np.ndarray, n: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    centre = (fraction + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(fraction * (1 - fraction) / n + z**2 / (4 * n**2))
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)
