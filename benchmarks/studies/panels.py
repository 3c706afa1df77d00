"""Figures of the studies: errors against training frames and epsilon, and survival in dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import BLUE, GREEN, GREY, INK, LEGEND, ORANGE, PINK, RED, SKY, new_figure, plain, tidy

__all__ = ["Curve", "Panel", "curves_figure", "survival_figure"]

COLOURS = (INK, GREY, BLUE, ORANGE, GREEN, RED, PINK, SKY)
MARKERS = "osD^vP*X"
# Of the legend.
LETTERS_PER_INCH = 14
# A loss looks the same in every figure; other labels follow in the order in which they come.
KNOWN = ("plain", "plain, 2 x steps", "first", "antithetic", "trapezoid")


@dataclass(frozen=True)
class Curve:
    """Mean and spread over seeds against one setting.

    Attributes
    ----------
    label : str
        For the legend.
    x, mean, spread : sequences of the same length; spread is the standard deviation
    """

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    spread: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One plot: title, labels of the axes, curves."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    level: float | None = None
    """A horizontal line, the error without weak supervision."""


def curves_figure(panels: Sequence[Panel], *, title: str, path: Path) -> None:
    """Draw panels side by side, both axes logarithmic, error bars for the spread over seeds."""
    figure = _figure(len(panels), title)
    handles: dict[str, Any] = {}
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel, handles)
    columns = min(len(handles), 4)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, **LEGEND)
    save_figure(figure, path)


def survival_figure(
    times_ps: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    length_ps: float,
    title: str,
    path: Path,
) -> None:
    """Draw the share of trajectories that are still stable against time.

    Parameters
    ----------
    times_ps : mapping
        Panel title → label → time to instability of each trajectory (ps); `length_ps` where it never came.
    length_ps : float
        Length of the trajectories.
    """
    figure = _figure(len(times_ps), title)
    places = {label: k for k, label in enumerate(dict.fromkeys(label for runs in times_ps.values() for label in runs))}
    handles: dict[str, Any] = {}
    for axes, (name, runs) in zip(figure.subplots(1, len(times_ps), squeeze=False)[0], times_ps.items(), strict=True):
        for label, times in runs.items():
            index = _style(label, places[label])
            broken = np.sort([t for t in times if t < length_ps])
            x = np.concatenate([[0.0], np.repeat(broken, 2), [length_ps]])
            left = 1.0 - np.arange(len(broken) + 1) / max(1, len(times))
            # Dashed where the colours come round again.
            look = {"color": COLOURS[index % len(COLOURS)], "ls": "--" if index >= len(COLOURS) else "-", "lw": 2}
            (handles[f"{label} ({len(times)})"],) = axes.plot(x, np.repeat(left, 2), **look)
        axes.set(
            title=plain(name), xlabel="time (ps)", ylabel="share still stable", ylim=(-0.03, 1.05), xlim=(0, length_ps)
        )
        tidy(axes)
    # Below, where no curve can run through it, in as many columns as there is room for.
    room = LETTERS_PER_INCH * figure.get_size_inches()[0]
    columns = min(5, 2 * len(times_ps), max(1, int(room / (max(map(len, handles)) + 8))))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, **LEGEND)
    save_figure(figure, path)


def _figure(n_panels: int, title: str) -> Figure:
    return new_figure(max(5.0, 3.9 * n_panels), 4.2, title)


def _draw(axes: Axes, panel: Panel, handles: dict[str, Any]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    if panel.level is not None:
        axes.axhline(panel.level, color=GREY, lw=1.2, ls="--", zorder=0)
    for curve in panel.curves:
        index = _style(curve.label, list(handles).index(curve.label) if curve.label in handles else len(handles))
        handle = axes.errorbar(
            curve.x,
            curve.mean,
            yerr=curve.spread,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            ms=5,
            lw=1.6,
            elinewidth=1,
            capsize=2,
            label=curve.label,
        )
        handles.setdefault(curve.label, handle)
    _plain_ticks(axes, panel)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    tidy(axes)


def _style(label: str, place: int) -> int:
    return KNOWN.index(label) if label in KNOWN else place


def _plain_ticks(axes: Axes, panel: Panel) -> None:
    """Write numbers instead of powers of ten."""
    ticks = sorted({float(x) for curve in panel.curves for x in curve.x})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.tick_params(axis="y", which="minor", labelsize=7)
