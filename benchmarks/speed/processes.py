"""Time of a training step on two processes (`run.devices=2`) against one, at the same batches.

    python benchmarks/speed/processes.py [--again] [--only "painn 64"]     # benchmarks/results/processes.json, a table

Each row trains on aspirin with one thread in each process, PIWSL off. The time is the median over the steps of all
epochs but the first, without validation. `ceiling` is what two processes could gain here without a word between them:
two trainings at once, each with half of the batch, against one with the whole.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytorch_lightning as pl

from asecalc_mlip.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "processes.json"
DATA = Path(os.environ.get("ASECALC_DATA", "../shared/data"))
ROWS = [
    *(("painn", 64, 10), ("painn", 64, 32), ("painn", 64, 64), ("painn", 128, 10)),
    *(("tensornet", 64, 10), ("tensornet", 128, 10)),
]
BATCHES, EPOCHS = 12, 3


@click.command(help=__doc__)
@click.option("--again", is_flag=True, help="Measure rows that are already in the file.")
@click.option("--only", multiple=True, default=[""], help="Measure rows whose name begins so.")
@click.option("--one", nargs=4, type=(str, int, int, int), hidden=True)
def main(again: bool, only: tuple[str, ...], one: tuple[str, int, int, int] | None) -> None:
    """Measure every row and print the table."""
    if one is not None:
        print(json.dumps(train_steps(*one)))
        return
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for architecture, width, batch in ROWS:
        name = f"{architecture} {width}, batch {batch}"
        if name.startswith(only) and (again or name not in done):
            done[name] = measured(architecture, width, batch)
            write_json(RESULTS, done)
        if name in done:
            row = "{ms_per_step_1:7.1f} {ms_per_step_2:7.1f} ms  {ratio:.2f} × of {ceiling:.2f} ×"
            print(f"{name:24} {row.format(**done[name])}", flush=True)


def measured(architecture: str, width: int, batch: int) -> dict[str, float]:
    """Time one process, two, and two apart."""
    one, two = (ms_per_step(architecture, width, batch, devices) for devices in (1, 2))
    with ThreadPoolExecutor(2) as both:
        runs = [both.submit(ms_per_step, architecture, width, batch // 2, 1) for _ in range(2)]
    apart = max(run.result() for run in runs)
    return {
        "atoms": 21 * batch,
        "ms_per_step_1": round(one, 2),
        "ms_per_step_2": round(two, 2),
        "ratio": round(one / two, 3),
        "ceiling": round(one / apart, 3),
    }


def ms_per_step(*row: Any) -> float:
    """Return the time of a step in ms, of a training in a process of its own."""
    command = [sys.executable, __file__, "--one", *map(str, row)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}\n{finished.stdout[-2000:]}{finished.stderr[-2000:]}")
    return float(finished.stdout.splitlines()[-1])


def train_steps(architecture: str, width: int, batch: int, devices: int) -> float:
    """Train a few epochs here and return the time of a step in ms."""
    from training.config import load_config
    from training.train import train

    steps = Steps()
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            f"data.train={DATA / 'rmd17_aspirin_train.xyz'}",
            f"data.n_train={BATCHES * batch}",
            "data.n_val=10",
            f"model.architecture={architecture}",
            f"model.hyperparameters={{cutoff: 5.0, n_features: {width}}}",
            f"run.output={folder}",
            f"run.batch_size={batch}",
            f"run.max_epochs={EPOCHS}",
            f"run.devices={devices}",
            "run.seed=0",
            "run.device=cpu",
            "run.threads=1",
        ]
        train(load_config([], settings), [steps])
    return 1000 * statistics.median(steps.seconds)


class Steps(pl.Callback):
    """Times from the beginning of a step to that of the next one in the same epoch, s; the first epoch is left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, _module: Any, _batch: Any, batch_idx: int) -> None:
        """Look at the clock."""
        now = time.perf_counter()
        if batch_idx and trainer.current_epoch:
            self.seconds.append(now - self._last)
        self._last = now


if __name__ == "__main__":
    main()
