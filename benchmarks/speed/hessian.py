"""How long does an exact Hessian take, beside finite differences of the forces by the same calculator?

python benchmarks/speed/hessian.py                     # aspirin_painn.pt, float64, one thread
python benchmarks/speed/hessian.py ethanol_painn.pt --repeats 9

Rounds take turns, so that a busy machine slows all alike. The shortest time of each is compared: on a machine with
other work the median is that of the other work. Both are printed, and written to benchmarks/results/hessian.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.vibrations import Vibrations

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.calculators.loading import load_structure
from asecalc_mlip.files import write_json
from asecalc_mlip.probes.vibrations import finite_difference_hessian

RESULT = Path(__file__).parents[1] / "results" / "hessian.json"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="aspirin_painn.pt")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    atoms = load_structure(chosen.model, None)
    seconds = measure(chosen.model, atoms, chosen.repeats)
    exact = seconds["exact, by hessian()"]["shortest"]
    print(f"{chosen.model}, {len(atoms)} atoms, float64, {chosen.threads} thread(s), {chosen.repeats} rounds")
    for name, value in seconds.items():
        shortest, median = value["shortest"], value["median"]
        print(f"  {name:<42} {1e3 * shortest:7.0f} ms ({1e3 * median:.0f} median)   {shortest / exact:5.1f} ×")
    result = {
        "model": chosen.model,
        "atoms": len(atoms),
        "threads": chosen.threads,
        "rounds": chosen.repeats,
        "seconds": seconds,
    }
    write_json(RESULT, result)


def measure(model: str, atoms: Atoms, repeats: int) -> dict[str, dict[str, float]]:
    """Shortest and median seconds of each way."""
    fast, eager = (PIWSLCalculator.load(model, dtype="float64", compile=c) for c in ("auto", "eager"))
    ways: dict[str, Callable[[], object]] = {
        "exact, by hessian()": lambda: fast.hessian(atoms),
        "differences in batches, default engine": lambda: finite_difference_hessian(atoms, fast),
        "differences by ASE's Vibrations, default": lambda: _ase(atoms, fast),
        "differences by ASE's Vibrations, eager": lambda: _ase(atoms, eager),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_:  # the first warms up
                times[name].append(time.perf_counter() - start)
    return {name: {"shortest": min(values), "median": float(np.median(values))} for name, values in times.items()}


def _ase(atoms: Atoms, calc: PIWSLCalculator) -> None:
    moved = atoms.copy()
    moved.calc = calc
    with tempfile.TemporaryDirectory() as folder:
        Vibrations(moved, name=f"{folder}/vib").run()


if __name__ == "__main__":
    main()
