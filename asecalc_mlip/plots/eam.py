"""Figures of embedded-atom potentials: the energy of two atoms over their distance, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import BLUE, GREEN, GREY, INK, LEGEND, ORANGE, new_figure, tidy

if TYPE_CHECKING:
    from asecalc_mlip.calculators.eam import PairCurve

__all__ = ["pair_curves_figure"]

COLUMNS = 3
# The axis ends at so many times the depth of the deepest curve: below it the wall, beyond all measure, would hide it.
ABOVE = 1.6


def pair_curves_figure(curves: Sequence[PairCurve], *, path: str | Path, title: str = "") -> None:
    """Draw one panel per pair of elements: density, Morse, ZBL and their sum, relative to separated atoms.

    Parameters
    ----------
    curves : sequence of PairCurve
    path : str or Path
        PNG to write.
    title : str
        One line.
    """
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = new_figure(max(5.2, 4.2 * columns), 0.8 + 3.4 * rows, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, curve in zip(grid.flat, curves, strict=False):
        _panel(axes, curve)
        tidy(axes)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("Energy of two atoms (eV)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), **LEGEND)
    save_figure(figure, path)


def _panel(axes: Axes, curve: PairCurve) -> None:
    r = curve.distances
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.plot(r, curve.morse, color=BLUE, lw=1.5, label="Morse")
    if np.any(curve.density):
        axes.plot(r, curve.density, color=ORANGE, lw=1.5, label="density (embedding)")
    if np.any(curve.zbl):
        axes.plot(r, curve.zbl, color=GREEN, lw=1.5, label="ZBL core")
    axes.plot(r, curve.binding, color=INK, lw=2.2, ls="--", label="total less E0")
    lowest = min(float(v.min()) for v in (curve.binding, curve.morse, curve.density))
    depth = max(-lowest, 0.1)
    axes.set(xlabel="Distance (Å)", xlim=(0.0, float(r[-1])), ylim=(-1.15 * depth, ABOVE * depth))
    axes.set_title("–".join(curve.symbols), fontsize=11, color=INK)
