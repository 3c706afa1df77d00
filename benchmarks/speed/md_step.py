"""Time a step of dynamics through ASE with each shipped model of a molecule, for docs/models.md.

    python benchmarks/speed/md_step.py    # some seconds, one thread; nothing else should run

Constant energy, 0.5 fs: median of twenty times 50 steps from the relaxed structure at 300 K, after 50 more.
Result: benchmarks/results/md_step.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase import units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import PIWSLCalculator, zoo  # noqa: E402
from asecalc_mlip.bench.timing import machine  # noqa: E402
from asecalc_mlip.files import write_json  # noqa: E402

MODELS = ("aspirin", "ethanol", "toluene", "malonaldehyde", "aspirin_painn", "ethanol_painn")
REPEATS, STEPS = 20, 50


def main() -> None:
    """Time all models, one after another in each round, and write the result."""
    torch.set_num_threads(1)
    runs = {name: start_run(name) for name in MODELS}
    times: dict[str, list[float]] = {name: [] for name in MODELS}
    for _ in range(REPEATS):
        for name, run in runs.items():
            start = time.perf_counter()
            run.run(STEPS)
            times[name].append(1e3 * (time.perf_counter() - start) / STEPS)
    rows = {}
    for name, found in times.items():
        numbers = {"ms": np.median(found), "ms_least": min(found), "ms_most": max(found)}
        rows[name] = {"atoms": len(runs[name].atoms)} | {key: round(float(n), 2) for key, n in numbers.items()}
        print(f"{name:<16} {rows[name]}")
    write_json(ROOT / "benchmarks" / "results" / "md_step.json", {"machine": machine(), "models": rows})


def start_run(name: str) -> VelocityVerlet:
    """Return dynamics of a model at constant energy, warmed up."""
    atoms = zoo.structure(name)
    atoms.calc = PIWSLCalculator.load(f"{name}.pt", device="cpu")
    MaxwellBoltzmannDistribution(atoms, temperature_K=300.0, rng=np.random.default_rng(0))
    run = VelocityVerlet(atoms, 0.5 * units.fs)
    run.run(STEPS)
    return run


if __name__ == "__main__":
    main()
