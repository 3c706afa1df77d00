"""Cost of every architecture in one run: milliseconds per energy-and-forces call and per training step.

    python benchmarks/speed/architectures.py --threads 1
    python benchmarks/speed/architectures.py --threads 2  # each writes its rows into architectures.json

Random weights, cutoff 5 Å, float32. A call is that of the calculator on a structure that moves as in dynamics, by the
engine that it chooses and by autograd; a training step is on energies and forces of 10 aspirins. All architectures take
turns, so that whatever else the machine does hurts them alike; medians. Architectures that are there are skipped, and
--only names those to measure. Where the processor has other work, --processor counts the time that it spends on the
measurement instead of the time that passes; rows say so. A figure of the rows with one thread is drawn beside them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.bench.structures import structure  # noqa: E402
from asecalc_mlip.bench.timing import Walk, machine, race  # noqa: E402
from asecalc_mlip.files import read_json, write_json  # noqa: E402
from asecalc_mlip.plots.speed import costs  # noqa: E402
from benchmarks.speed.train_step import stepper, ten_aspirins  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "architectures.json"
SYSTEMS = ("aspirin", "quartz-72", "quartz-576")
E0 = dict.fromkeys((1, 6, 7, 8, 14), 0.0)
# Name of a row → architecture, and what differs from the defaults of its class.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "painn 64x3": ("painn", {"n_features": 64}),
    "painn 128x3": ("painn", {"n_features": 128}),
    "schnet 128x3": ("schnet", {"n_features": 128}),
    "tensornet 64x2": ("tensornet", {"n_features": 64}),
    "tensornet 128x2": ("tensornet", {"n_features": 128}),
    "m3gnet 64x3": ("m3gnet", {"n_features": 64}),
    "torchmd_et 128x8": ("torchmd_et", {}),
    "cgcnn 100x4": ("cgcnn", {}),
    "spinconv 32x2": ("spinconv", {}),
    "escn 32x2": ("escn", {}),
    "escn 32x2 published grids": ("escn", {"grid": "published"}),
    "equiformer_v2 32x2": ("equiformer_v2", {}),
    "equiformer_v2 32x2 published grids": ("equiformer_v2", {"grid": "published"}),
}

# By autograd the largest structure takes seconds a call, so it is for those that have a kernel.
LARGE, WITH_KERNELS = 500, ("painn 128x3", "schnet 128x3", "tensornet 64x2", "tensornet 128x2", "m3gnet 64x3")


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the CPU.")
@click.option("--seconds", default=3.0, show_default=True, help="For each side of each row.")
@click.option("--only", help="Beginning of the names of rows; default: all.", default="")
@click.option("--processor", is_flag=True, help="Processor time; with one thread.")
@click.option("--system", "systems", multiple=True, type=click.Choice([*SYSTEMS, "step"]), help="Default: all.")
def main(threads: int, seconds: float, only: str, processor: bool, systems: tuple[str, ...]) -> None:
    """Measure what is missing."""
    import torch

    if processor and threads > 1:
        raise click.UsageError("--processor adds the time of all threads; use it with --threads 1")
    torch.set_num_threads(threads)
    found: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}
    plan = {f"{system}, {threads} threads": system for system in systems or SYSTEMS if system != "step"}
    if not systems or "step" in systems:
        plan[f"training step, {threads} threads"] = "step"
    for key, system in plan.items():
        rows = found.setdefault(key, {"machine": machine()})
        there = {row.partition(", ")[0] for row in rows}
        names = [name for name in _of(system) if name.startswith(only) and name not in there]
        if names:
            clock = time.process_time if processor else time.perf_counter
            new = training_steps(names, seconds, clock) if system == "step" else calls(system, names, seconds, clock)
            rows.update({name: {**row, "clock": "processor"} for name, row in new.items()} if processor else new)
        for name in rows.keys() - {"machine"}:
            rows[name].setdefault("parameters", _size(name.partition(", ")[0]))
        write_json(RESULTS, found)
        click.echo(f"{key}\n{table(rows)}")
    costs(found, path=RESULTS.with_suffix(".png"))


def calls(system: str, names: list[str], seconds: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Milliseconds of a call by the engine of "auto" and by autograd."""
    from asecalc_mlip import PIWSLCalculator

    atoms, walks = structure(system), {}
    for name in names:
        for engine in ("auto", "eager"):
            calculator = PIWSLCalculator(loaded(name), device="cpu", compile=engine)
            walks[f"{name}, {engine}"] = Walk(calculator, atoms, clock=clock)
    times = race(walks, seconds=seconds)
    found = {name: {"ms": round(t.step(), 3), "steps": len(t.total_ms)} for name, t in times.items()}
    return {name: {**row, "parameters": _size(name.partition(", ")[0])} for name, row in found.items()}


def training_steps(names: list[str], seconds: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Milliseconds of a step on energies and forces."""
    steps: dict[str, Callable[[], None]] = {name: training_step(name, ten_aspirins()) for name in names}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = time.perf_counter() + seconds * len(steps)
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, step in steps.items():
            start = clock()
            step()
            times[name].append(1e3 * (clock() - start))
    return {
        name: {"ms": round(float(np.median(t)), 2), "steps": len(t), "parameters": _size(name)}
        for name, t in times.items()
    }


def table(rows: dict[str, Any]) -> str:
    """Return the rows as text, with the ratio to PaiNN 128 × 3."""
    first = next((rows[name]["ms"] for name in ("painn 128x3, auto", "painn 128x3") if name in rows), None)
    lines = [f"  {n:<26} {r['ms']:9.2f} ms   {r['ms'] / first:6.2f} x" for n, r in rows.items() if n != "machine"]
    return "\n".join(lines)


def loaded(name: str) -> Any:
    """Return a model of random weights, as from a file."""
    from asecalc_mlip.checkpoint import LoadedModel

    return LoadedModel(_potential(name).eval().requires_grad_(False), {"name": name}, Path(f"{name}.pt"))


def _potential(name: str) -> Any:
    import torch

    from asecalc_mlip.models import build_potential

    architecture, changes = MODELS[name]
    torch.manual_seed(0)
    return build_potential(architecture, {"cutoff": 5.0, **changes}, reference_energies=E0)


def _of(system: str) -> list[str]:
    large = system != "step" and len(structure(system)) >= LARGE
    return list(WITH_KERNELS if large else MODELS)


def _size(name: str) -> int:
    return sum(weights.numel() for weights in _potential(name).parameters())


def training_step(name: str, batch: dict[str, Any]) -> Callable[[], None]:
    """Return a training step of ours on a batch."""
    from training.config import LossConfig, OptimizerConfig
    from training.task import PotentialAdapter, TrainingTask, make_outputs

    adapter = PotentialAdapter(_potential(name), forces=True, stress=False, weak=None, reach=5.0)
    task = TrainingTask(adapter, make_outputs(LossConfig(), None), OptimizerConfig(), max_epochs=1)
    return stepper(task, batch)


if __name__ == "__main__":
    main()
