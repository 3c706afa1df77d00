"""How long do the sparse-data models of the PIWSL study hold aspirin together at 500 K?

    python benchmarks/piwsl_md.py [--picoseconds 50] [--jobs 2]

Nosé-Hoover, 0.5 fs (the protocol md17), judged by the 0.5 Å bond rule; two trajectories for each of three models
(seeds) per loss, each with velocities of its own. It needs the models of `benchmarks/piwsl_study.py run aspirin
aspirin-direct` in runs/piwsl. Runs go to runs/piwsl-md; the same command continues what was interrupted and skips what
is done. Results: benchmarks/results/piwsl_md.json.
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

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "piwsl_md.json"
LOSSES = {
    "painn": ("plain", "plain, 2 x steps", "first", "antithetic"),
    "painn-direct": ("plain", "plain, 2 x steps", "first", "trapezoid"),
}
TRAJECTORIES = (1, 2)


@dataclass(frozen=True)
class Task:
    """One trajectory."""

    model: str
    n_train: int
    loss: str
    seed: int
    trajectory: int

    @property
    def key(self) -> str:
        """As in the study, with the trajectory."""
        return f"aspirin {self.n_train}/{self.model}/{self.loss}/seed {self.seed}/trajectory {self.trajectory}"

    @property
    def checkpoint(self) -> Path:
        """Model of the study."""
        return ROOT / "runs" / "piwsl" / Path(self.key).parent / "model.pt"

    @property
    def folder(self) -> Path:
        """Where the trajectory goes."""
        return ROOT / "runs" / "piwsl-md" / self.key


@click.command(help=__doc__)
@click.option("--picoseconds", type=click.FloatRange(0.1), default=50.0, show_default=True, help="Of each trajectory.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Runs at once, one thread each.")
def main(picoseconds: float, jobs: int) -> None:
    """Run what is missing."""
    steps = round(picoseconds * 2000)
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    tasks = [task for task in plan() if done.get(task.key, {}).get("steps", 0) < steps]
    absent = [task.key for task in tasks if not task.checkpoint.exists()]
    if absent:
        click.echo(f"{len(absent)} trajectories left out: their models are not trained yet, e.g. {absent[0]}")
    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(run, task, steps): task for task in tasks if task.checkpoint.exists()}
        for number, future in enumerate(as_completed(pending), start=1):
            task, result = pending[future], future.result()
            click.echo(f"{number:4d}/{len(pending)} {task.key:<70} {result}")
            if "failed" not in result:
                done[task.key] = {**result, "steps": steps}
                temporary = RESULTS.with_suffix(".writing")
                temporary.write_text(json.dumps(dict(sorted(done.items())), indent=1))
                temporary.replace(RESULTS)


def plan() -> Iterator[Task]:
    """Every trajectory of the study."""
    for n_train in (100, 200):
        for trajectory in TRAJECTORIES:
            for model, losses in LOSSES.items():
                for loss in losses:
                    for seed in (0, 1, 2):
                        yield Task(model, n_train, loss, seed, trajectory)


def run(task: Task, steps: int) -> dict[str, Any]:
    """Run or continue one trajectory in a process of its own."""
    task.folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--model", str(task.checkpoint), "--output", str(task.folder), "--steps", str(steps)]
    if (task.folder / "restart.npz").exists():
        arguments.append("--restart")
    else:
        structure = ROOT / "asecalc_mlip" / "zoo" / "aspirin.xyz"
        seed = 100 * task.seed + task.trajectory
        arguments += ["--structure", str(structure), "--seed", str(seed), "--protocol", "md17", "--interval", "100"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "md_protocols.nvt", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    try:
        summary = json.loads((task.folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {"failed": (done.stderr.strip() or done.stdout.strip())[-300:]}
    return {
        "stable": summary["stable"],
        "stable_ps": summary["stable_ps"],
        "failure": summary["failure"],
        "temperature_mean_K": summary["temperature_mean_K"],
        "wall_s": round(summary["wall_s"], 1),
    }


if __name__ == "__main__":
    main()
