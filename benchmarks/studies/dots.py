"""Dot plots of the studies: one row for each model or data set, one kind of dot for each loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import BLUE, GREEN, GREY, INK, LEGEND, ORANGE, PINK, new_figure, plain, tidy

__all__ = ["Dots", "dots_figure"]

LOOKS = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PINK, "v"))
# Of what is not ours.
PUBLISHED = (GREY, "D")


@dataclass(frozen=True)
class Dots:
    """One panel.

    Attributes
    ----------
    title, x_label : str
    rows : sequence of str
        Labels from top to bottom.
    values : mapping
        Series → row → values, one for each seed; a series "published" is grey.
    level : float
        A vertical line: no effect.
    log : bool
        Logarithmic axis with these ticks where there are any.
    ticks : sequence of float
    """

    title: str
    x_label: str
    rows: Sequence[str]
    values: Mapping[str, Mapping[str, Sequence[float]]]
    level: float
    log: bool = False
    ticks: Sequence[float] = ()


def dots_figure(panels: Sequence[Dots], *, title: str, path: Path) -> None:
    """Draw panels side by side: small dots for seeds, a large one for their mean."""
    height = 1.6 + 0.3 * max(len(panel.rows) for panel in panels)
    figure = new_figure(2.0 + 3.9 * len(panels), height, title)
    names = list(dict.fromkeys(name for panel in panels for name in panel.values))
    ours = [name for name in names if name != "published"]
    looks = {name: PUBLISHED if name == "published" else LOOKS[ours.index(name)] for name in names}
    same = all(panel.rows == panels[0].rows for panel in panels)
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=same)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw(axes, panel, looks)
    handles = dict(pair for axes in all_axes for pair in zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=5, **LEGEND)
    save_figure(figure, path)


def _draw(axes: Axes, panel: Dots, looks: Mapping[str, tuple[str, str]]) -> None:
    axes.axvline(panel.level, color=INK, lw=1.0, ls="--", zorder=0)
    for name, rows in panel.values.items():
        colour, marker = looks[name]
        places = [panel.rows.index(row) + _offset(panel, row, name) for row in rows]
        for place, values in zip(places, rows.values(), strict=True):
            if len(values) > 1:
                axes.plot(values, [place] * len(values), ".", color=colour, ms=4, alpha=0.5)
        means = [np.mean(values) for values in rows.values()]
        axes.plot(means, places, marker, color=colour, ms=6, label=plain(name))
    axes.set_yticks(range(len(panel.rows)), [plain(row) for row in panel.rows])
    axes.set_ylim(len(panel.rows) - 0.4, -0.6)
    if panel.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    if panel.ticks:
        axes.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
    axes.set(title=panel.title, xlabel=panel.x_label)
    tidy(axes)


def _offset(panel: Dots, row: str, name: str) -> float:
    """Return where a dot stands within its row, so that none hides another."""
    names = [one for one, rows in panel.values.items() if row in rows]
    return 0.2 * (names.index(name) - (len(names) - 1) / 2)
