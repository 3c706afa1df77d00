"""Milliseconds per energy-and-forces step, ours against SchNetPack and others, each row in a process of its own.

    python benchmarks/speed/speed.py            # beside SchNetPack's SpkCalculator, same weights: speed.json, .png
    python benchmarks/speed/speed.py --scaling  # ours alone: 9 to 104 976 atoms, and batches of 1 to 256 aspirins
    python benchmarks/speed/speed.py --peers --python mace=VENV/bin/python …  # others: speed_peers.json, .png

Rows that are in the file already are skipped, so that an interrupted run goes on; those that failed are tried again.
Ours and SchNetPack's have random weights, 128 features × 3 blocks, 20 Gaussians, cutoff 5 Å, float32. A step moves the
atoms as dynamics does (asecalc_mlip/bench/timing.py) and asks the calculator for forces, neighbour list included
(SchNetPack: matscipy list; ours: vesin with a skin of 0.5 Å). The two go on in turns. `tuned` tells glibc's malloc to
keep its memory, which SchNetPack gains most from. Peers: asecalc_mlip/bench/peers.py, their sizes: peer_worker.py.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from asecalc_mlip.bench.measure import batch_row, compare, schnetpack_calculator, size_row
from asecalc_mlip.bench.peers import PEERS, interpreters, race_peer
from asecalc_mlip.bench.structures import quartz, structure
from asecalc_mlip.files import write_json

RESULTS = Path(__file__).parents[1] / "results"
LONGEST = 1800.0  # seconds for a row
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "10000000000"}
SYSTEMS = ["aspirin", "quartz 72", "water 192", "quartz 576", "quartz 2025"]
ELEMENTS = [1, 6, 7, 8, 14]
HYPERPARAMETERS = {"cutoff": 5.0, "n_features": 128, "n_interactions": 3, "n_rbf": 20}

Rows = dict[str, tuple[dict[str, Any], dict[str, str]]]


@click.command(help=__doc__)
@click.option("--scaling", "study", flag_value="scaling", help="Ours alone: sizes and batches.")
@click.option("--peers", "study", flag_value="peers", help="MACE, TorchMD-NET, CHGNet, SevenNet, where installed.")
@click.option("--python", "pythons", multiple=True, metavar="PEER=PATH", help="Interpreter that has a peer.")
@click.option("--again", is_flag=True, help="Forget what is in the file.")
@click.option("--only", default="", metavar="TEXT", help="Only rows whose name contains this.")
@click.option("--seconds", default=8.0, show_default=True, help="Time for the steps of each side of a row.")
@click.option("--results", default=str(RESULTS), show_default=True, metavar="DIR", help="Where the results go.")
@click.option("--row", default=None, hidden=True, help="JSON of one row: measure it in this process.")
def main(study: str | None, pythons: tuple[str, ...], row: str | None, **options: Any) -> None:
    """Measure what is missing and draw the figure."""
    if row is not None:
        print(json.dumps(measure(**json.loads(row))))
        return
    rows = {"scaling": _scaling_rows, "peers": lambda: peer_rows(SYSTEMS, pythons), None: _comparison_rows}[study]()
    path = Path(options["results"]) / (f"speed_{study}.json" if study else "speed.json")
    _figure(_measure_missing(rows, path, **options), path.with_suffix(".png"), study)


def _measure_missing(
    rows: Rows, path: Path, *, again: bool, only: str, seconds: float, results: str
) -> dict[str, dict[str, Any]]:
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if again:
        done = {name: row for name, row in done.items() if only not in name}
    for name, (arguments, environment) in rows.items():
        if only not in name:
            continue
        if name not in done or _missing(done[name]):
            done[name] = _in_a_process({**arguments, "seconds": seconds}, environment)
            write_json(path, done)
        click.echo(f"{name:44} {_summary(done[name])}")
    return done


def measure(kind: str, threads: int, **arguments: Any) -> dict[str, Any]:
    """One row: `compare`, `size`, `batch` or `peer`."""
    import torch

    torch.set_num_threads(threads)
    load = round(os.getloadavg()[0], 2)  # much above the threads: something else was running, and the row is worthless
    rows: dict[str, Callable[..., dict[str, Any]]]
    rows = {"compare": _compare, "size": _size, "batch": _batch, "peer": _peer}
    result = rows[kind](**arguments)
    versions = {"torch": torch.__version__, "machine": platform.machine()}
    return {**result, "threads": torch.get_num_threads(), "load_before": load, **versions}


def _comparison_rows() -> Rows:
    rows = {}
    for architecture in ("painn", "schnet"):
        for threads in (1, 2):
            for tuned in (False, True):
                for system in SYSTEMS:
                    name = f"{architecture}, {system}, {threads} threads{', tuned malloc' if tuned else ''}"
                    arguments = {"kind": "compare", "architecture": architecture, "system": system, "threads": threads}
                    rows[name] = (arguments, MALLOC if tuned else {})
    return rows


def _scaling_rows() -> Rows:
    rows: Rows = {}
    for repeat in (1, 2, 4, 6, 9, 14, 18, 22.68):
        cells = [int(repeat)] * 3 if repeat != 22.68 else [18, 24, 27]
        atoms = 9 * int(np.prod(cells))
        rows[f"quartz, {atoms} atoms"] = ({"kind": "size", "cells": cells, "threads": 2}, {})
    for size in (1, 8, 64, 256):
        rows[f"aspirin, batch of {size}"] = ({"kind": "batch", "size": size, "threads": 2}, {})
    return rows


def peer_rows(systems: Sequence[str], pythons: Sequence[str]) -> Rows:
    """Rows of peers, each with arguments and environment; what is not installed says so."""
    found = interpreters(pythons)
    rows: Rows = {}
    for peer, package in PEERS.items():
        for threads in (1, 2):
            for system in systems:
                arguments = {"kind": "peer", "peer": peer, "system": system, "threads": threads, **found[package]}
                rows[f"{peer}, {system}, {threads} threads"] = (arguments, {})
    return rows


def _in_a_process(arguments: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    if "not_installed" in arguments:
        return {"not_installed": arguments["not_installed"]}
    command = [sys.executable, __file__, "--row", json.dumps(arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments["threads"]), **environment}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {LONGEST / 60:.0f} minutes"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _compare(architecture: str, system: str, seconds: float) -> dict[str, Any]:
    calculator = _our_calculator(architecture)
    return compare(calculator, schnetpack_calculator(calculator), _structure(system), seconds=seconds)


def _size(cells: list[int], seconds: float) -> dict[str, Any]:
    return size_row(_our_calculator(), quartz() * cells)


def _batch(size: int, seconds: float) -> dict[str, Any]:
    return batch_row(_our_calculator(), structure("aspirin"), size)


def _peer(peer: str, python: str, system: str, seconds: float) -> dict[str, Any]:
    return race_peer(_our_calculator(), peer, python, system.replace(" ", "-"), seconds=seconds)


def _structure(system: str) -> Any:
    return structure(system.replace(" ", "-"))


def _our_calculator(architecture: str = "painn") -> Any:
    import torch

    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.checkpoint import LoadedModel
    from asecalc_mlip.models import build_potential

    torch.manual_seed(0)
    potential = build_potential(architecture, HYPERPARAMETERS, reference_energies=dict.fromkeys(ELEMENTS, 0.0))
    return PIWSLCalculator(LoadedModel(potential.eval().requires_grad_(False), {}, Path("benchmark.pt")), device="cpu")


def _missing(row: dict[str, Any]) -> bool:
    return not {"failed", "not_installed"}.isdisjoint(row)


def _summary(row: dict[str, Any]) -> str:
    if "not_installed" in row:
        return f"not installed: {row['not_installed']}"
    if "failed" in row:
        return f"failed: {row['failed']}"
    if "peer_ms" in row:
        return f"theirs {row['peer_ms']:9.2f}  ours {row['ours_ms']:8.2f} ms  ratio {row['ratio']:6.2f}"
    if "ratio" in row:
        return f"SchNetPack {row['schnetpack_ms']:9.2f}  ours {row['ours_ms']:8.2f} ms  ratio {row['ratio']:6.2f}"
    if "batch" in row:
        return f"{row['molecules_per_second']:9.1f} molecules/s"
    return f"{row['ours_ms']:9.2f} ms, {row['microseconds_per_atom']:6.2f} µs/atom, {row['peak_memory_GB']:.2f} GB"


def _figure(rows: dict[str, Any], path: Path, study: str | None) -> None:
    from asecalc_mlip.plots import speed

    good = {name: row for name, row in rows.items() if not _missing(row)}
    draw = {"scaling": speed.size_scaling, "peers": speed.peers, None: speed.comparison}[study]
    if good:
        draw(good, path=path)


if __name__ == "__main__":
    main()
