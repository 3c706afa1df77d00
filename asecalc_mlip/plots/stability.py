"""Figure of a stability study: temperature by seed, h(r) against the reference, total energy at constant energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from asecalc_mlip.analysis import DistanceHistogram
from asecalc_mlip.plots.style import COLOURS, GREY, INK, LEGEND, SMALL, new_figure, plain, running_mean, tidy


@dataclass(frozen=True)
class Series:
    """One run, as it is drawn.

    Attributes
    ----------
    label : str
        For the legend.
    time_ps : (n,) array
    values : (n,) array, temperature (K) or total energy less its first value (meV/atom)
    histogram : DistanceHistogram or None
        h(r) of the run, or None.
    broken_ps : float or None
        Time at which it broke, or None.
    style : str
        Line style.
    colour : int
        Index of the colour.
    """

    label: str
    time_ps: np.ndarray
    values: np.ndarray
    histogram: DistanceHistogram | None = None
    broken_ps: float | None = None
    style: str = "-"
    colour: int = 0

    @property
    def shade(self) -> str:
        """The colour itself."""
        return COLOURS[self.colour % len(COLOURS)]


def stability_figure(
    nvt: Sequence[Series],
    nve: Sequence[Series],
    *,
    title: str,
    target_K: float,
    reference: DistanceHistogram | None = None,
) -> Figure:
    """Draw temperature and h(r) if there are `nvt` runs, the total energy if there are `nve` runs.

    Parameters
    ----------
    nvt, nve : sequence of Series
        The runs.
    title : str
        One line.
    target_K : float
        Temperature of the thermostat.
    reference : DistanceHistogram or None
        Of the reference data.
    """
    panels: list[tuple[Callable[..., None], tuple]] = []
    if nvt:
        panels += [(_temperature, (nvt, target_K)), (_structure, (nvt, reference))]
    if nve:
        panels.append((_energy, (nve,)))
    figure = new_figure(4.9 * max(1, len(panels)), 4.1, title)
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for panel, (draw, arguments) in zip(axes, panels, strict=False):
        draw(panel, *arguments)
        tidy(panel)
    return figure


def _temperature(axes, runs: Sequence[Series], target_K: float) -> None:
    for run in runs:
        colour = run.shade
        axes.plot(run.time_ps, run.values, color=colour, lw=0.4, alpha=0.25)
        axes.plot(run.time_ps, running_mean(run.values), color=colour, lw=1.8, label=plain(run.label))
        if run.broken_ps is not None:
            axes.axvline(run.broken_ps, color=colour, lw=2.0, ls=":")
    axes.axhline(target_K, color=INK, lw=1.2, ls="--", label=f"thermostat {target_K:g} K")
    _time_axis(axes, runs)
    axes.set_ylabel("Temperature (K)")
    axes.set_ylim(0.0, 2.0 * target_K)
    axes.legend(loc="lower right", **LEGEND)


def _structure(axes, runs: Sequence[Series], reference: DistanceHistogram | None) -> None:
    shown = [(run, run.histogram) for run in runs if run.histogram is not None]
    if reference is not None:
        axes.fill_between(reference.r, reference.density, color=GREY, alpha=0.4, lw=0, label="reference data")
    for run, histogram in shown:
        # Runs that agree lie on one another: the later ones thinner, so that all can be seen.
        axes.plot(histogram.r, histogram.density, color=run.shade, lw=1.6 - 0.4 * min(run.colour, 2),
                  label=plain(run.label.partition(":")[0]))  # fmt: skip
    curves = [histogram for _, histogram in shown] + ([reference] if reference is not None else [])
    present = [curve.r[curve.density > 0] for curve in curves]
    if any(len(r) for r in present):
        axes.set_xlim(min(r[0] for r in present if len(r)) - 0.3, max(r[-1] for r in present if len(r)) + 0.3)
        axes.set_ylim(0.0, 1.25 * max(curve.density.max() for curve in curves))  # room for the legend
    axes.set_xlabel("Distance r (Å)")
    axes.set_ylabel("h(r) (1/Å)")
    axes.legend(loc="upper right", **LEGEND)


def _energy(axes, runs: Sequence[Series]) -> None:
    for run in runs:
        colour = run.shade
        if len(run.time_ps) < 2:
            continue
        axes.plot(run.time_ps, run.values, color=colour, lw=0.5, alpha=0.25)
        line = np.polyfit(run.time_ps, run.values, 1)
        ends = run.time_ps[[0, -1]]
        axes.plot(ends, np.polyval(line, ends), color=colour, lw=1.8, ls=run.style, label=plain(run.label))
    _time_axis(axes, runs)
    axes.set_ylabel("Total energy − start (meV/atom)")
    largest = max((float(np.abs(run.values).max()) for run in runs if len(run.values)), default=0.0) or 1.0
    axes.set_ylim(-1.3 * largest, 2.2 * largest)  # room for the legend
    axes.legend(loc="upper left", ncols=2 if len(runs) > 3 else 1, title="drift in meV/atom/ps", title_fontsize=8,
                columnspacing=1.0, **SMALL)  # fmt: skip


def _time_axis(axes, runs: Sequence[Series]) -> None:
    axes.set_xlabel("Time (ps)")
    end = max((run.time_ps[-1] for run in runs if len(run.time_ps)), default=0.0)
    if end > 0:
        axes.set_xlim(0.0, end)
