"""Milliseconds per energy-and-forces step, ours against SchNetPack's SpkCalculator with the same weights, in one run.

    python benchmarks/speed.py            # writes benchmarks/results/speed.json and speed.png, skips rows already there
    python benchmarks/speed.py --scaling  # ours alone: 9 to 104 976 atoms, and batches of 1 to 256 aspirins

Random weights, 128 features × 3 blocks, 20 Gaussians, cutoff 5 Å, float32. A step moves every atom by about 0.01 Å and
asks the calculator for forces, neighbour list included (SchNetPack: matscipy list; ours: vesin with a skin of 0.5 Å,
walking back and forth). Steps of the two alternate; medians are given. `tuned` tells glibc's malloc to keep its memory,
which SchNetPack gains most from. Each row runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import read
from ase.spacegroup import crystal

RESULTS = Path(__file__).parent / "results"
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "10000000000"}
SYSTEMS = ["aspirin", "quartz 72", "water 192", "quartz 576", "quartz 2025"]
ELEMENTS = [1, 6, 8, 14]
HYPERPARAMETERS = {"cutoff": 5.0, "n_features": 128, "n_interactions": 3, "n_rbf": 20}


@click.command(help=__doc__)
@click.option("--scaling", is_flag=True, help="Ours alone: sizes and batches.")
@click.option("--again", is_flag=True, help="Measure rows that are already in the file.")
@click.option("--row", default=None, hidden=True, help="JSON of one row: measure it in this process.")
def main(scaling: bool, again: bool, row: str | None) -> None:
    """Measure what is missing and draw the figure."""
    if row is not None:
        print(json.dumps(measure(**json.loads(row))))
        return
    rows = _scaling_rows() if scaling else _comparison_rows()
    path = RESULTS / ("speed_scaling.json" if scaling else "speed.json")
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not again else {}
    for name, (arguments, environment) in rows.items():
        if name not in done:
            done[name] = _in_a_process(arguments, environment)
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps(done, indent=1))
        click.echo(f"{name:44} {_summary(done[name])}")
    _figure(done, path.with_suffix(".png"), scaling)


def measure(kind: str, **arguments: Any) -> dict[str, Any]:
    """One row: `compare`, `size` or `batch`."""
    import torch

    torch.set_num_threads(arguments.pop("threads"))
    result = {"compare": _compare, "size": _size, "batch": _batch}[kind](**arguments)
    return {**result, "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}


def _comparison_rows() -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    rows = {}
    for architecture in ("painn", "schnet"):
        for threads in (1, 2):
            for tuned in (False, True):
                for system in SYSTEMS:
                    name = f"{architecture}, {system}, {threads} threads{', tuned malloc' if tuned else ''}"
                    arguments = {"kind": "compare", "architecture": architecture, "system": system, "threads": threads}
                    rows[name] = (arguments, MALLOC if tuned else {})
    return rows


def _scaling_rows() -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    rows: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    for repeat in (1, 2, 4, 6, 9, 14, 18, 22.68):
        cells = [int(repeat)] * 3 if repeat != 22.68 else [18, 24, 27]
        atoms = 9 * int(np.prod(cells))
        rows[f"quartz, {atoms} atoms"] = ({"kind": "size", "cells": cells, "threads": 2}, {})
    for size in (1, 8, 64, 256):
        rows[f"aspirin, batch of {size}"] = ({"kind": "batch", "size": size, "threads": 2}, {})
    return rows


def _in_a_process(arguments: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", json.dumps(arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments["threads"]), **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def structure(name: str) -> Atoms:
    """Benchmark structure by name."""
    if name == "aspirin":
        from asecalc_mlip.checkpoint import ZOO

        return read(ZOO / "aspirin.xyz")
    if name.startswith("quartz"):
        return quartz() * {72: (2, 2, 2), 576: (4, 4, 4), 2025: (5, 5, 9)}[int(name.split()[1])]
    rng, box = np.random.default_rng(0), Atoms(cell=[12.43] * 3, pbc=True)
    for site in np.ndindex(4, 4, 4):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate((np.array(site) + 0.5) * 12.43 / 4)
        box += water
    return box


def quartz() -> Atoms:
    """α-quartz, 9 atoms, P3₂21, Levien et al. 1980."""
    sites = [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)]
    return crystal(["Si", "O"], sites, spacegroup=154, cellpar=[4.916, 4.916, 5.4054, 90, 90, 120])


def _compare(architecture: str, system: str) -> dict[str, Any]:
    import torch

    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.checkpoint import LoadedModel
    from training.schnetpack_models import from_schnetpack

    theirs = _schnetpack_model(architecture)
    potential = from_schnetpack(theirs, ELEMENTS).requires_grad_(False)
    atoms = structure(system)
    calculators = {
        "schnetpack": _spk_calculator(theirs),
        "ours": PIWSLCalculator(LoadedModel(potential, {}, Path("benchmark.pt")), device="cpu"),
    }
    rng = np.random.default_rng(0)
    displacement = rng.normal(0, 0.01, atoms.positions.shape)
    times: dict[str, list[float]] = {name: [] for name in calculators}
    forces = {}
    steps = 3 if len(atoms) > 1000 else 7 if len(atoms) > 100 else 40
    for step in range(steps + 2):
        moved = atoms.copy()
        moved.positions += (-1) ** step * (1 + 0.1 * step / steps) * displacement
        for name, calculator in calculators.items():
            start = time.perf_counter()
            forces[name] = calculator.get_forces(moved)
            if step >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    stats = calculators["ours"].stats()
    medians = {f"{name}_ms": round(float(np.median(values)), 3) for name, values in times.items()}
    graph = calculators["ours"].neighbors.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    engine = calculators["ours"].engine
    return {
        **medians,
        "ratio": round(medians["schnetpack_ms"] / medians["ours_ms"], 2),
        "ours_model_alone_ms": round(_median(lambda: engine(graph), steps), 3),
        "force_difference_eV_per_A": float(np.abs(forces["ours"] - forces["schnetpack"]).max()),
        "largest_force_eV_per_A": float(np.abs(forces["ours"]).max()),
        "atoms": len(atoms),
        "edges": graph.n_edges,
        "steps": steps,
        "engine": engine.describe(),
        "neighbor_hit_rate": round(stats["neighbor_hit_rate"], 3),
        "schnetpack_threads": torch.get_num_threads(),
    }


def _schnetpack_model(architecture: str) -> Any:
    import schnetpack as spk
    import torch

    torch.manual_seed(0)
    cls = {"painn": spk.representation.PaiNN, "schnet": spk.representation.SchNet}[architecture]
    return spk.model.NeuralNetworkPotential(
        representation=cls(
            n_atom_basis=128,
            n_interactions=3,
            radial_basis=spk.nn.GaussianRBF(n_rbf=20, cutoff=5.0),
            cutoff_fn=spk.nn.CosineCutoff(5.0),
        ),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(n_in=128, output_key="energy"), spk.atomistic.Forces()],
        postprocessors=[spk.transform.CastTo64()],
    )


def _spk_calculator(model: Any) -> Any:
    import schnetpack as spk

    neighbors = spk.transform.MatScipyNeighborList(cutoff=5.0)
    return spk.interfaces.SpkCalculator(model, neighbors, energy_unit="eV", position_unit="Ang", device="cpu")


def _our_calculator() -> Any:
    import torch

    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.checkpoint import LoadedModel
    from asecalc_mlip.models import build_potential

    torch.manual_seed(0)
    potential = build_potential("painn", HYPERPARAMETERS, reference_energies=dict.fromkeys(ELEMENTS, 0.0))
    return PIWSLCalculator(LoadedModel(potential.eval().requires_grad_(False), {}, Path("benchmark.pt")), device="cpu")


def _size(cells: list[int]) -> dict[str, Any]:
    import resource

    calculator, atoms = _our_calculator(), quartz() * cells
    displacement = np.random.default_rng(0).normal(0, 0.01, atoms.positions.shape)
    times = []
    for step in range(4 if len(atoms) > 5000 else 12):
        atoms.positions += (-1) ** step * displacement
        start = time.perf_counter()
        calculator.get_forces(atoms)
        times.append(1000 * (time.perf_counter() - start))
    return {
        "ours_ms": round(float(np.median(times[1:])), 2),
        "first_call_ms": round(times[0], 1),
        "atoms": len(atoms),
        "microseconds_per_atom": round(1000 * float(np.median(times[1:])) / len(atoms), 2),
        "peak_memory_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def _batch(size: int) -> dict[str, Any]:
    calculator, start, rng = _our_calculator(), structure("aspirin"), np.random.default_rng(0)
    images = []
    for _ in range(256):
        atoms = start.copy()
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        images.append(atoms)
    milliseconds = _median(lambda: calculator.evaluate(images, batch_size=size), 5)
    return {"molecules_per_second": round(256_000 / milliseconds, 1), "batch": size}


def _median(function: Any, repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def _summary(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"failed: {row['failed']}"
    if "ratio" in row:
        return f"SchNetPack {row['schnetpack_ms']:9.2f}  ours {row['ours_ms']:8.2f} ms  ratio {row['ratio']:6.2f}"
    if "batch" in row:
        return f"{row['molecules_per_second']:9.1f} molecules/s"
    return f"{row['ours_ms']:9.2f} ms, {row['microseconds_per_atom']:6.2f} µs/atom, {row['peak_memory_GB']:.2f} GB"


def _figure(rows: dict[str, Any], path: Path, scaling: bool) -> None:
    from asecalc_mlip.plots.speed import comparison, size_scaling

    good = {name: row for name, row in rows.items() if "failed" not in row}
    (size_scaling if scaling else comparison)(good, path=path)


if __name__ == "__main__":
    main()
