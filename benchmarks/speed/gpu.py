"""Speed and errors of every engine on a GPU: one resumable command.

    python benchmarks/speed/gpu.py                  # writes benchmarks/results/speed_gpu.json, prints a table
    python benchmarks/speed/gpu.py --device cpu --quick --results DIR     # the same code, to see that it runs

The shipped-size PaiNN and SchNet (128 features × 3, cutoff 5 Å, random weights). `engine` rows: energy and forces of a
graph that is on the device, positions new in each call; `calculator` rows: a step as in dynamics, list and transfers
included; `batch` rows: structures at once. Forces are compared with eager float64. Rows that are in the file are not
measured again; one that fails says why and is tried again next time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.bench.structures import structure
from asecalc_mlip.bench.timing import machine
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.engine import Compile, make_engine
from asecalc_mlip.graph import AtomGraph, batch_graphs, graph_from_atoms
from asecalc_mlip.models import Potential, build_potential, predict

CUTOFF = 5.0  # Å
SIZES = {"cutoff": CUTOFF, "n_features": 128, "n_interactions": 3, "n_rbf": 20}
ELEMENTS = (1, 6, 8, 14)
STRUCTURES = ("aspirin", "quartz-72", "quartz-576", "quartz-2025")
BATCHES = (1, 8, 64, 256, 1024)
# Engine and precision; on a CPU only float32 is allowed.
WAYS: tuple[tuple[Compile, str], ...] = (
    *(("eager", precision) for precision in ("float32", "tf32", "bf16")),
    *(("cuda-graph", precision) for precision in ("float32", "tf32", "bf16")),
    ("compiled", "float32"),
)


@click.command(help=__doc__)
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:1, or cpu.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path(__file__).parents[1] / "results", help="Folder."
)
@click.option("--quick", is_flag=True, help="Few calls, small structures.")
def main(device: str, results: Path, quick: bool) -> None:
    """Measure what is missing."""
    place = torch.device(device)
    path = results / "speed_gpu.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    done["machine"] = {**machine(), "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"}
    for key, measure in plan(place, quick):
        if key in done and "failed" not in done[key]:
            continue
        try:
            done[key] = measure()
        except Exception as error:  # noqa: BLE001  one row must not end the others
            done[key] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        click.echo(f"{key:<58} {done[key]}")
        path.write_text(json.dumps(done, indent=1) + "\n")


def plan(device: torch.device, quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every row with what measures it."""
    ways = [way for way in WAYS if device.type == "cuda" or (way[1] == "float32" and way[0] != "cuda-graph")]
    calls = 3 if quick else 50
    for architecture in ("painn", "schnet"):
        for name in STRUCTURES[:1] if quick else STRUCTURES:
            for engine, precision in ways:
                key = f"engine, {architecture}, {name}, {engine}, {precision}"
                yield key, partial(engine_row, architecture, name, engine, precision, device, calls)
        yield f"calculator, {architecture}, aspirin", partial(calculator_row, architecture, device, calls)
        for size in BATCHES[:2] if quick else BATCHES:
            for engine, precision in ways:
                key = f"batch, {architecture}, {size} x aspirin, {engine}, {precision}"
                yield key, partial(batch_row, architecture, size, engine, precision, device, calls)


def engine_row(
    architecture: str, name: str, engine: Compile, precision: str, device: torch.device, calls: int
) -> dict[str, Any]:
    """Median milliseconds of one call, and the largest difference of a force to eager float64."""
    graph = graph_from_atoms(structure(name), CUTOFF).to(device)
    run = make_engine(potential(architecture, device), engine, precision=precision)  # type: ignore[arg-type]
    milliseconds = timed(run, graph, calls)
    exact = predict(potential(architecture, device).double(), graph)
    result = run(graph)
    assert result.forces is not None and exact.forces is not None
    return {
        "ms": milliseconds,
        "atoms": graph.n_atoms,
        "edges": graph.n_edges,
        "force_difference_eV_per_A": float((result.forces - exact.forces).abs().max()),
        "energy_difference_eV_per_atom": float((result.energy - exact.energy).abs().max() / graph.n_atoms),
        "largest_force_eV_per_A": float(exact.forces.abs().max()),
        "engine": run.describe(),
    }


def calculator_row(architecture: str, device: torch.device, calls: int) -> dict[str, Any]:
    """Median milliseconds of a step through ASE."""
    atoms, rng = structure("aspirin"), np.random.default_rng(0)
    model = LoadedModel(potential(architecture, torch.device("cpu")), {}, Path("benchmark.pt"))
    calculator = PIWSLCalculator(model, device=str(device))
    times = []
    for _ in range(2 * calls + 10):
        atoms.positions += rng.normal(0, 0.003, atoms.positions.shape)
        start = time.perf_counter()
        calculator.get_forces(atoms)
        times.append(1000 * (time.perf_counter() - start))
    hits = calculator.stats()["neighbor_hit_rate"]
    return {
        "ms": round(float(np.median(times[10:])), 4),
        "neighbor_hit_rate": hits,
        "engine": calculator.engine.describe(),
    }


def batch_row(
    architecture: str, size: int, engine: Compile, precision: str, device: torch.device, calls: int
) -> dict[str, Any]:
    """Milliseconds of a batch and atom evaluations per second."""
    one = graph_from_atoms(structure("aspirin"), CUTOFF)
    graph = batch_graphs([one] * size).to(device)
    run = make_engine(potential(architecture, device), engine, precision=precision)  # type: ignore[arg-type]
    milliseconds = timed(run, graph, max(3, calls // 2))
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return {
        "ms": milliseconds,
        "atom_evaluations_per_s": round(graph.n_atoms / milliseconds * 1000),
        "peak_memory_GB": memory,
        "engine": run.describe(),
    }


def timed(run: Any, graph: AtomGraph, calls: int) -> float:
    """Median milliseconds of calls with new positions, each waited for."""
    noise = [0.01 * torch.randn_like(graph.positions) for _ in range(4)]
    times = []
    for call in range(calls + 5):
        moved = replace(graph, positions=graph.positions + noise[call % 4])
        _wait(graph.positions.device)
        start = time.perf_counter()
        run(moved)
        _wait(graph.positions.device)
        times.append(1000 * (time.perf_counter() - start))
    return round(float(np.median(times[5:])), 4)


def potential(architecture: str, device: torch.device) -> Potential:
    """Random weights, the same each time."""
    torch.manual_seed(0)
    made = build_potential(architecture, SIZES, reference_energies=dict.fromkeys(ELEMENTS, 0.0))
    return made.eval().requires_grad_(False).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
