"""Figure of survival curves: fraction of runs still stable (or quiet) against time."""

from __future__ import annotations

from matplotlib.figure import Figure

from asecalc_mlip.analysis.survival import Survival
from asecalc_mlip.plots.style import COLOURS, LEGEND, new_figure, plain, tidy

MOST_INSIDE = 3


def survival_figure(
    curves: dict[str, Survival], *, title: str = "", log_time: bool = False, word: str = "stable"
) -> Figure:
    """Draw one step curve for each of `curves`, by its label, with its 95 % limits shaded.

    `log_time` is for curves whose runs last from femtoseconds to nanoseconds; the zero of the time is then left out.
    `word` says what a run is that goes on: "quiet" where a committee ends runs that are stable.
    """
    figure = new_figure(7.0, 4.2, title)
    axes = figure.subplots()
    for k, (label, curve) in enumerate(curves.items()):
        colour = COLOURS[k % len(COLOURS)]
        text = f"{label}: {curve.n_runs - curve.n_broken} of {curve.n_runs} {word}"
        axes.step(curve.time_ps, 100 * curve.fraction, where="post", color=colour, lw=1.8, label=plain(text))
        axes.fill_between(curve.time_ps, 100 * curve.low, 100 * curve.high, step="post", color=colour, alpha=0.15, lw=0)
    axes.set_xlabel("Time (ps)")
    axes.set_ylabel(f"Runs still {word} (%; shaded: 95 % limits)")
    axes.set_ylim(0.0, 104.0)
    if log_time:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0.0)
    # Many curves leave no room among them.
    beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(**(beside if len(curves) > MOST_INSIDE else {"loc": "best"}), **LEGEND)
    tidy(axes)
    return figure
