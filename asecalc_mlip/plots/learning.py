"""Figures of an on-the-fly learning: its course over the labels, and what the spread of the committee is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from asecalc_mlip.plots.style import BLUE, GREEN, GREY, INK, LEGEND, RED, new_figure, plain, tidy

__all__ = ["calibration_figure", "course_figure"]

TENTHS = 10
LEAST = 20  # atoms of a root mean square


def course_figure(
    labels: Sequence[int],
    errors_meV_A: Sequence[float],
    stable_ps: Sequence[Sequence[float]],
    broken: Sequence[Sequence[bool]],
    *,
    end_ps: float,
) -> Figure:
    """Draw held-out force error and quiet time of the replicas against the number of labels.

    Parameters
    ----------
    labels : (n_rounds,) sequence
    errors_meV_A : (n_rounds,) sequence
    stable_ps : n_rounds sequences
        Of each replica, ps.
    broken : n_rounds sequences
        Whether each ended by a frame in question.
    end_ps : float
        Time that was asked for.
    """
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    left.plot(labels, errors_meV_A, "o-", color=BLUE, lw=1.6, ms=5)
    left.set_ylabel("Held-out force error (meV/Å)")
    left.set_ylim(bottom=0.0)
    for count, times, ends in zip(labels, stable_ps, broken, strict=True):
        x = count + 0.4 * (np.arange(len(times)) - 0.5 * (len(times) - 1)) / max(1, len(times))
        ended = np.array(ends, dtype=bool)
        right.plot(x[ended], np.maximum(np.array(times)[ended], 1e-3), "x", color=RED, ms=5)
        right.plot(x[~ended], np.array(times)[~ended], "o", color=GREEN, ms=5)
    right.plot(labels, [max(1e-3, float(np.median(times))) for times in stable_ps], color=GREY, lw=1.4)
    right.axhline(end_ps, color=INK, lw=1.0, ls="--")
    seen = {end for of_round in broken for end in of_round}
    for end, marker, colour, name in ((True, "x", RED, "a frame to label"), (False, "o", GREEN, "quiet to the end")):
        if end in seen:
            right.plot([], [], marker, color=colour, label=name)
    right.plot([], [], color=GREY, label="median")
    right.plot([], [], color=INK, lw=1.0, ls="--", label="asked for")
    right.set_yscale("log")
    right.set_ylabel("Time of each replica (ps)")
    right.legend(loc="lower right", **LEGEND)
    for axes in (left, right):
        axes.set_xlabel("Labels")
    tidy(left, right)
    return figure


def calibration_figure(parts: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draw the true error of the force on an atom against the spread of the committee.

    Lines are root mean squares of both in each tenth of the atoms, in the order of their spread (parts of at least 20).

    Parameters
    ----------
    parts : mapping
        Label → spread and error by atom, eV/Å.
    """
    figure = new_figure(5.2, 4.8)
    axes = figure.subplots()
    every = np.concatenate([np.concatenate([np.asarray(s), np.asarray(e)]) for s, e in parts.values()])
    positive = every[every > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-3, 1.0)
    axes.plot([low, high], [low, high], color=GREY, lw=1.0, label="error = spread")
    for colour, (label, (spread, error)) in zip((BLUE, RED, GREEN), parts.items(), strict=False):
        # Few points lie over many, and the lines over all.
        axes.plot(spread, error, ".", color=colour, ms=4, alpha=0.35, zorder=2 - len(spread) / (1 + len(every)))
        x, y = _tenths(np.asarray(spread), np.asarray(error))
        axes.plot(x, y, "o-", color=colour, lw=1.6, ms=5, mec=INK, mew=0.8, zorder=3, label=plain(label))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("Spread of the committee (eV/Å)")
    axes.set_ylabel("True error of the force (eV/Å)")
    # The points leave no room for it.
    figure.legend(loc="outside lower center", ncols=2, **LEGEND)
    tidy(axes)
    return figure


def _tenths(spread: np.ndarray, error: np.ndarray) -> tuple[list[float], list[float]]:
    """Return root mean squares of spread and error in ten parts of as many atoms, fewer where there are few atoms."""
    number = max(1, min(TENTHS, len(spread) // LEAST))
    parts = np.array_split(np.argsort(spread, kind="stable"), number)
    found = [[float(np.sqrt((values[part] ** 2).mean())) for part in parts] for values in (spread, error)]
    return found[0], found[1]
