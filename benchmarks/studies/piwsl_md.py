"""How long do the sparse-data models of the PIWSL study hold aspirin together at 500 K?

    python benchmarks/studies/piwsl_md.py [--picoseconds 50] [--trajectories 2] [--jobs 2]

Nosé-Hoover, 0.5 fs (the protocol md17), judged by the 0.5 Å bond rule. Each of three models (seeds) per loss is a
campaign of some trajectories with velocities of their own, which advance together. It needs the models of
`benchmarks/studies/piwsl_study.py run aspirin aspirin-direct` in runs/piwsl. Runs go to runs/piwsl-md; the same command
continues what was interrupted and skips what is done. Results: benchmarks/results/piwsl_md.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
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
    from asecalc_mlip.files import write_json

    steps = round(picoseconds * 2000)
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    tasks = [task for task in plan() if task.key not in done]
    absent = [task.key for task in tasks if not task.checkpoint.exists()]
    if absent:
        click.echo(f"{len(absent)} models left out, as they are not trained yet, e.g. {absent[0]}")
    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(run, task, steps, trajectories): task for task in tasks if task.checkpoint.exists()}
        for number, future in enumerate(as_completed(pending), start=1):
            task, result = pending[future], future.result()
            click.echo(f"{number:4d}/{len(pending)} {task.key:<50} {result}")
            if "failed" not in result:
                done[task.key] = result
                write_json(RESULTS, dict(sorted(done.items())))


def plan() -> Iterator[Task]:
    """Every model of the study."""
    for n_train in (100, 200):
        for model, losses in LOSSES.items():
            for loss in losses:
                for seed in (0, 1, 2):
                    yield Task(model, n_train, loss, seed)


def run(task: Task, steps: int, trajectories: int) -> dict[str, Any]:
    """Run or continue the trajectories of a model in a process of its own."""
    arguments = ["--output", str(task.folder)]
    if (task.folder / "campaign.json").exists():
        arguments.append("--restart")
    else:
        task.folder.parent.mkdir(parents=True, exist_ok=True)
        # Velocities of no two models are alike.
        seeds = ",".join(str(100 * task.seed + k) for k in range(trajectories))
        arguments += ["--model", str(task.checkpoint), "--structure", str(ZOO / "aspirin.xyz"), "--seeds", seeds]
        arguments += ["--reference", str(ZOO / "aspirin.reference.json"), "--protocol", "md17", "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "asecalc_mlip.cli", "campaign", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    try:
        (group,) = json.loads((task.folder / "campaign_summary.json").read_text())["groups"]
    except (OSError, ValueError):
        return {"failed": (done.stderr.strip() or done.stdout.strip())[-300:]}
    if done.returncode:
        return {"failed": done.stderr.strip()[-300:]}
    names = ("runs", "stable", "failures", "h_error", "temperature_mean_K", "ms_per_replica_step")
    times = [json.loads(path.read_text())["stable_ps"] for path in sorted(task.folder.glob("*/summary.json"))]
    return {"picoseconds": steps / 2000, "stable_ps": times, **{name: group[name] for name in names}}


if __name__ == "__main__":
    main()
