"""Figure of a search of settings: validation loss against each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import GREY, INK, LEGEND, ORANGE, RED, new_figure, tidy

__all__ = ["Panel", "tune_figure"]

LABELS = {
    "weak.pitc": "$C_\\mathrm{PITC}$ (eV$^{-2}$)",
    "weak.pisc": "$C_\\mathrm{PISC}$ (eV$^{-2}$)",
    "weak.epsilon": "$\\varepsilon$ (Å)",
    "weak.coefficient": "coefficient of the weak loss",
    "weak.rho": "$\\rho$",
    "optimizer.lr": "learning rate",
}
COLUMNS = 3
# A few hopeless trials would press the others into one line: the axis ends at so many times the plain loss.
HIGHEST = 1.5


@dataclass(frozen=True)
class Panel:
    """One setting: its value in each trial, its ends (or all choices), and the kind of axis."""

    key: str
    values: Sequence[Any]
    extremes: Sequence[Any]
    log: bool = False
    choices: bool = False


@dataclass(frozen=True)
class _Trials:
    """Shared by all panels: (n,) arrays of the trials, and the lines across."""

    losses: np.ndarray
    complete: np.ndarray
    numbers: np.ndarray
    best: int
    plain: float | None

    @property
    def highest(self) -> float:
        """End of the axis of losses."""
        return HIGHEST * (self.losses.min() if self.plain is None else self.plain)


def tune_figure(
    panels: Sequence[Panel],
    losses: Sequence[float],
    *,
    complete: Sequence[bool],
    numbers: Sequence[int],
    best: int,
    plain: float | None,
    path: str | Path,
) -> None:
    """Draw one panel per setting; later trials are darker, those that were pruned hollow, the best one ringed.

    Parameters
    ----------
    panels : sequence of Panel
    losses : sequence of float
        Lowest validation loss of each trial.
    complete : sequence of bool
        Whether each ran to its end.
    numbers : sequence of int
        Of the trials, from 1.
    best : int
        Number of the best one, which may be that of the plain training, 0.
    plain : float or None
        Loss of the plain training, drawn as a line, or None.
    path : str or Path
        PNG to write.
    """
    trials = _Trials(np.asarray(losses), np.asarray(complete, dtype=bool), np.asarray(numbers), best, plain)
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(max(6.4, 3.9 * columns), 0.5 + 3.5 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _value_axis(axes, panel)
        _draw(axes, panel, trials)
        tidy(axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("lowest validation loss")
    _loss_axis(grid[0, 0], trials)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), **LEGEND)
    save_figure(figure, path)


def _draw(axes: Axes, panel: Panel, trials: _Trials) -> None:
    places = [list(panel.extremes).index(value) for value in panel.values] if panel.choices else panel.values
    x, y, numbers = np.asarray(places, dtype=float), trials.losses, trials.numbers
    shown = y <= trials.highest
    whole, cut, ring = shown & trials.complete, shown & ~trials.complete, shown & (numbers == trials.best)
    if trials.plain is not None:
        axes.axhline(trials.plain, color=INK, lw=1.3, ls="--", label="trial 0")
    colours = colormaps["Blues"](0.35 + 0.65 * numbers[whole] / numbers.max())
    axes.scatter(
        x[whole], y[whole], s=44, c=colours, edgecolors=INK, lw=0.5, zorder=3, label="trials, later ones darker"
    )
    if cut.any():
        axes.scatter(x[cut], y[cut], s=36, facecolors="none", edgecolors=GREY, lw=1.2, zorder=3, label="pruned")
    if ring.any():
        axes.scatter(x[ring], y[ring], s=150, facecolors="none", edgecolors=ORANGE, lw=2.2, zorder=4, label="best")
    if not shown.all():
        top = np.full(np.count_nonzero(~shown), 0.97)
        label = f"above {trials.highest:.3g}"
        axes.scatter(x[~shown], top, s=40, c=RED, marker="^", transform=axes.get_xaxis_transform(), label=label)


def _value_axis(axes: Axes, panel: Panel) -> None:
    axes.set_xlabel(LABELS.get(panel.key, panel.key))
    if panel.choices:
        axes.set_xticks(range(len(panel.extremes)), [str(choice) for choice in panel.extremes])
        axes.set_xlim(-0.5, len(panel.extremes) - 0.5)
        return
    low, high = (float(end) for end in panel.extremes)
    if not panel.log:
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        return
    margin = (high / low) ** 0.04
    axes.set(xscale="log", xlim=(low / margin, high * margin))
    if high / low < 200:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _loss_axis(axes: Axes, trials: _Trials) -> None:
    values = [*trials.losses[trials.losses <= trials.highest], *([] if trials.plain is None else [trials.plain])]
    span = max(values) - min(values) or 0.1 * abs(max(values)) or 1.0
    axes.set_ylim(min(values) - 0.12 * span, max(values) + 0.18 * span)
    axes.yaxis.set_major_locator(MaxNLocator(6))
