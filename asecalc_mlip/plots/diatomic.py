"""Figure of diatomic curves: energy and force of every pair of elements, several models over one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import BLUE, COLOURS, GREEN, GREY, INK, LEGEND, ORANGE, new_figure, plain, tidy

if TYPE_CHECKING:
    from asecalc_mlip.probes.diatomic import DiatomicCurve
    from asecalc_mlip.probes.diatomic_report import DiatomicReport

__all__ = ["diatomic_figure"]

COLUMNS = 3
MARKERS = {
    "attractive hole": "v",
    "well without data": "o",
    "spurious minimum": "s",
    "jump or kink at cutoff": "D",
    "jump or kink": "d",
    "non-conservative force": "X",
    "not finite": "*",
}
PARTS = {"density": ORANGE, "morse": BLUE, "zbl": GREEN}
# asinh: linear well below these and logarithmic far beyond, so that both the well and the wall are seen. It is smooth:
# where a scale has a kink, a curve without one seems to have it.
LINEAR_eV, LINEAR_eV_PER_A = 2.0, 5.0


def diatomic_figure(reports: Sequence[DiatomicReport], *, path: str | Path, title: str = "") -> None:
    """Draw one panel of energy over one of force for each pair; flags are marked where they are.

    Parameters
    ----------
    reports : sequence of DiatomicReport
        One per model; the pairs are those of the first. The components of a lone EAM are drawn too.
    path : str or Path
        PNG to write.
    title : str
        One line.
    """
    pairs = [curve.pair for curve in reports[0].curves]
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(max(6.0, 4.3 * columns), 1.0 + 4.6 * rows, title)
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2.2, 1.0] * rows)
    for number, pair in enumerate(pairs):
        row, column = divmod(number, columns)
        _pair(grid[2 * row, column], grid[2 * row + 1, column], reports, pair)
    for number in range(len(pairs), rows * columns):
        row, column = divmod(number, columns)
        grid[2 * row, column].set_visible(False)
        grid[2 * row + 1, column].set_visible(False)
    for row in range(rows):
        grid[2 * row, 0].set_ylabel("Energy (eV)")
        grid[2 * row + 1, 0].set_ylabel("Force (eV/Å)")
    handles = _legend(reports)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), **LEGEND)
    save_figure(figure, path)


def _pair(energy: Axes, force: Axes, reports: Sequence[DiatomicReport], pair: str) -> None:
    found = [(k, r, n) for k, r in enumerate(reports) for n, c in enumerate(r.curves) if c.pair == pair]
    for k, report, n in found:
        curve = report.curves[n]
        if len(reports) == 1:
            _components(energy, curve)
        energy.plot(curve.distances_A, curve.energies_eV, color=COLOURS[k % len(COLOURS)], lw=1.8)
        force.plot(curve.distances_A, curve.forces_eV_per_A, color=COLOURS[k % len(COLOURS)], lw=1.4)
        for flag in report.flags[n]:
            at = np.interp(flag.distance_A, curve.distances_A, curve.energies_eV)
            energy.plot(flag.distance_A, at, marker=MARKERS[flag.name], ms=7, mfc=COLOURS[k % len(COLOURS)], mec=INK)
    curves = [report.curves[n] for _, report, n in found]
    below = found[0][1].below_A[found[0][2]]
    for axes in (energy, force):
        axes.axhline(0.0, color=GREY, lw=0.8)
        axes.axvspan(0.0, below, color=GREY, alpha=0.15, lw=0)
        axes.set_xlim(0.0, max(float(curve.distances_A[-1]) for curve in curves))
        tidy(axes)
    energy.set_title(pair.replace("-", "–"), fontsize=11, color=INK)
    energy.tick_params(labelbottom=False)
    force.set_xlabel("Distance (Å)")
    _scale(energy, [c.energies_eV for c in curves], LINEAR_eV, 0.08)
    _scale(force, [c.forces_eV_per_A for c in curves], LINEAR_eV_PER_A, 0.16)


def _scale(axes: Axes, values: Sequence[np.ndarray], linear: float, apart: float) -> None:
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if max(-low, high) <= 10 * linear:
        return
    axes.set_yscale("asinh", linear_width=linear)
    low, high = 1.5 * min(low, -0.5 * linear), 1.5 * max(high, 0.5 * linear)
    powers = 10.0 ** np.arange(0, 10)
    place = lambda value: np.arcsinh(value / linear)  # noqa: E731
    least = apart * (place(high) - place(low))
    shown = [0.0]
    for tick in (sign * power for power in powers for sign in (1, -1)):
        if low <= tick <= high and all(abs(place(tick) - place(other)) > least for other in shown):
            shown.append(tick)
    axes.set_yticks(shown, [_tick(tick) for tick in shown])
    axes.minorticks_off()
    axes.set_ylim(low, high)


def _tick(value: float) -> str:
    if abs(value) < 1e4:
        return f"{value:g}".replace("-", "−")
    sign = "−" if value < 0 else ""
    return f"{sign}$10^{{{round(np.log10(abs(value)))}}}$"


def _components(axes: Axes, curve: DiatomicCurve) -> None:
    for name, colour in PARTS.items():
        values = curve.components_eV.get(name)
        if values is not None and np.any(values):
            axes.plot(curve.distances_A, values, color=colour, lw=1.0, ls="--")


def _band(report: DiatomicReport) -> str:
    """Name the grey band: distances at which atoms must repel."""
    from asecalc_mlip.probes.diatomic_flags import never_bound

    known = any(not np.isclose(b, never_bound(*c.symbols)) for c, b in zip(report.curves, report.below_A, strict=True))
    return "below 0.8 × the shortest in the data" if known else "closer than any bond"


def _legend(reports: Sequence[DiatomicReport]) -> list:
    handles: list[Artist] = [
        Line2D([], [], color=COLOURS[k % len(COLOURS)], lw=2, label=plain(r.model)) for k, r in enumerate(reports)
    ]
    if len(reports) == 1:
        curves = reports[0].curves
        present = [n for n in PARTS if any(np.any(c.components_eV.get(n, 0.0)) for c in curves)]
        handles += [Line2D([], [], color=PARTS[n], lw=1, ls="--", label=n) for n in present]
    handles.append(Patch(color=GREY, alpha=0.15, lw=0, label=_band(reports[0])))
    names = {flag.name for report in reports for flags in report.flags for flag in flags}
    handles += [
        Line2D([], [], color=INK, marker=marker, mfc="none", ls="", label=name)
        for name, marker in MARKERS.items()
        if name in names
    ]
    return handles
