"""Replicas in one batch against the same runs one after another through ASE, on one thread and on two.

    python benchmarks/speed/replicas.py            # 64 replicas of aspirin_painn.pt, Nosé-Hoover at 500 K

Prints a table and writes campaign.json beside the other results. CPU seconds are given besides wall time, because they
do not depend on who else uses the machine. Times of two threads mean something on an idle machine only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from ase.io import read

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a checkout that is not installed
    sys.path.insert(0, str(ROOT))

import asecalc_mlip.md.summary  # noqa: E402
from asecalc_mlip import PIWSLCalculator, zoo  # noqa: E402
from asecalc_mlip.files import write_json  # noqa: E402
from asecalc_mlip.md.campaign.runs import plan_runs, run_share, write_plan  # noqa: E402
from asecalc_mlip.md.lifecycle import run_md  # noqa: E402
from asecalc_mlip.md.resolving import resolve  # noqa: E402
from asecalc_mlip.md.settings import make_settings  # noqa: E402

RESULT = Path(__file__).parents[1] / "results" / "campaign.json"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Throughput of batched replicas.")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--alone", type=int, default=3, help="runs one after another")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--thermostat", choices=("nose-hoover", "langevin"), default="nose-hoover")
    options = parser.parse_args()
    torch.set_num_threads(1)
    asecalc_mlip.md.summary._figure = lambda *arguments: b""  # neither side draws
    path = zoo.find("aspirin_painn.pt")
    calculator = PIWSLCalculator.load(path, device="cpu")
    start = read(path.with_suffix(".xyz"))
    with tempfile.TemporaryDirectory() as folder:
        alone = _alone(options, calculator, path, start, Path(folder))
        rows = [_batched(options, calculator, path, start, Path(folder), n, 1) for n in options.replicas]
        rows.append(_batched(options, calculator, path, start, Path(folder), max(options.replicas), 2))
    print(
        f"{'':<24} {'CPU ms':>9} {'wall ms':>9}  per replica step, {options.thermostat}, {calculator.engine.describe()}"
    )
    print(f"{'one after another, ASE':<24} {alone['cpu_ms']:>9.3f} {alone['wall_ms']:>9.3f}")
    for row in rows:
        ratio = row["ratio_wall"] = alone["wall_ms"] / row["wall_ms"]
        name = f"{row['replicas']} in a batch, {row['threads']} threads"
        print(f"{name:<24} {row['cpu_ms']:>9.3f} {row['wall_ms']:>9.3f}  {ratio:.2f} x")
    model = _model(calculator, start)
    print(f"{'the model alone':<24} {model:>9.3f}            what no batching can beat")
    result = {"alone": alone, "batched": rows, "model_alone_ms": model, "steps": options.steps}
    write_json(RESULT, result)


def _settings(options, path: Path, temperature: float | None, seed: int):
    given = {"model": str(path), "steps": options.steps, "thermostat": options.thermostat, "seed": seed}
    return make_settings("nvt", {**given, "temperature_K": temperature})


def _alone(options, calculator, path: Path, start, folder: Path) -> dict:
    clock = _Clock()
    for seed in range(options.alone):
        atoms = start.copy()
        atoms.calc = calculator
        reference = resolve(path, atoms, calculator=calculator).reference
        run_md(atoms, _settings(options, path, 500.0, seed), folder / f"alone{seed}", reference=reference)
    return clock.per(options.alone * options.steps)


def _batched(options, calculator, path: Path, start, folder: Path, n: int, threads: int) -> dict:
    runs = plan_runs([path], 1, [500.0], range(n), lambda _, T, seed: _settings(options, path, T, seed))
    name = folder / f"batch{n}-{threads}"
    write_plan(name, runs, [start])
    clock = _Clock()
    run_share(str(name), runs, calculator=calculator, threads=threads)
    torch.set_num_threads(1)
    return {"replicas": n, "threads": threads, **clock.per(n * options.steps)}


def _model(calculator, start) -> float:
    """CPU ms of the engine alone for one structure of a batch of 64: what no batching can beat."""
    from asecalc_mlip.graph import batch_graphs, graph_from_atoms

    graph = batch_graphs([graph_from_atoms(start, calculator.cutoff)] * 64)
    calculator.engine(graph)
    clock = _Clock()
    for _ in range(5):
        calculator.engine(graph)
    return clock.per(5 * 64)["cpu_ms"]


class _Clock:
    """CPU and wall time since it was made."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def per(self, number: int) -> dict:
        """Milliseconds per one of `number`."""
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        return {"cpu_ms": 1e3 * cpu / number, "wall_ms": 1e3 * wall / number}


if __name__ == "__main__":
    main()
