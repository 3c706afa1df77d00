"""What gpu.py measures of calls: results and milliseconds of every engine, batches, lists, memory."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.bench.structures import quartz, structure
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.engine import Engine, make_engine
from asecalc_mlip.engine.memory import is_out_of_memory
from asecalc_mlip.graph import AtomGraph, batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import plain_kernels
from asecalc_mlip.models import Potential, Prediction, predict
from asecalc_mlip.neighbors.cells import cell_lists
from asecalc_mlip.neighbors.device_lists import vesin_list
from asecalc_mlip.neighbors.lists import compact_list
from benchmarks.speed.gpu_bench import CUTOFF, ROOT, Bench, NotHere, engine_of, random_potential

__all__ = ["batch", "call", "calculator", "lists", "mace", "memory", "shipped", "tests"]

# Beyond, float64 by autograd takes longer than it is worth.
_MOST_EXACT = 3000


def tests(paths: Sequence[str], bench: Bench, seconds: float = 140.0) -> dict[str, Any]:
    """Run the tests that are marked gpu; of those that outlast the time, say how far they came."""
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", "--maxfail=40", *paths]
    if bench.rehearse:
        command.append("--collect-only")
    elif importlib.util.find_spec("xdist") is not None:
        # Compilers of kernels beside one another.
        command += ["-n", str(max(1, min(8, (os.cpu_count() or 1) // 2)))]
    try:
        found = _completed(command, seconds)
    except subprocess.TimeoutExpired as error:
        return _so_far((error.stdout or b"").decode(errors="replace").splitlines(), seconds)
    lines = found.stdout.strip().splitlines() or [found.stderr[-200:]]
    counts = {"tests_passed": 0, "tests_failed": 0}
    for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", lines[-1]):
        name = "tests_failed" if word == "error" else f"tests_{word}"
        counts[name] = counts.get(name, 0) + int(number)
    if found.returncode not in (0, 1, 5):
        raise RuntimeError(f"pytest ended with {found.returncode}: {lines[-1]}")
    failures = [line[:200] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {**counts, "summary": lines[-1].strip("= "), "failures": failures}


def _completed(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command; when its time is over, end it with all that it began, which would disturb the next rows."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for pid in _tree(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def _tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # After the name, which may hold anything, come the state and the parent.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _so_far(lines: Sequence[str], seconds: float) -> dict[str, Any]:
    """Count what pytest -v said of single tests before its time was over."""
    failures = [line[:200] for line in lines if re.search(r" (FAILED|ERROR)\b", line)]
    passed = sum(" PASSED" in line for line in lines)
    last = lines[-1][:200] if lines else "nothing"
    counts = {"tests_passed": passed, "tests_failed": len(failures)}
    return {**counts, "summary": f"ended after {seconds:g} s, at: {last}", "failures": failures}


def call(bench: Bench, architecture: str, name: str, engine: str, precision: str) -> dict[str, Any]:
    """Milliseconds of energy and forces of a graph on the device with new positions each time, and the errors."""
    graph = _graph(name, bench.device)
    run = engine_of(bench, _potential(bench, architecture), engine, precision)
    bench.peak()
    noise = [0.01 * torch.randn_like(graph.positions) for _ in range(4)]
    count = iter(range(10**9))
    ms = bench.time(lambda: run(replace(graph, positions=graph.positions + noise[next(count) % 4])))
    memory = bench.peak()
    # After the calls that are timed: by now graphs are captured and kernels compiled.
    found = _errors(run, graph, lambda: _exact(bench, architecture, name))
    sizes = {"atoms": graph.n_atoms, "edges": graph.n_edges}
    return {"ms": ms, **sizes, **found, **memory, "engine": run.describe()}


def shipped(bench: Bench, model: str, engine: str) -> dict[str, Any]:
    """Results of a shipped model on its structure, as the calculator gives them, against float64 by autograd."""
    from asecalc_mlip import checkpoint, zoo

    loaded = checkpoint.load(zoo.find(model))
    potential = loaded.potential.eval().requires_grad_(False).to(bench.device)
    graph = graph_from_atoms(zoo.structure(model.partition(".")[0]), potential.cutoff).to(bench.device)
    run = engine_of(bench, potential, engine, "float32")
    exact = _float64(loaded.potential, graph)
    ms = bench.time(lambda: run(graph))
    return {"ms": ms, "atoms": graph.n_atoms, **_errors(run, graph, lambda: exact), "engine": run.describe()}


def batch(bench: Bench, size: int, engine: str) -> dict[str, Any]:
    """Milliseconds of aspirins at once, and atom evaluations per second."""
    graph = _copies("aspirin", size, bench.device)
    run = engine_of(bench, _potential(bench, "painn"), engine, "float32")
    bench.peak()
    ms = bench.time(lambda: run(graph))
    rate = round(1000 * graph.n_atoms / ms)
    return {"ms": ms, "atoms_per_s": rate, **bench.peak(), "engine": run.describe()}


def calculator(bench: Bench, name: str) -> dict[str, Any]:
    """Milliseconds of a step through ASE as in dynamics: lists, transfers and checks included."""
    atoms, rng = structure(name), np.random.default_rng(0)
    model = LoadedModel(_potential(bench, "painn"), {}, Path("benchmark.pt"))
    calc = PIWSLCalculator(model, device=str(bench.device))

    def step() -> None:
        atoms.positions += rng.normal(0, 0.003, atoms.positions.shape)
        calc.get_forces(atoms)

    ms, stats = bench.time(step), calc.stats()
    return {"ms": ms, "hit_rate": round(stats["neighbor_hit_rate"], 3), "engine": calc.engine.describe()}


def lists(bench: Bench, name: str) -> dict[str, Any]:
    """Milliseconds of a new neighbour list: on the CPU with its transfer, by vesin and in torch on the device."""
    number, _, one = name.rpartition(" x ")
    atoms, copies = _structure(one), int(number or 1)
    reach = CUTOFF + 0.5
    graph = _copies(one, copies, bench.device)
    pbc = torch.from_numpy(np.asarray(atoms.pbc)).to(bench.device).expand(copies, 3)
    torch_ms = bench.time(lambda: cell_lists(graph.positions, graph.cell, pbc, graph.batch, reach))

    def on_cpu() -> None:
        for _ in range(copies):
            made = compact_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
            [torch.from_numpy(array).to(bench.device) for array in made if array is not None]

    found = {"torch_ms": torch_ms, "cpu_ms": bench.time(on_cpu) if copies < 100 else None}
    if copies == 1:
        ours = cell_lists(graph.positions, graph.cell, pbc, graph.batch, reach)
        right = compact_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
        correct = all(
            a is None or (b is not None and np.array_equal(a.cpu(), b)) for a, b in zip(ours, right, strict=True)
        )
        found |= {"torch_same_as_cpu": correct, "edges": len(ours[0])}
        found |= _by_vesin(bench, lambda: vesin_list(graph.positions, graph.cell[0], pbc[0], reach), ours)
    return found


def _by_vesin(bench: Bench, make: Callable[[], Any], ours: Sequence[torch.Tensor | None]) -> dict[str, Any]:
    """Milliseconds of a list by vesin, and whether it is ours; or why it makes none, as its compiler may be missing."""
    try:
        theirs = make()
    except Exception as error:  # noqa: BLE001  its compiler and driver have many ways to fail
        return {"vesin_failed": (str(error).splitlines() or [type(error).__name__])[0][:200]}
    assert theirs is not None
    same = all(a is b or torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # type: ignore[arg-type]
    return {"vesin_ms": bench.time(make), "vesin_same": same}


def memory(bench: Bench, n_atoms: int) -> dict[str, Any]:
    """Milliseconds and peak memory of quartz of about so many atoms, list included, in the engine of a calculator."""
    cells = max(1, round((n_atoms / 9) ** (1 / 3)))
    atoms = quartz() * (cells, cells, max(1, round(n_atoms / 9 / cells**2)))
    run = make_engine(_potential(bench, "painn"))
    bench.peak()
    try:
        graph = _on_device(atoms, bench.device)
        start = time.perf_counter()
        run(graph)
        bench.wait()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {"atoms": len(atoms), "fits": False, **bench.peak()}
    first = 1000 * (time.perf_counter() - start)
    ms = bench.time(lambda: run(graph))
    per_atom = {key: round(1e6 * value / len(atoms), 2) for key, value in bench.peak().items()}
    found = {"kB_per_atom": per_atom.get("peak_GB"), "first_ms": round(first, 1), "ms": ms}
    return {"atoms": len(atoms), "fits": True, "edges": graph.n_edges, **found, "engine": run.describe()}


def mace(bench: Bench) -> dict[str, Any]:
    """Milliseconds of MACE 64x0e with random weights on aspirin and quartz, with cuEquivariance where it is there."""
    from asecalc_mlip.bench.peer_worker import MAKERS

    found: dict[str, Any] = {}
    for name in ("aspirin",) if bench.rehearse else ("aspirin", "quartz-2025"):
        atoms = structure(name)
        try:
            calc, info, _ = MAKERS["MACE 64x0e"](atoms)
        except ImportError as error:
            raise NotHere(str(error)) from None
        for one in getattr(calc, "models", []):
            one.to(bench.device)
        calc.device = str(bench.device)
        rng = np.random.default_rng(0)

        def step(atoms: Atoms = atoms, calc: Any = calc, rng: Any = rng) -> None:
            atoms.positions += rng.normal(0, 0.003, atoms.positions.shape)
            calc.get_property("forces", atoms)

        found |= {f"{name}_ms": bench.time(step), "peer": info}
    return found


def _errors(run: Engine, graph: AtomGraph, exact: Callable[[], Prediction]) -> dict[str, Any]:
    if graph.n_atoms > _MOST_EXACT:
        return {}
    found, right = run(graph), exact()
    assert found.forces is not None and right.forces is not None
    return {
        "energy_error_eV_per_atom": float((found.energy - right.energy).abs().max() / graph.n_atoms),
        "force_error_eV_per_A": float((found.forces - right.forces).abs().max()),
        "largest_force_eV_per_A": float(right.forces.abs().max()),
    }


@cache
def _exact(bench: Bench, architecture: str, name: str) -> Prediction:
    return _float64(_potential(bench, architecture), _graph(name, bench.device))


def _float64(potential: Potential, graph: AtomGraph) -> Prediction:
    # Not by the kernels of trainings, which are to be judged themselves and take long to compile in float64.
    with plain_kernels():
        return predict(copy.deepcopy(potential).double().to(graph.positions.device), graph)


@cache
def _potential(bench: Bench, architecture: str) -> Potential:
    return random_potential(bench, architecture).eval().requires_grad_(False).to(bench.device)


@cache
def _graph(name: str, device: torch.device) -> AtomGraph:
    return graph_from_atoms(_structure(name), CUTOFF).to(device)


def _structure(name: str) -> Atoms:
    return quartz() * (15, 15, 10) if name == "quartz-20250" else structure(name)


def _copies(name: str, number: int, device: torch.device) -> AtomGraph:
    one = graph_from_atoms(_structure(name), CUTOFF)
    return batch_graphs([one] * number).to(device)


def _on_device(atoms: Atoms, device: torch.device) -> AtomGraph:
    positions = torch.from_numpy(atoms.positions).to(device)
    cell = torch.from_numpy(atoms.cell.array)[None].to(device)
    batch = torch.zeros(len(atoms), dtype=torch.int64, device=device)
    pbc = torch.from_numpy(np.asarray(atoms.pbc))[None].to(device)
    i, j, shifts = cell_lists(positions, cell, pbc, batch, CUTOFF)
    numbers = torch.from_numpy(atoms.numbers.astype(np.int64)).to(device)
    return AtomGraph(numbers, positions, batch, i, j, cell, shifts, CUTOFF)
