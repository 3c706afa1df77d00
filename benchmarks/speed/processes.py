"""Steps per second of a training on two processes (`run.devices=2`) against one, at the same batches.

    python benchmarks/speed/processes.py [--again] [--only painn]     # benchmarks/results/processes.json, a table

Each row is `asecalc train` on aspirin, one thread in each process, PIWSL off, validation on 10 frames at the end of an
epoch of 15 batches. The time of an epoch is the median of all but the first. `ceiling` is what two processes could
gain here without a word between them: two trainings at once, each with half of the batch, against one with the whole.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

RESULTS = Path(__file__).parents[1] / "results" / "processes.json"
DATA = Path(os.environ.get("ASECALC_DATA", "../shared/data"))
ROWS = [
    *(("painn", 64, 10), ("painn", 64, 32), ("painn", 64, 64), ("painn", 128, 10)),
    *(("tensornet", 64, 10), ("tensornet", 128, 10)),
]
BATCHES, EPOCHS = 15, 4


@click.command(help=__doc__)
@click.option("--again", is_flag=True, help="Measure rows that are already in the file.")
@click.option("--only", default="", help="Measure rows whose name begins so.")
def main(again: bool, only: str) -> None:
    """Measure every row and print the table."""
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for architecture, width, batch in ROWS:
        name = f"{architecture} {width}, batch {batch}"
        if name.startswith(only) and (again or name not in done):
            done[name] = measured(architecture, width, batch)
            RESULTS.write_text(json.dumps(done, indent=1) + "\n")
        if name not in done:
            continue
        times = "{ms_per_step_1:7.1f} {ms_per_step_2:7.1f} ms  {ratio:.2f} × of {ceiling:.2f} ×".format(**done[name])
        print(f"{name:24} {times}", flush=True)


def measured(architecture: str, width: int, batch: int) -> dict[str, float]:
    """Time one process, two, and two apart."""
    one, two = (ms_per_step(architecture, width, batch, devices) for devices in (1, 2))
    with ThreadPoolExecutor(2) as both:
        runs = [both.submit(ms_per_step, architecture, width, batch // 2, 1) for _ in range(2)]
    apart = max(run.result() for run in runs)
    return {
        "atoms": 21 * batch,
        "ms_per_step_1": one,
        "ms_per_step_2": two,
        "ratio": one / two,
        "ceiling": one / apart,
    }


def ms_per_step(architecture: str, width: int, batch: int, devices: int) -> float:
    """Train a few epochs and return the time of a step in ms."""
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
        command = [sys.executable, "-m", "asecalc_mlip.cli", "train", *settings]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        logs = list(Path(folder).rglob("log.csv"))
        if finished.returncode or not logs:
            raise SystemExit(f"{' '.join(command)}\n{finished.stdout[-2000:]}{finished.stderr[-2000:]}")
        seconds = [float(row["seconds"]) for row in csv.DictReader(logs[0].open())]
    return 1000 * statistics.median(b - a for a, b in zip(seconds, seconds[1:], strict=False)) / BATCHES


if __name__ == "__main__":
    main()
