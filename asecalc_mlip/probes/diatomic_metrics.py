r"""Numbers that judge a diatomic curve, as MLIP Arena and Matbench Discovery define them.

    tortuosity              Σ|ΔE| / ( |E(r_min) − E_min| + |E(r_max) − E_min| )                        ideal 1
    conservation deviation  mean |F + dE/dr|, dE/dr by central differences                             ideal 0, eV/Å
    force flips             sign changes of F, |F| < 10 meV/Å dropped                                  ideal 1
    energy jump             Σ over sign changes of ΔE (|ΔE| < 1 meV dropped) of |ΔE_left| + |ΔE_right| ideal 0, eV
    Spearman                rank correlation of E and r left and right of the minimum                  ideal −1, +1

They depend on the grid, which the result therefore states. On a steep wall the differences themselves are off: the
conservation deviation of a perfect model is h²/6·|E'''|, so it is a number to compare models by on one grid, and
`diatomic_flags` uses a better rule to tell whether forces are conservative.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import spearmanr

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.diatomic import STEP, DiatomicCurve

__all__ = ["WALL_LEVELS", "DiatomicMetrics", "WallError", "Window", "diatomic_metrics", "wall_distance_error"]

Window = Literal["arena", "all"]
LEAST_FORCE = 0.01  # eV/Å
LEAST_STEP = 0.001  # eV
WALL_LEVELS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # eV above the minimum


@dataclass(frozen=True, repr=False)
class DiatomicMetrics:
    """Answer of `diatomic_metrics`; None where a curve has too few points on a side for a rank correlation.

    Attributes
    ----------
    pair, model : str
        Names.
    tortuosity, force_flips, spearman_repulsive, spearman_attractive : float, int, float or None, float or None
        Without unit.
    conservation_deviation_eV_per_A, energy_jump_eV : float
        See the module.
    minimum_A, well_depth_eV : float
        The lowest point and how far it lies below the far end.
    grid : str
        The distances these numbers belong to.
    """

    pair: str
    model: str
    tortuosity: float
    conservation_deviation_eV_per_A: float
    force_flips: int
    energy_jump_eV: float
    spearman_repulsive: float | None
    spearman_attractive: float | None
    minimum_A: float
    well_depth_eV: float
    grid: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self)

    def __repr__(self) -> str:
        return (
            f"DiatomicMetrics({self.pair}, {self.model}: tortuosity {self.tortuosity:.3f}, force flips "
            f"{self.force_flips}, energy jump {self.energy_jump_eV:.3f} eV, conservation deviation "
            f"{self.conservation_deviation_eV_per_A:.3g} eV/Å, well {self.well_depth_eV:.2f} eV at "
            f"{self.minimum_A:.2f} Å; grid {self.grid})"
        )


@dataclass(frozen=True)
class WallError:
    """How far a repulsive wall is from that of a reference.

    Attributes
    ----------
    mean_A : float or None
        Mean |Δr| over the levels that both curves reach, or None if there is none.
    levels_eV : tuple of float
        Those levels, above each curve's own minimum.
    shifts_A : tuple of float
        Δr at each of them, positive where the wall of the curve is farther out.
    not_reached_eV : tuple of float
        Levels that one of the curves does not reach on its grid.
    """

    mean_A: float | None
    levels_eV: tuple[float, ...]
    shifts_A: tuple[float, ...]
    not_reached_eV: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self)


def diatomic_metrics(curve: DiatomicCurve, *, window: Window = "arena") -> DiatomicMetrics:
    """Compute the numbers of the table above.

    Parameters
    ----------
    curve : DiatomicCurve
    window : {"arena", "all"}
        "arena" leaves out points outside of the arena grid, so that curves of all grids compare; "all" takes all.

    Raises
    ------
    InputError
        For a window with fewer than five points, and a curve that is flat.
    """
    r, energy, force = _windowed(curve, window)
    lowest = int(energy.argmin())
    steps = np.diff(energy)
    drop = abs(energy[0] - energy[lowest]) + abs(energy[-1] - energy[lowest])
    if drop == 0:
        raise InputError(f"the {curve.pair} curve of {curve.model} is flat: do the atoms feel each other?")
    return DiatomicMetrics(
        pair=curve.pair,
        model=curve.model,
        tortuosity=float(np.abs(steps).sum() / drop),
        conservation_deviation_eV_per_A=float(np.abs(force + np.gradient(energy, r)).mean()),
        force_flips=_force_flips(force),
        energy_jump_eV=_energy_jump(steps),
        spearman_repulsive=_spearman(r[: lowest + 1], energy[: lowest + 1]),
        spearman_attractive=_spearman(r[lowest:], energy[lowest:]),
        minimum_A=float(r[lowest]),
        well_depth_eV=float(energy[-1] - energy[lowest]),
        grid=f"{r[0]:.3f} to {r[-1]:.3f} Å, step {np.diff(r).mean():.3g} Å, {len(r)} points",
    )


def wall_distance_error(
    curve: DiatomicCurve, reference: DiatomicCurve, *, levels_eV: tuple[float, ...] = WALL_LEVELS
) -> WallError:
    """Return the mean |Δr| of the repulsive walls at E_min + levels, each over its own minimum."""
    if sorted(curve.symbols) != sorted(reference.symbols):
        raise InputError(f"the reference is for {reference.pair}, the curve for {curve.pair}: compare like with like")
    shifts, missed = {}, []
    for level in levels_eV:
        here, there = _wall(curve, level), _wall(reference, level)
        if here is None or there is None:
            missed.append(level)
        else:
            shifts[level] = here - there
    mean = float(np.mean(np.abs(list(shifts.values())))) if shifts else None
    return WallError(mean, tuple(shifts), tuple(shifts.values()), tuple(missed))


def _windowed(curve: DiatomicCurve, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if window not in get_args(Window):
        raise InputError(f"window is {window!r}; allowed: {', '.join(get_args(Window))}")
    r = curve.distances_A
    start, end = curve.arena_range_A if window == "arena" else (r[0], r[-1])
    inside = (r > start - 0.1 * STEP) & (r < end + 0.1 * STEP)
    if inside.sum() < 5:
        raise InputError(
            f"the {curve.pair} curve has {inside.sum()} points between {start:.2f} and {end:.2f} Å: take more, or "
            "window='all'"
        )
    energy = curve.energies_eV[inside]
    return r[inside], energy - energy[-1], curve.forces_eV_per_A[inside]


def _force_flips(force: np.ndarray) -> int:
    signs = np.sign(force[np.abs(force) >= LEAST_FORCE])
    return int((np.diff(signs) != 0).sum())


def _energy_jump(steps: np.ndarray) -> float:
    steps = steps[np.abs(steps) >= LEAST_STEP]
    flips = np.diff(np.sign(steps)) != 0
    return float(np.abs(steps[:-1][flips]).sum() + np.abs(steps[1:][flips]).sum())


def _spearman(r: np.ndarray, energy: np.ndarray) -> float | None:
    if len(r) < 3 or np.ptp(energy) == 0:
        return None
    return float(spearmanr(r, energy).statistic)


def _wall(curve: DiatomicCurve, level: float) -> float | None:
    """Distance at which the energy, coming from the minimum inwards, reaches E_min + level, or None."""
    r, energy = curve.distances_A, curve.energies_eV
    lowest = int(energy.argmin())
    above = np.flatnonzero(energy[:lowest] >= energy[lowest] + level)
    if len(above) == 0:
        return None
    k = above[-1]
    share = (energy[lowest] + level - energy[k]) / (energy[k + 1] - energy[k])
    return float(r[k] + share * (r[k + 1] - r[k]))
