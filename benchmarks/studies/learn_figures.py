"""Figures of the page about learning, from benchmarks/results/learn.json and learn_calibration.json.

    python benchmarks/studies/learn_figures.py [--folder runs/learn/full/dft]

With the folder of the learning by density functional theory, the spreads and errors are computed anew: on the held-out
labels of its last round, on all frames that it chose before it was trained on them, and on random frames of rMD17.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.analysis.survival import survival  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.files import read_json, write_json  # noqa: E402
from asecalc_mlip.plots.learning import calibration_figure, course_figure  # noqa: E402
from asecalc_mlip.plots.survival import survival_figure  # noqa: E402
from training.learn.committee import calibration, load_committee  # noqa: E402
from training.learn.settings import Until  # noqa: E402
from training.learn.state import Folder  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
DATA = Path(os.environ.get("ASECALC_DATA", ROOT.parent / "shared" / "data"))
ROW = "dft, full"
HELD, CHOSEN, RANDOM = "held-out labels", "chosen frames, before training on them", "random frames (rMD17)"
DPI = 130
MOST_CURVES = 6
SHOWN = 200  # random frames of which the figure shows the atoms


@click.command()
@click.option("--folder", help="Folder of the learning; default: the figures are made from what is in the results.")
def main(folder: str | None) -> None:
    """Draw course, survival and calibration."""
    torch.set_num_threads(1)
    row = read_json(RESULTS / "learn.json")[ROW]
    rounds, end = row["rounds"], Until.read(row["until"]).ps
    drawn = course_figure(
        [r["labels"] for r in rounds], [r["force_mae_meV_A"] for r in rounds], [r["stable_ps"] for r in rounds],
        [r["broken"] for r in rounds], end_ps=end,
    )  # fmt: skip
    drawn.savefig(IMAGES / "learn_course.png", dpi=DPI)
    step = -(-len(rounds) // MOST_CURVES)
    chosen = [*rounds[:-1:step], rounds[-1]]
    curves = {f"{r['labels']} labels": survival(r["stable_ps"], r["broken"]) for r in chosen}
    survival_figure(curves, log_time=True, word="quiet").savefig(IMAGES / "learn_survival.png", dpi=DPI)
    if folder:
        write_json(RESULTS / "learn_calibration.json", _calibrations(Folder(folder)), indent=None)
    parts = read_json(RESULTS / "learn_calibration.json")
    for name, part in parts.items():
        click.echo(f"{name}: { ({k: v for k, v in part.items() if k not in ('spread', 'error')}) }")
    drawn = calibration_figure({name: (part["spread"], part["error"]) for name, part in parts.items()})
    drawn.savefig(IMAGES / "learn_calibration.png", dpi=DPI)


def _calibrations(folder: Folder) -> dict[str, dict[str, Any]]:
    rounds = folder.rounds()
    last = folder.round(rounds[-1]["round"])
    members = [last.member(k) for k in range(len(list(last.path.glob("member*"))))]
    fresh = [read_json(path) for r in rounds if (path := folder.round(r["round"]).file("fresh.json")).is_file()]
    chosen = {name: [value for one in fresh for value in one[name]] for name in ("spread", "error")}
    found = {
        HELD: _judged(read_json(last.file("committee.json")), rounds[-1]["threshold"]),
        CHOSEN: _judged({**chosen, "frames": sum(one["frames"] for one in fresh)}, rounds[-1]["threshold"]),
    }
    test = DATA / "rmd17_ethanol_test.xyz"
    if test.is_file():
        frames = read_frames(test)
        one = _judged(calibration(load_committee(members), frames), rounds[-1]["threshold"])
        atoms = SHOWN * len(frames[0])
        found[RANDOM] = {**one, "spread": one["spread"][:atoms], "error": one["error"][:atoms]}
    return found


def _judged(found: dict[str, Any], threshold: float) -> dict[str, Any]:
    """Return what the spread tells of the error, atom by atom and for the worst atom of each frame."""
    spread, error = (np.array(found[name]) for name in ("spread", "error"))
    worst = [table.reshape(found["frames"], -1).max(axis=1) for table in (spread, error)]
    return {
        "frames": found["frames"],
        "atoms": len(spread),
        "rank_correlation": float(spearmanr(spread, error).statistic),
        "rank_correlation_of_largest": float(spearmanr(*worst).statistic),
        "rms_error_eV_A": float(np.sqrt((error**2).mean())),
        "rms_spread_eV_A": float(np.sqrt((spread**2).mean())),
        "threshold_eV_A": threshold,
        "frames_above_threshold": float((worst[0] >= threshold).mean()),
        "frames_with_error_above_half_eV_A": float((worst[1] > 0.5).mean()),
        "largest_error_below_threshold_eV_A": float(max(worst[1][worst[0] < threshold], default=0.0)),
        "spread": spread.round(4).tolist(),
        "error": error.round(4).tolist(),
    }


if __name__ == "__main__":
    main()
