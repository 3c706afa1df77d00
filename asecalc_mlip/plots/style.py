"""One look for all figures: colours, text sizes, new figures, axes, PNG in memory. Touches no global settings."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "BROWN",
    "COLOURS",
    "GREEN",
    "GREY",
    "INK",
    "LEGEND",
    "LINE",
    "ORANGE",
    "PINK",
    "RED",
    "SKY",
    "SMALL",
    "escaped",
    "figure_bytes",
    "new_figure",
    "plain",
    "running_mean",
    "tidy",
]

# Okabe-Ito colours: distinguishable with colour-vision deficiency and in grey.
BLUE, ORANGE, GREEN, RED, PINK, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
BROWN, GREY, INK, LINE = "#7A5C00", "#6E6E6E", "#222222", "#DDDDDD"
# Of curves beside each other. Red comes late: it also marks what broke.
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BROWN, INK)
LEGEND = {"frameon": False, "fontsize": 9}
SMALL = {"frameon": False, "fontsize": 8.5}
TITLE = 12
LONGEST = 120  # characters of a title or a name


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Make a figure of so many inches that needs no display, with one line over it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(plain(title), fontsize=TITLE, color=INK)
    return figure


def tidy(*panels: Axes) -> None:
    """Take away the frame at the top and the right, put thin lines behind the curves."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=9)
        axes.grid(True, color=LINE, lw=0.6)
        axes.set_axisbelow(True)


def figure_bytes(figure: Figure, dpi: int = 150) -> bytes:
    """Return the figure as a PNG file in memory."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    return buffer.getvalue()


def plain(text: str) -> str:
    """Return text without mathematics, of a length that fits: a name with dollar signs is no formula."""
    return escaped(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")


def escaped(text: str) -> str:
    """Return text without mathematics, at its whole length."""
    return text.replace("$", r"\$")


def running_mean(values: np.ndarray) -> np.ndarray:
    """Return the centred mean over a tenth of the values, narrower at the ends, NaN where they are."""
    half = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / np.maximum(high - low, 1)
