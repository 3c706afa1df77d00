"""TensorNet and M3GNet beside the same networks of torchmd-net and matgl: calls and training steps, in one run.

    python benchmarks/speed/equals.py --python torchmdnet=VENV/bin/python --python matgl=VENV/bin/python

Equal sizes, random weights, float32, cutoff 5 Å, one thread; how to install the others is said in
asecalc_mlip/bench/peers.py. A call is
energy and forces of a structure that moves as in dynamics, neighbour list included; ours by the engine that the
calculator chooses ("native" where there is one) and by autograd ("eager"). A training step is one on energies and
forces of 10 aspirins with the same loss, clipping and optimiser for all; lists are made beforehand. All sides of a row
go on in turns. Medians; rows that are in the file are skipped. Our trainings tell glibc's malloc to keep its memory;
with MALLOC_MMAP_THRESHOLD_=1000000000 and MALLOC_TRIM_THRESHOLD_=10000000000 in the environment it does so for all
sides, and rows get a name of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.bench.measure import our_walk  # noqa: E402
from asecalc_mlip.bench.peer_worker import TRAINING, timed  # noqa: E402
from asecalc_mlip.bench.peers import Worker, interpreters  # noqa: E402
from asecalc_mlip.bench.structures import structure  # noqa: E402
from asecalc_mlip.bench.timing import Times, machine, race  # noqa: E402
from asecalc_mlip.files import read_json, write_json  # noqa: E402
from benchmarks.speed.architectures import loaded, training_step  # noqa: E402
from benchmarks.speed.train_step import ten_aspirins  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "speed_equals.json"
SYSTEMS = ("aspirin", "quartz-72", "quartz-576")
# Ours, by the names of architectures.py → theirs, by those of peer_worker.py, and the packages they are in.
EQUALS = {
    "tensornet 128x2": {"TorchMD-NET TensorNet": "torchmdnet", "matgl TensorNet": "matgl"},
    "m3gnet 64x3": {"matgl M3GNet": "matgl"},
}


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--python", "pythons", multiple=True, metavar="PEER=PATH", help="Interpreter that has a peer.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the CPU.")
@click.option("--seconds", default=3.0, show_default=True, help="For each side of each row.")
@click.option("--only", default="", metavar="TEXT", help="Only rows whose name contains this.")
def main(pythons: tuple[str, ...], threads: int, seconds: float, only: str) -> None:
    """Measure what is missing."""
    import torch

    torch.set_num_threads(threads)
    found, where = read_json(RESULTS) if RESULTS.exists() else {}, interpreters(pythons)
    for ours, theirs in EQUALS.items():
        for system in (*SYSTEMS, TRAINING):
            tuned = ", tuned malloc" if "MALLOC_TRIM_THRESHOLD_" in os.environ else ""
            key = f"{ours}, {system}, {threads} threads{tuned}"
            if key not in found and only in key:
                found[key] = row(ours, {p: where[k] for p, k in theirs.items()}, system, threads, seconds)
                write_json(RESULTS, found)
            if key in found:
                click.echo(f"{key}\n{table(found[key])}")


def row(ours: str, theirs: dict[str, dict[str, str]], system: str, threads: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of each side, with what the others say of themselves."""
    load = round(os.getloadavg()[0], 2)
    workers = {name: Worker(found["python"], name, system, threads) for name, found in theirs.items()}
    try:
        times = race({**_our_sides(ours, system), **workers}, seconds=seconds)
    finally:
        for worker in workers.values():
            worker.close()
    sides = {name: {"ms": round(taken.step(), 3), "steps": len(taken.total_ms)} for name, taken in times.items()}
    for name, worker in workers.items():
        sides[name] |= worker.info
    return {"sides": sides, "machine": machine(), "load_before": load}


def table(found: dict[str, Any]) -> str:
    """Return the sides as text, with the ratio to the first."""
    sides = found["sides"]
    first = next(iter(sides.values()))["ms"]
    return "\n".join(f"  {n:<26} {s['ms']:9.2f} ms   {s['ms'] / first:6.2f} x" for n, s in sides.items())


def _our_sides(name: str, system: str) -> dict[str, Callable[[int], Times]]:
    from asecalc_mlip import PIWSLCalculator

    if system == TRAINING:
        return {"ours": timed(training_step(name, ten_aspirins()))}
    atoms = structure(system)
    sides: dict[str, Callable[[int], Times]] = {}
    for engine in ("auto", "eager"):
        calculator = PIWSLCalculator(loaded(name), device="cpu", compile=engine)
        if not sides or calculator.engine.describe() not in sides:
            sides[calculator.engine.describe()] = our_walk(calculator, atoms)
    return sides


if __name__ == "__main__":
    main()
