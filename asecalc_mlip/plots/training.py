"""Figures of a training run: parity and learning curve."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import BLUE, GREEN, GREY, INK, LEGEND, ORANGE, new_figure, tidy
from asecalc_mlip.units import ERROR_UNITS

__all__ = ["learning_curve", "parity"]

_UNITS = {quantity: unit.removeprefix("m") for quantity, unit in ERROR_UNITS.items()}


def parity(
    labels: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray], *, path: str | Path, title: str = ""
) -> None:
    """Draw predictions against labels, one panel per quantity, with the distribution of the errors inset.

    Parameters
    ----------
    labels, predictions : mapping
        Quantity ("energy", "energy_per_atom", "forces", "stress") → array of any shape, in eV and Å.
    path : str or Path
        PNG to write.
    """
    if "energy_per_atom" in labels:  # structures of several sizes, whose total energies tell the sizes
        labels = {name: values for name, values in labels.items() if name != "energy"}
    figure = new_figure(4.3 * len(labels), 4.7, title)
    for k, (name, values) in enumerate(labels.items()):
        axes = figure.add_subplot(1, len(labels), k + 1)
        _parity_panel(axes, name, np.asarray(values).ravel(), np.asarray(predictions[name]).ravel())
    save_figure(figure, path)


def learning_curve(log: str | Path, *, path: str | Path) -> None:
    """Draw validation errors and learning rate against epochs, from the log.csv of a run."""
    with Path(log).open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [(q, u) for q, u in _UNITS.items() if rows and f"val_{q}_mae" in rows[0]]
    figure = new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    epochs = [int(row["epoch"]) + 1 for row in rows]
    for (quantity, unit), color in zip(shown, (BLUE, ORANGE, GREEN), strict=False):  # there may be no stress
        values = [1000 * float(row[f"val_{quantity}_mae"]) for row in rows]
        axes.plot(epochs, values, color=color, lw=1.4, label=f"{quantity.replace('_', ' ')}, m{unit}")
    axes.set(xlabel="epoch", ylabel="validation MAE", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    tidy(axes)
    rate = axes.twinx()
    rate.plot(epochs, [float(row["lr"]) for row in rows], color=GREY, lw=1.0, ls="--")
    rate.set_ylabel("learning rate", color=GREY)
    rate.tick_params(colors=GREY)
    rate.set_ylim(bottom=0)
    rate.spines[["top"]].set_visible(False)
    axes.legend(**LEGEND, loc="lower left")
    save_figure(figure, path)


def _parity_panel(axes: Axes, name: str, truth: np.ndarray, guess: np.ndarray) -> None:
    unit = _UNITS[name]
    # Total DFT energies of −10⁴ eV would leave nothing to see on the axes.
    shift = truth.mean() if name.startswith("energy") else 0.0
    x, y = truth - shift, guess - shift
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.05 * (high - low or 1.0)
    ends = [low - margin, high + margin]
    axes.plot(ends, ends, color=GREY, lw=1.0, zorder=0)
    axes.plot(x, y, ".", ms=3 if len(x) < 5000 else 1.5, color=BLUE, alpha=0.5, rasterized=True)
    relative = " − mean" if shift else ""
    axes.set(xlim=ends, ylim=ends, xlabel=f"reference{relative} ({unit})", ylabel=f"model{relative} ({unit})")
    axes.set_box_aspect(1)
    axes.locator_params(nbins=6)
    tidy(axes)
    error = 1000 * (guess - truth)
    mae, rmse = np.abs(error).mean(), np.sqrt((error**2).mean())
    axes.set_title(f"{name.replace('_', ' ')}: MAE {mae:.1f}, RMSE {rmse:.1f} m{unit}", fontsize=10, color=INK)
    inset = axes.inset_axes((0.62, 0.1, 0.34, 0.26))
    bound = np.quantile(np.abs(error), 0.995) or 1.0
    inset.hist(error, bins=61, range=(-bound, bound), color=ORANGE)
    inset.set_yticks([])
    inset.tick_params(labelsize=7)
    inset.set_xlabel(f"error (m{unit})", fontsize=7)
