"""What gpu.py measures of dynamics: drift of the total energy, replicas on the device, torch-sim."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from ase import Atoms

from asecalc_mlip import PIWSLCalculator, checkpoint, zoo
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.md.batch_integrators import Flat
from asecalc_mlip.md.device_steps import DeviceSteps
from asecalc_mlip.md.ensembles import make_integrator
from asecalc_mlip.md.integrators import maxwell_boltzmann
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.models import Prediction
from benchmarks.speed.gpu_bench import Bench, NotHere, engine_of

__all__ = ["drift", "replicas", "torch_sim"]

_TEMPERATURE = 300.0  # K
_TIMESTEP = 0.5  # fs
# Seconds that a drift may take: an engine that is slow makes fewer steps, and says how many.
_MOST_SECONDS = 20.0
_SKIN = 1.0  # Å


def drift(bench: Bench, engine: str, steps: int, copies: int) -> dict[str, Any]:
    """Slope of the total energy of aspirin_painn.pt in NVE, meV per atom and ps, and what a step costs."""
    potential = checkpoint.load(zoo.find("aspirin_painn.pt")).potential.eval().requires_grad_(False).to(bench.device)
    run = engine_of(bench, potential, engine, "float32")
    moving = _moving(bench, zoo.structure("aspirin_painn"), copies, run, potential.cutoff, "nve")
    every = max(1, steps // 100)
    moving.run(every)  # lists and captures settle
    moving.fetch()
    totals, begun, made = [], time.perf_counter(), 0
    while made < steps and time.perf_counter() - begun < _MOST_SECONDS:
        moving.run(every)
        made += every
        energies, refused = moving.fetch()
        if refused:
            raise RuntimeError(f"replicas broke: {refused}")
        kinetic = moving.host.sum((moving.host.momenta**2 / moving.host.masses).sum(axis=1)) / 2
        totals.append(energies + kinetic)
    seconds = time.perf_counter() - begun
    energy = 1000 * np.array(totals) / 21
    times = _TIMESTEP * 1e-3 * every * np.arange(len(energy))
    slopes = np.polyfit(times, energy, 1)[0] if len(times) > 1 else np.full(copies, np.nan)
    return {
        "steps": made,
        "replicas": copies,
        "drift_meV_per_atom_ps": float(np.abs(slopes).max()),
        "scatter_meV_per_atom": float((energy - energy.mean(axis=0)).std()),
        "ms_per_step": round(1000 * seconds / made, 4),
        "lists": moving.lists,
        "looks": moving.looks,
        "engine": run.describe(),
    }


def replicas(bench: Bench, number: int, steps: int) -> dict[str, Any]:
    """Time steps of Langevin aspirins that stay on the device, in the engine of a calculator."""
    calc = PIWSLCalculator.load("aspirin_painn.pt", device=str(bench.device))
    moving = _moving(bench, zoo.structure("aspirin_painn"), number, calc.engine, calc.cutoff, "langevin")
    moving.run(max(2, steps // 10))
    moving.fetch()
    lists, looks, begun = moving.lists, moving.looks, time.perf_counter()
    moving.run(steps)
    moving.fetch()
    seconds = time.perf_counter() - begun
    return {
        "ms_per_step": round(1000 * seconds / steps, 4),
        "atom_steps_per_s": round(21 * number * steps / seconds),
        "ns_per_day": round(number * steps * _TIMESTEP * 1e-6 / seconds * 86400, 1),
        "steps_per_list": round(steps / max(1, moving.lists - lists), 1),
        "steps_per_look": round(steps / max(1, moving.looks - looks), 1),
        "engine": calc.engine.describe(),
    }


def torch_sim(bench: Bench, steps: int) -> dict[str, Any]:
    """Milliseconds per step of 64 aspirins moved by torch-sim."""
    try:
        import torch_sim

        from asecalc_mlip.torchsim import PIWSLModel
    except ImportError as error:
        raise NotHere(str(error)) from None
    model = PIWSLModel.load("aspirin_painn.pt", device=str(bench.device))
    structures = [zoo.structure("aspirin_painn") for _ in range(2 if bench.rehearse else 64)]
    times = []
    for _ in range(2):
        start = time.perf_counter()
        torch_sim.integrate(
            structures, model, integrator=torch_sim.nvt_langevin, n_steps=steps, temperature=300.0, timestep=0.0005
        )
        times.append(1000 * (time.perf_counter() - start) / steps)
    return {"ms_per_step": round(times[1], 4), "first_ms_per_step": round(times[0], 4), "replicas": len(structures)}


def _moving(bench: Bench, start: Atoms, number: int, run: Any, cutoff: float, kind: str) -> DeviceSteps:
    given = {"ensemble": "nve"} if kind == "nve" else {"thermostat": kind}
    settings = MDSettings(timestep_fs=_TIMESTEP, temperature_K=_TEMPERATURE, **given)  # type: ignore[arg-type]
    all_atoms, alone = [], []
    for seed in range(number):
        atoms, rng = start.copy(), np.random.default_rng(seed)
        # Of twice the temperature, as half goes into the potential energy of the relaxed start.
        maxwell_boltzmann(atoms, 2 * _TEMPERATURE, rng)
        all_atoms.append(atoms)
        alone.append(make_integrator(atoms, settings, rng))
    flat = Flat.gather(all_atoms)
    device = bench.device
    owner = torch.from_numpy(flat.owner).to(device)
    state = AtomGraph(
        numbers=torch.from_numpy(np.concatenate([atoms.numbers for atoms in all_atoms]).astype(np.int64)).to(device),
        positions=owner,
        batch=owner,
        centers=owner,
        neighbors=owner,
        cell=torch.zeros(number, 3, 3, dtype=torch.float64, device=device),
    )

    def predict(graph: AtomGraph, step: int) -> Prediction:
        return run(graph, forces=True, stress=False)

    steps, seeds = [0] * number, list(range(number))
    return DeviceSteps(flat, alone, seeds, steps, state, np.zeros(3, dtype=bool), cutoff, _SKIN, predict)
