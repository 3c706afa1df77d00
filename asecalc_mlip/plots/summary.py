"""The four panels that tell how a potential behaves: stability, structure, diatomic curves, energy conservation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asecalc_mlip.plots.stability import Series
from asecalc_mlip.plots.style import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    RED,
    SMALL,
    escaped,
    new_figure,
    plain,
    running_mean,
    tidy,
)

__all__ = ["PairCurve", "energy_figure", "summary_figure"]

MOST_BARS = 12  # runs of which each gets a bar; of more the share that is stable is drawn
# eV, window of the diatomic curves: of walls what matters to dynamics, and whole wells. No two atoms are bound by more
# than carbon and oxygen, 11.2 eV (PBE: 11.8); what is deeper than the window is a hole.
WALL, DEEPEST, SHALLOW = 10.0, 14.0, 1.0


@dataclass(frozen=True)
class PairCurve:
    """A diatomic curve, as it is drawn.

    Attributes
    ----------
    label : str
        For the legend.
    distances_A, energies_eV : (n,) arrays
    flags : sequence of (float, float)
        Places (Å, eV) of unphysical features.
    """

    label: str
    distances_A: np.ndarray
    energies_eV: np.ndarray
    flags: Sequence[tuple[float, float]] = ()


def summary_figure(
    nvt: Sequence[Series],
    nve: Sequence[Series],
    pairs: Sequence[PairCurve],
    *,
    title: str,
    heads: Sequence[str],
    footer: str,
    target_K: float,
    end_ps: float,
    reference: Any = None,
) -> Figure:
    """Draw two by two panels.

    Parameters
    ----------
    nvt : sequence of Series
        Runs with temperatures (K) and, as `histogram`, h(r) or g(r).
    nve : sequence of Series
        Runs with the total energy less its first value (meV/atom).
    pairs : sequence of PairCurve
        At most eight diatomic curves are drawn.
    title, footer : str
        One line, and at most two.
    heads : sequence of str
        Verdicts of the four panels, one line each.
    target_K : float
        Temperature of the thermostat.
    end_ps : float
        Time that the runs were to last.
    reference : object
        h(r) or g(r) of the reference, or None.
    """
    figure = new_figure(13.0, 8.6)
    figure.suptitle(plain(title), fontsize=14, color=INK, fontweight="bold")
    figure.supxlabel(escaped(footer), fontsize=8.5, color=GREY)
    grid = figure.add_gridspec(2, 2, wspace=0.06, hspace=0.05)
    stability, structure = (grid[0, k].subgridspec(2, 1, height_ratios=[3.2, 1.0], hspace=0.03) for k in (0, 1))
    above, below = (figure.add_subplot(stability[k]) for k in (0, 1))
    _temperature(above, nvt, target_K, end_ps)
    _survival(below, nvt, end_ps)
    curve, difference = (figure.add_subplot(structure[k]) for k in (0, 1))
    _structure(curve, difference, nvt, reference)
    diatomic, energy = (figure.add_subplot(grid[1, k]) for k in (0, 1))
    _diatomic(diatomic, pairs)
    _energy(energy, nve)
    for letter, axes, head in zip("abcd", (above, curve, diatomic, energy), heads, strict=True):
        axes.set_title(plain(f"{letter}   {head}"), fontsize=11, color=INK, loc="left")
    for axes in figure.axes:
        tidy(axes)
    return figure


def energy_figure(nvt: Sequence[Series], *, title: str) -> Figure:
    """Draw the potential energy (meV/atom) of each run at constant temperature."""
    figure = new_figure(7.6, 3.8, plain(title))
    axes = figure.subplots()
    for run in nvt:
        colour = run.shade
        axes.plot(run.time_ps, run.values, color=colour, lw=0.5, alpha=0.3)
        axes.plot(run.time_ps, running_mean(run.values), color=colour, lw=1.8, label=plain(run.label))
        _broken(axes, run)
    axes.set_xlabel("Time (ps)")
    axes.set_ylabel("Potential energy − start (meV/atom)")
    _end(axes, max((run.time_ps[-1] for run in nvt if len(run.time_ps)), default=0.0))
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, **SMALL)  # over the panel, off the curves
    tidy(axes)
    return figure


def _temperature(axes: Axes, runs: Sequence[Series], target_K: float, end_ps: float) -> None:
    highest = 2.0 * target_K
    for run in runs:
        colour = run.shade
        axes.plot(run.time_ps, run.values, color=colour, lw=0.4, alpha=0.25)
        axes.plot(run.time_ps, running_mean(run.values), color=colour, lw=1.8, label=plain(run.label))
        _broken(axes, run)
    axes.axhline(target_K, color=INK, lw=1.2, ls="--", label=f"thermostat {target_K:g} K")
    axes.set_ylabel("Temperature (K)")
    axes.set_ylim(0.0, highest)
    axes.tick_params(labelbottom=False)
    _end(axes, end_ps)
    if len(runs) <= MOST_BARS:
        axes.legend(loc="upper center", ncols=min(4, len(runs) + 1), columnspacing=1.2, **SMALL)


def _survival(axes: Axes, runs: Sequence[Series], end_ps: float) -> None:
    """Draw a bar for each run, as long as it was stable; of many runs the share that is."""
    if len(runs) > MOST_BARS:
        times = np.sort([end_ps if run.broken_ps is None else run.broken_ps for run in runs])
        left = [100 * np.mean([r.broken_ps is None or r.broken_ps > t for r in runs]) for t in times]
        axes.step([0.0, *times], [100.0, *left], where="post", color=BLUE, lw=2.0)
        axes.set_ylim(0.0, 105.0)
        axes.set_ylabel("Stable (%)")
    else:
        for k, run in enumerate(runs):
            until = end_ps if run.broken_ps is None else run.broken_ps
            axes.barh(k, until, height=0.55, color=run.shade, alpha=0.85)
            if run.broken_ps is not None:
                axes.plot(until, k, marker="X", ms=9, color=RED, mec="white", clip_on=False, zorder=5)
        axes.set_yticks(range(len(runs)), [plain(run.label.partition(":")[0]) for run in runs])
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.set_ylabel("Stable", labelpad=8)
    axes.set_xlabel("Time (ps)")
    _end(axes, end_ps)


def _structure(axes: Axes, below: Axes, runs: Sequence[Series], reference: Any) -> None:
    shown = [(run, run.histogram) for run in runs if run.histogram is not None]
    curves = [curve for _, curve in shown] + ([reference] if reference is not None else [])
    if not curves:
        for panel in (axes, below):
            panel.set_axis_off()
        axes.text(0.5, 0.4, "no frames to take distances from", ha="center", color=GREY, transform=axes.transAxes)
        return
    name = "g(r)" if hasattr(curves[0], "g") else "h(r)"
    unit = "" if name == "g(r)" else " (1/Å)"
    if reference is not None:
        axes.fill_between(reference.r, _values(reference), color=GREY, alpha=0.4, lw=0, label="reference data")
    for number, (run, curve) in enumerate(shown):
        # Runs that agree lie on one another: the later ones thinner, so that all can be seen.
        width = 1.7 - 0.4 * min(number, 2)
        axes.plot(curve.r, _values(curve), color=run.shade, lw=width, label=plain(run.label.partition(":")[0]))
        if reference is not None:
            below.plot(curve.r, _values(curve) - _values(reference), color=run.shade, lw=0.9)
    present = [curve.r[_values(curve) > 0] for curve in curves]
    low, high = min(r[0] for r in present if len(r)) - 0.3, max(r[-1] for r in present if len(r)) + 0.3
    for panel in (axes, below):
        panel.set_xlim(max(0.0, low), min(high, float(curves[0].edges[-1])))
    axes.set_ylim(0.0, 1.12 * max(float(_values(curve).max()) for curve in curves))
    axes.set_ylabel(f"{name}{unit}")
    below.set_ylabel(f"Δ{name}", labelpad=2)
    below.axhline(0.0, color=GREY, lw=0.8)
    below.set_xlabel("Distance r (Å)")
    axes.tick_params(labelbottom=False)
    if reference is None:
        below.text(0.5, 0.5, "no reference", ha="center", va="center", color=GREY, transform=below.transAxes)
        below.set_yticks([])
    if len(shown) <= MOST_BARS:
        axes.legend(loc="upper right", ncols=1 if len(shown) <= 5 else 2, **SMALL)


def _diatomic(axes: Axes, pairs: Sequence[PairCurve]) -> None:
    deepest = 0.0
    shown = pairs[: len(COLOURS)]
    for pair in shown:
        deepest = min(deepest, float(pair.energies_eV.min()))
    low = -min(DEEPEST, max(SHALLOW, 1.15 * -deepest))
    for colour, pair in zip(COLOURS, shown, strict=False):
        axes.plot(pair.distances_A, pair.energies_eV, color=colour, lw=1.7, label=plain(pair.label))
        for r, energy in pair.flags:
            inside = np.clip(energy, low, WALL)
            axes.plot(r, inside, marker="v", ms=7, color=colour, mec=INK, mew=0.7, ls="", clip_on=False, zorder=5)
    if any(pair.flags for pair in shown):
        axes.plot([], [], marker="v", ms=7, color="white", mec=INK, ls="", label="unphysical feature")
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.set_ylim(low, WALL)
    if shown:
        axes.set_xlim(0.0, max(float(pair.distances_A[-1]) for pair in shown))
        axes.legend(loc="upper right", title="tortuosity (ideal 1)", title_fontsize=8.5, **SMALL)
    axes.set_xlabel("Distance of the two atoms (Å)")
    axes.set_ylabel("Energy − far apart (eV)")


def _energy(axes: Axes, runs: Sequence[Series]) -> None:
    largest = 0.0
    for run in runs:
        if len(run.time_ps) < 2:
            continue
        colour = run.shade
        axes.plot(run.time_ps, run.values, color=colour, lw=0.5, alpha=0.35)
        line, ends = np.polyfit(run.time_ps, run.values, 1), run.time_ps[[0, -1]]
        axes.plot(ends, np.polyval(line, ends), color=colour, lw=1.8, label=plain(run.label))
        largest = max(largest, float(np.abs(run.values).max()))
        _broken(axes, run)
    if not largest:
        axes.text(0.5, 0.5, "no run long enough", ha="center", color=GREY, transform=axes.transAxes)
    axes.set_ylim(-1.25 * (largest or 1.0), 1.9 * (largest or 1.0))  # room for the legend
    axes.set_xlabel("Time (ps)")
    axes.set_ylabel("Total energy − start (meV/atom)")
    _end(axes, max((run.time_ps[-1] for run in runs if len(run.time_ps)), default=0.0))
    if largest and len(runs) <= MOST_BARS:
        columns = 1 if len(runs) <= 3 else 2
        axes.legend(loc="upper left", ncols=columns, title="drift (meV/atom/ps)", title_fontsize=8.5, **SMALL)


def _broken(axes: Axes, run: Series) -> None:
    if run.broken_ps is not None:
        axes.axvline(run.broken_ps, color=run.shade, lw=2.0, ls=":")


def _end(axes: Axes, end_ps: float) -> None:
    if end_ps > 0:
        axes.set_xlim(0.0, end_ps)


def _values(curve: Any) -> np.ndarray:
    return curve.g if hasattr(curve, "g") else curve.density
