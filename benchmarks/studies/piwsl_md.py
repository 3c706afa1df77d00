"""How long do the sparse-data models of the PIWSL study hold aspirin together at 500 K?

    python benchmarks/studies/piwsl_md.py [--picoseconds 50] [--trajectories 2] [--jobs 2]

Nosé-Hoover, 0.5 fs (the protocol md17), judged by the 0.5 Å bond rule. Each of three models (seeds) per loss is a
campaign of some trajectories with velocities of their own, which advance together. It needs the models of
`benchmarks/studies/piwsl_study.py run aspirin aspirin-direct` in runs/piwsl. Runs go to runs/piwsl-md; the same command
continues what was interrupted and skips what is done. Results: benchmarks/results/piwsl_md.json.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.studies.campaigns import campaign_summary, run_campaign  # noqa: E402
from benchmarks.studies.grid import run_rows  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "piwsl_md.json"
ZOO = ROOT / "asecalc_mlip" / "zoo"
LOSSES = {"painn": ("plain", "first"), "painn-direct": ("plain", "antithetic")}


@dataclass(frozen=True)
class Task:
    """The trajectories of one model."""

    model: str
    n_train: int
    loss: str
    seed: int

    @property
    def key(self) -> str:
        """As in the study."""
        return f"aspirin {self.n_train}/{self.model}/{self.loss}/seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """Model of the study."""
        return ROOT / "runs" / "piwsl" / self.key / "model.pt"

    @property
    def folder(self) -> Path:
        """Where the trajectories go."""
        return ROOT / "runs" / "piwsl-md" / self.key


@click.command(help=__doc__)
@click.option("--picoseconds", type=click.FloatRange(0.1), default=50.0, show_default=True, help="Of each trajectory.")
@click.option("--trajectories", type=click.IntRange(1), default=2, show_default=True, help="Of each model.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Models at once, one thread each.")
def main(picoseconds: float, trajectories: int, jobs: int) -> None:
    """Run what is missing."""
    tasks = plan()
    absent = [task.key for task in tasks if not task.checkpoint.exists()]
    if absent:
        click.echo(f"{len(absent)} models left out, as they are not trained yet, e.g. {absent[0]}")
    work = partial(run, steps=round(picoseconds * 2000), trajectories=trajectories)
    run_rows([task for task in tasks if task.checkpoint.exists()], work, RESULTS, jobs=jobs, say=campaign_summary)


def plan() -> list[Task]:
    """Every model of the study."""
    return [
        Task(model, n_train, loss, seed)
        for n_train in (100, 200)
        for model, losses in LOSSES.items()
        for loss in losses
        for seed in (0, 1, 2)
    ]


def run(task: Task, *, steps: int, trajectories: int) -> dict[str, Any]:
    """Run or continue the trajectories of a model."""
    # Velocities of no two models are alike.
    seeds = ",".join(str(100 * task.seed + k) for k in range(trajectories))
    arguments = ["--model", str(task.checkpoint), "--structure", str(ZOO / "aspirin_painn.xyz"), "--seeds", seeds]
    arguments += ["--reference", str(ZOO / "aspirin_painn.reference.json")]
    arguments += ["--protocol", "md17", "--steps", str(steps)]
    names = ("runs", "stable", "failures", "h_error", "temperature_mean_K", "ms_per_replica_step")
    result = run_campaign(task.folder, arguments, names)
    return result if "failed" in result else {"picoseconds": steps / 2000, **result}


if __name__ == "__main__":
    main()
