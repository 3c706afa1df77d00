"""Load: many threads, a fork, many calls, many calculators, a long run at constant energy."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from ase import Atoms

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.zoo import structure
from tests.attack.harness import Arena, Attack, family
from tests.attack.model_files import GOLDEN

__all__ = ["ethanol", "resident_MB"]

MODEL = "ethanol_painn.pt"
SMALL = GOLDEN / "painn.pt"  # for so many calls that a larger model would take hours
THREADS = 8


def ethanol(rng: np.random.Generator) -> Atoms:
    """Return ethanol, shaken."""
    atoms = structure(MODEL)
    atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
    return atoms


def resident_MB() -> float:
    """Return the memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _energies(frames: list[Atoms], calculator: PIWSLCalculator) -> list[float]:
    return [float(one["energy"]) for one in calculator.evaluate(frames)]


@family("load: one calculator in 8 threads", small=1, large=20, seconds=60.0)
def _threads(arena: Arena) -> Attack:
    calculator = PIWSLCalculator.load(MODEL, device="cpu")
    frames = [[ethanol(arena.rng) for _ in range(8)] for _ in range(THREADS)]
    alone = [_alone(atoms) for atoms in frames]

    def attempt() -> bool | str:
        found: dict[int, list] = {}

        def work(k: int) -> None:
            found[k] = [_one(calculator, atoms) for atoms in frames[k]]

        threads = [threading.Thread(target=work, args=(k,)) for k in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        worst = [np.abs(np.array(found[k]) - alone[k]).max() if k in found else np.inf for k in range(THREADS)]
        return bool(max(worst) < 1e-5) or f"energies in threads differ by {max(worst):.3g} eV from those alone"

    return "8 structures in each of 8 threads", attempt


def _alone(frames: list[Atoms]) -> np.ndarray:
    return np.array(_energies(frames, PIWSLCalculator.load(MODEL, device="cpu")))


def _one(calculator: PIWSLCalculator, atoms: Atoms) -> float:
    atoms.calc = calculator
    return float(atoms.get_potential_energy())


@family("load: fork after load", small=1, large=20, seconds=60.0)
def _fork(arena: Arena) -> Attack:
    calculator = PIWSLCalculator.load(MODEL, device="cpu")
    atoms = ethanol(arena.rng)
    before = _one(calculator, atoms)

    def attempt() -> bool | str:
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                moved = atoms.copy()
                moved.rotate(float(arena.rng.uniform(10, 80)), "z")
                os._exit(0 if abs(_one(calculator, moved) - before) < 1e-4 else 3)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        return codes == [0] * 4 or f"children ended with {codes}"

    return "four children with the calculator of the parent", attempt


def _calls(number: int, arena: Arena, model: str | Path = MODEL) -> Attack:
    calculator = PIWSLCalculator.load(model, device="cpu")
    atoms = ethanol(arena.rng) if model == MODEL else Atoms("OH", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    start = atoms.positions.copy()
    for _ in range(50):
        _shaken(atoms, start, arena.rng, calculator)

    def attempt() -> bool | str:
        before = resident_MB()
        for _ in range(number):
            _shaken(atoms, start, arena.rng, calculator)
        grown = resident_MB() - before
        arena.attempts, arena.note = number, f"{number} calls took {grown:.1f} MB more"
        return grown < 8.0 or f"{number} calls took {grown:.1f} MB more"

    return f"{number} calls", attempt


def _shaken(atoms: Atoms, start: np.ndarray, rng: np.random.Generator, calculator: PIWSLCalculator) -> None:
    atoms.positions = start + rng.normal(scale=0.02, size=start.shape)
    _one(calculator, atoms)


@family("load: 300 calls", small=1, large=1, seconds=60.0)
def _some(arena: Arena) -> Attack:
    return _calls(300, arena)


@family("load: 100 000 calls", small=0, large=1, seconds=600.0)
def _many_calls(arena: Arena) -> Attack:
    return _calls(100_000, arena, SMALL)


@family("load: 1 000 000 calls", small=0, large=1, seconds=3600.0)
def _million(arena: Arena) -> Attack:
    return _calls(1_000_000, arena, SMALL)


def _many(number: int, arena: Arena) -> Attack:
    atoms = ethanol(arena.rng)
    first = PIWSLCalculator.load(MODEL, device="cpu")
    energy = _one(first, atoms)

    def attempt() -> bool | str:
        before, calculators = resident_MB(), []
        for _ in range(number):
            calculators.append(PIWSLCalculator.load(MODEL, device="cpu"))
            if abs(_one(calculators[-1], atoms.copy()) - energy) > 1e-6:
                return f"calculator {len(calculators)} has another energy"
        each = (resident_MB() - before) / number
        arena.note = f"each of {number} calculators takes {each:.1f} MB"
        # 10 MB were measured: tables of filters and packed weights of the native kernel, beside the weights.
        return each < 12.0 or f"each of {number} calculators takes {each:.1f} MB"

    return f"{number} calculators", attempt


@family("load: 10 calculators", small=0, large=1, seconds=60.0)
def _ten(arena: Arena) -> Attack:
    return _many(10, arena)


@family("load: 100 calculators", small=0, large=1, seconds=120.0)
def _hundred(arena: Arena) -> Attack:
    return _many(100, arena)


@family("load: NVE over 100 000 steps", small=0, large=1, seconds=3600.0)
def _some_steps(arena: Arena) -> Attack:
    return _drift(100_000, arena)


@family("load: NVE over 1 000 000 steps", small=0, large=1, seconds=7200.0)
def _million_steps(arena: Arena) -> Attack:
    return _drift(1_000_000, arena)


def _drift(steps: int, arena: Arena) -> Attack:
    """Two atoms and the shipped EAM, so that a million steps take minutes."""
    from ase import units
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
    from ase.md.verlet import VelocityVerlet

    atoms = Atoms("SiO", [[0.0, 0.0, 0.0], [1.6, 0.0, 0.0]])
    atoms.calc = PIWSLCalculator.load("silica_eam.pt", device="cpu", dtype="float64")
    MaxwellBoltzmannDistribution(atoms, temperature_K=200, rng=arena.rng)
    Stationary(atoms)

    def attempt() -> bool | str:
        run = VelocityVerlet(atoms, timestep=0.25 * units.fs)
        energies = []
        for _ in range(1000):
            run.run(steps // 1000)
            energies.append(atoms.get_total_energy())
        picoseconds = 0.25e-6 * steps * np.arange(1000)
        drift = 1e3 * np.polyfit(picoseconds, energies, 1)[0] / len(atoms)
        spread = 1e3 * float(np.std(energies)) / len(atoms)
        arena.attempts = steps
        arena.note = f"drift {drift:.2g} meV/atom/ps over {picoseconds[-1]:.0f} ps, fluctuation {spread:.2g} meV/atom"
        return bool(abs(drift) < 1e-3) or arena.note

    return "SiO, silica_eam.pt, 0.25 fs, float64", attempt
