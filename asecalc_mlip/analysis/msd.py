"""Mean squared displacement and the diffusion coefficient.

MSD(t) = < | r_i(t0 + t) − r_i(t0) |² >    over atoms i and time origins t0
D      = lim MSD(t) / 6t                   a straight line through MSD(t) in a range of t

1 Å²/ps = 1e-4 cm²/s
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np

from asecalc_mlip.analysis.frames import Select, as_list, masses_of, selection, unwrapped
from asecalc_mlip.errors import InputError

LAGS = 200
MAX_BLOCKS = 8


@dataclass(frozen=True)
class Diffusion:
    """Diffusion coefficient from a straight line through the MSD.

    Attributes
    ----------
    D, error : float
        Å²/ps; the error is that of the mean over blocks of time origins, NaN for fewer than two.
    fit_ps : (float, float)
        Range of times of the line.
    exponent : float
        Slope of log MSD against log t there; 1 for diffusion, 2 for free flight, 0 for a solid.
    n_blocks : int
        Number of blocks.
    """

    D: float
    error: float
    fit_ps: tuple[float, float]
    exponent: float
    n_blocks: int

    @property
    def D_cm2_s(self) -> float:
        """cm²/s."""
        return self.D * 1e-4

    def to_dict(self) -> dict:
        """Return plain numbers, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        kind = "" if 0.8 <= self.exponent <= 1.2 else f"; MSD grows as t^{self.exponent:.2f}: not diffusion (yet)"
        return (
            f"Diffusion({self.D:.4g} ± {self.error:.2g} Å²/ps = {self.D_cm2_s:.3g} cm²/s, from {self.fit_ps[0]:g} to "
            f"{self.fit_ps[1]:g} ps{kind})"
        )


@dataclass(frozen=True, repr=False)
class MSD:
    """Mean squared displacement.

    Attributes
    ----------
    time_ps : (n_lags,) array
    values : (n_lags,) array
        Å².
    blocks : (n_blocks, n_lags) array
        Å²: the same from parts of the time origins; NaN where a part has none.
    n_frames, n_atoms : int
        How much went into it.
    """

    time_ps: np.ndarray
    values: np.ndarray
    blocks: np.ndarray
    n_frames: int
    n_atoms: int

    @property
    def error(self) -> np.ndarray:
        """(n_lags,) array, Å²: standard error over the blocks; NaN for fewer than two."""
        n = np.sum(np.isfinite(self.blocks), axis=0)
        mean = np.nansum(self.blocks, axis=0) / np.maximum(n, 1)
        squares = np.nansum((self.blocks - mean) ** 2, axis=0)
        return np.sqrt(np.where(n > 1, squares / np.maximum(n * (n - 1), 1), np.nan))

    def diffusion(self, fit_ps: tuple[float, float] | None = None) -> Diffusion:
        """Fit the diffusion coefficient in three dimensions from the slope in `fit_ps` (default: the second half).

        Raises
        ------
        InputError
            Fewer than three points in that range.
        """
        low, high = fit_ps or (0.5 * self.time_ps[-1], self.time_ps[-1])
        inside = (self.time_ps >= low) & (self.time_ps <= high)
        if inside.sum() < 3:
            span = f"{self.time_ps[0]:g} to {self.time_ps[-1]:g}"
            raise InputError(f"from {low:g} to {high:g} ps the MSD has fewer than three points; it goes from {span} ps")
        t = self.time_ps[inside]
        whole = [b for b in self.blocks[:, inside] if np.isfinite(b).all()]
        slopes = [np.polyfit(t, b, 1)[0] / 6.0 for b in whole]
        error = float(np.std(slopes, ddof=1) / np.sqrt(len(slopes))) if len(slopes) > 1 else float("nan")
        logs = np.log(np.maximum(self.values[inside], 1e-300))
        exponent = float(np.polyfit(np.log(t), logs, 1)[0])
        D = float(np.polyfit(t, self.values[inside], 1)[0]) / 6.0
        return Diffusion(D, error, (float(low), float(high)), exponent, len(slopes))

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON."""
        error = [None if np.isnan(e) else float(e) for e in self.error]
        return {
            "time_ps": self.time_ps.tolist(),
            "msd_A2": self.values.tolist(),
            "error_A2": error,
            "n_frames": self.n_frames,
            "n_atoms": self.n_atoms,
        }

    def __repr__(self) -> str:
        return (
            f"MSD({self.n_atoms} atoms, {self.n_frames} frames, {self.values[-1]:.4g} ± {self.error[-1]:.2g} Å² at "
            f"{self.time_ps[-1]:g} ps; .diffusion() for D)"
        )


def msd(
    frames: np.ndarray | Iterable,
    *,
    dt_fs: float,
    select: Select = None,
    masses: np.ndarray | None = None,
    cell: np.ndarray | None = None,
    max_lag: int | None = None,
) -> MSD:
    """Take the mean squared displacement over all time origins, unwrapped, without the motion of the centre of mass.

    Parameters
    ----------
    frames : array or iterable
        (n_frames, n_atoms, 3) array in Å, or an iterable of such frames or of `ase.Atoms`. With `max_lag` given they
        are read one by one and only `max_lag` frames are kept; otherwise all.
    dt_fs : float
        Time between two *frames* in fs (time step × interval).
    select : str or sequence of int, optional
        Atoms that count: an element ("O") or indices; None: all. The centre of mass is that of all atoms.
    masses : (n_atoms,) array
        In u; default: those of the atoms, equal ones for plain arrays.
    cell : (3, 3) array
        Lattice vectors in Å, which makes plain arrays periodic.
    max_lag : int, optional
        Longest time difference in frames; default: a quarter of the frames.

    Raises
    ------
    InputError
        Fewer than four frames, frames of different sizes or without atoms, NaN, a cell without volume.

    Source: Frenkel and Smit, Understanding Molecular Simulation, 2nd ed., section 4.4.
    """
    if not dt_fs > 0:
        raise InputError(f"dt_fs is the time between two frames in fs and must be positive, not {dt_fs}")
    if max_lag is None:
        frames = list(as_list(frames))
        max_lag = max(1, len(frames) // 4)
    if max_lag < 1:
        raise InputError(f"max_lag must be at least one frame, not {max_lag}")
    lags = np.unique(np.linspace(1, max_lag, min(LAGS, max_lag)).astype(int))
    sums, counts, n_frames, n_atoms = _accumulate(as_list(frames), lags, select, masses, cell)
    if n_frames < 4 or n_frames <= max_lag:
        raise InputError(f"an MSD up to a lag of {max_lag} frames needs more than {max(3, max_lag)}, not {n_frames}")
    blocks = _merge(sums, counts, n_atoms)
    total = sums.sum(axis=0) / (counts.sum(axis=0) * n_atoms)
    return MSD(lags * dt_fs * 1e-3, total, blocks, n_frames, n_atoms)


def _accumulate(frames, lags: np.ndarray, select, masses, cell) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Return sums of squared displacements and numbers of origins, (n_segments, n_lags) each, over frames and atoms."""
    frames, length = iter(frames), int(lags[-1]) + 1
    segment = max(1, length // 2)
    sums = counts = np.zeros((1, len(lags)))
    first = next(frames, None)
    if first is None:
        return sums, counts, 0, 1
    weights, index, ring, number = np.zeros(0), np.zeros(0, dtype=int), np.zeros(0), 0
    counts = counts.copy()
    for number, path in enumerate(unwrapped(chain([first], frames), cell)):
        if number == 0:  # its shape is checked by now
            weights, index = masses_of(first, masses), selection(first, select)
            weights, ring = weights / weights.sum(), np.zeros((length, len(index), 3))
        now = ring[number % length] = (path - weights @ path)[index]
        back = lags[: np.searchsorted(lags, min(number, lags[-1]), side="right")]
        rows = (number - back) // segment
        if len(back) and rows[0] >= len(sums):
            sums, counts = (np.concatenate([x, np.zeros((rows[0] + 1 - len(x), len(lags)))]) for x in (sums, counts))
        difference = ring[(number - back) % length] - now
        columns = np.arange(len(back))
        sums[rows, columns] += np.einsum("kij,kij->k", difference, difference)
        counts[rows, columns] += 1
    return sums, counts, number + 1, len(index)


def _merge(sums: np.ndarray, counts: np.ndarray, n_atoms: int) -> np.ndarray:
    """Means by at most MAX_BLOCKS blocks of consecutive segments; NaN where a block has no origin."""
    blocks = []
    for group in np.array_split(np.arange(len(sums)), min(MAX_BLOCKS, len(sums))):
        total, number = sums[group].sum(axis=0), counts[group].sum(axis=0)
        blocks.append(np.where(number > 0, total / np.maximum(number * n_atoms, 1), np.nan))
    return np.array(blocks)
