"""The compiled engine where native does not serve, a first call from its cache, and what bf16 costs in accuracy.

    python benchmarks/speed/engines.py        # writes benchmarks/results/engines.json, prints a table

Energy and forces on one thread, of random weights (the work does not depend on them). Milliseconds are processor time,
which other work on the machine lengthens less than wall time; medians, engines in turns. Without a C++ compiler there
is nothing to measure, and the command says so. bf16 is autocast on the CPU, over aspirin_painn.pt with atoms displaced
by 0.1 Å.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.bench.timing import machine
from asecalc_mlip.engine import CompiledEngine, EagerEngine, Engine
from asecalc_mlip.engine.cache import CacheError
from asecalc_mlip.engine.compiled import CompilerError
from asecalc_mlip.engine.precision import arithmetic
from asecalc_mlip.files import read_structure, write_json
from asecalc_mlip.graph import AtomGraph, graph_from_atoms
from asecalc_mlip.kernels import library
from asecalc_mlip.models import build_potential

RESULTS = Path(__file__).parents[1] / "results" / "engines.json"
ZOO = Path(__file__).parents[2] / "asecalc_mlip" / "zoo"
MODELS = [("schnet", torch.float64, 128), ("schnet", torch.float32, 100), ("painn", torch.float32, 100)]
CUTOFF = 5.0  # Å
FIRST_CALL = """
import sys, time
before = time.process_time()
import torch
from ase.io import read
from asecalc_mlip import PIWSLCalculator
start = time.process_time()
calc = PIWSLCalculator.load("aspirin_painn.pt", compile=True, device="cpu")
atoms = read(sys.argv[1])
calc.get_forces(atoms)
print(start - before, time.process_time() - start, calc.engine.describe())
"""


@click.command(help=__doc__)
@click.option("--steps", default=40, show_default=True, help="Timed evaluations of each engine.")
def main(steps: int) -> None:
    """Measure everything and write it down."""
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine(), "rows": []}
    try:
        for architecture, dtype, n_features in MODELS:
            report["rows"] += rows(architecture, dtype, n_features, steps)
    except (CompilerError, CacheError) as error:
        raise click.ClickException(f"there is no compiled engine here: {error}") from None
    # After them, as a calculator takes another engine for want of a compiler.
    report |= {"first_call": first_call(), "bf16": bf16_errors()}
    write_json(RESULTS, report)
    print(json.dumps({"first_call": report["first_call"], "bf16": report["bf16"]}, indent=1))


def rows(architecture: str, dtype: torch.dtype, n_features: int, steps: int) -> list[dict[str, Any]]:
    """Compiled, eager, and eager without native messages, for structures of three sizes."""
    torch.manual_seed(0)
    sizes = {"cutoff": CUTOFF, "n_features": n_features, "n_interactions": 3, "n_rbf": 20}
    potential = build_potential(architecture, sizes, reference_energies=dict.fromkeys((1, 6, 8), 0.0))
    potential = potential.to(dtype).eval().requires_grad_(False)
    start = time.perf_counter()
    engines: dict[str, Engine] = {
        "compiled": CompiledEngine(potential),
        "eager": EagerEngine(potential),
        "plain": _Plain(potential),
    }
    print(f"{architecture} {dtype} {n_features} features; compiled or loaded in {time.perf_counter() - start:.0f} s")
    found = []
    for name, atoms in structures().items():
        graph = graph_from_atoms(atoms, CUTOFF)
        times = race(engines, graph, steps)
        compiled, eager = engines["compiled"](graph).forces, engines["eager"](graph).forces
        assert compiled is not None and eager is not None
        error = (compiled - eager).abs().max().item()
        row = {"model": f"{architecture} {str(dtype).removeprefix('torch.')} {n_features}", "structure": name}
        found.append({**row, "atoms": len(atoms), "edges": graph.n_edges, **times, "force_difference": error})
        print("  " + "  ".join(f"{key} {value}" for key, value in found[-1].items() if key != "model"), flush=True)
    return found


def structures() -> dict[str, Atoms]:
    """Return a molecule and two crystals, all without symmetry."""
    found = {"aspirin": read_structure(ZOO / "aspirin_painn.xyz")}
    for repeat in (2, 4):
        crystal = bulk("C", "diamond", a=4.5, cubic=True) * (repeat, repeat, repeat)
        crystal.rattle(0.05, seed=0)
        found[f"carbon {len(crystal)}"] = crystal
    return found


def race(engines: dict[str, Engine], graph: AtomGraph, steps: int) -> dict[str, float]:
    """Median milliseconds of processor time of each engine, in turns."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(max(5, min(steps, 200_000 // graph.n_edges))):
        for name, engine in engines.items():
            start = time.process_time()
            engine(graph)
            times[name].append(1000 * (time.process_time() - start))
    # The first calls make buffers and are few enough not to matter to a median.
    return {name: round(float(np.median(values)), 2) for name, values in times.items()}


def first_call() -> dict[str, Any]:
    """Time the load of aspirin_painn.pt, its program in the cache, and one evaluation, in a fresh process."""
    PIWSLCalculator.load("aspirin_painn.pt", compile=True, device="cpu")
    command = [sys.executable, "-c", FIRST_CALL, str(ZOO / "aspirin_painn.xyz")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    imports, call, engine = output.strip().split(maxsplit=2)
    return {"engine": engine, "imports_s": round(float(imports), 2), "load_and_first_call_s": round(float(call), 2)}


def bf16_errors() -> dict[str, float]:
    """Errors of bf16 autocast against float64, meV and meV/Å."""
    graphs = []
    for seed in range(50):
        atoms = read_structure(ZOO / "aspirin_painn.xyz")
        atoms.rattle(0.1, seed=seed)
        graphs.append(atoms)
    graph = graph_from_atoms(graphs, CUTOFF)
    exact = EagerEngine(PIWSLCalculator.load("aspirin_painn.pt", dtype="float64", device="cpu").potential)(graph)
    potential = copy.deepcopy(PIWSLCalculator.load("aspirin_painn.pt", device="cpu").potential)
    with arithmetic("bf16", torch.device("cpu")):
        ours = EagerEngine(potential)(graph)
    assert ours.forces is not None and exact.forces is not None
    difference = 1000 * (ours.forces - exact.forces)
    return {
        "energy_mae": round(1000 * (ours.energy - exact.energy).abs().mean().item(), 2),
        "force_mae": round(difference.abs().mean().item(), 2),
        "force_rms": round(difference.square().mean().sqrt().item(), 2),
        "force_max": round(difference.abs().max().item(), 1),
        "rms_force": round(1000 * exact.forces.square().mean().sqrt().item(), 1),
    }


class _Plain(EagerEngine):
    """Eager as without the native library."""

    def __call__(self, graph: AtomGraph, **options: Any) -> Any:
        found = library.native_library
        library.native_library = lambda: None  # type: ignore[assignment]
        try:
            return super().__call__(graph, **options)
        finally:
            library.native_library = found


if __name__ == "__main__":
    main()
