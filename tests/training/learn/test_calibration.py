"""Calibration of a committee's spread, and figures of a learning."""

import numpy as np
import pytest
from ase.build import molecule

from asecalc_mlip.analysis.survival import survival
from asecalc_mlip.plots.learning import calibration_figure, course_figure
from asecalc_mlip.plots.survival import survival_figure
from training.learn.committee import (
    calibration,
)


class HalfAsSure:
    """A committee whose spread is half of its error."""

    def evaluate(self, frames):
        sizes = np.random.default_rng(0).uniform(0.1, 2.0, (len(frames), 3))
        return [
            {"forces": a.arrays["forces"] + s[:, None] * [1.0, 0.0, 0.0], "forces_std": 0.5 * s}
            for a, s in zip(frames, sizes, strict=True)
        ]


def waters(number):
    frames = [molecule("H2O") for _ in range(number)]
    for atoms in frames:
        atoms.arrays["forces"] = np.zeros((3, 3))
    return frames


def test_calibration_of_spreads_that_are_half_of_the_errors():
    found = calibration(HalfAsSure(), waters(4))
    assert found["ratio"] == pytest.approx(2.0)
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["force_mae_meV_A"] == pytest.approx(1e3 * np.mean(found["error"]) / 3, rel=1e-4)


def test_one_strained_frame_does_not_decide_the_calibration():
    class Strained(HalfAsSure):
        def evaluate(self, frames):
            results = super().evaluate(frames)
            results[-1]["forces"] = results[-1]["forces"] + 20.0
            return results

    found = calibration(Strained(), waters(10))
    assert found["ratio"] == pytest.approx(2.0, rel=0.15)
    assert max(found["error"]) > 10 * max(found["spread"])


def test_lines_of_the_calibration_figure_are_root_mean_squares_of_tenths():
    spread = np.arange(1.0, 201.0)
    shuffled = np.random.default_rng(0).permutation(200)
    axes = calibration_figure({"held out": (spread[shuffled], 3.0 * spread[shuffled])}).axes[0]
    line = axes.lines[-1]
    assert line.get_xdata() == pytest.approx(np.sqrt((spread.reshape(10, 20) ** 2).mean(axis=1)))
    assert line.get_ydata() == pytest.approx(3.0 * np.asarray(line.get_xdata()))
    few = calibration_figure({"held out": (spread[:50], spread[:50])}).axes[0].lines[-1]
    assert len(few.get_xdata()) == 2


def test_points_of_the_calibration_figure_hide_neither_lines_nor_legend():
    drawn = calibration_figure({"few": ([1.0] * 20, [1.0] * 20), "many": ([1.0] * 200, [2.0] * 200)})
    equal, few, line, many, other = drawn.axes[0].lines
    assert equal.get_label() == "error = spread" and line.get_label() == "few" and other.get_label() == "many"
    assert many.zorder < few.zorder < line.zorder == other.zorder
    assert drawn.axes[0].get_legend() is None and len(drawn.legends) == 1


@pytest.mark.parametrize(("broken", "ends"), [(True, "a frame to label"), (False, "quiet to the end")])
def test_the_legend_of_the_course_names_what_is_drawn(broken, ends):
    drawn = course_figure([10], [50.0], [[1.0, 2.0]], [[broken, broken]], end_ps=5.0)
    assert [text.get_text() for text in drawn.axes[1].get_legend().get_texts()] == [ends, "median", "asked for"]


def test_survival_on_a_logarithmic_axis_of_time():
    drawn = survival_figure({"10 labels": survival([0.01, 50.0], [True, False])}, log_time=True)
    assert drawn.axes[0].get_xscale() == "log"
    assert survival_figure({"10 labels": survival([0.01, 50.0], [True, False])}).axes[0].get_xlim()[0] == 0.0


def test_replicas_of_a_learning_are_quiet_and_not_only_stable():
    axes = survival_figure({"10 labels": survival([0.01, 50.0], [True, False])}, word="quiet").axes[0]
    assert (
        axes.get_ylabel() == "Runs still quiet (%; shaded: 95 % limits)"
        and axes.lines[0].get_label() == "10 labels: 1 of 2 quiet"
    )
