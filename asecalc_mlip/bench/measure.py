"""One row of a benchmark: a calculator on a structure, alone or against others, at a size, or in batches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from asecalc_mlip.bench.timing import Times, Walk, race
from asecalc_mlip.extras import needs
from asecalc_mlip.models import parts_of
from asecalc_mlip.neighbors.lists import neighbor_list

if TYPE_CHECKING:
    from asecalc_mlip.calculators.piwsl import PIWSLCalculator

__all__ = [
    "batch_row",
    "compare",
    "knows",
    "n_edges",
    "ns_per_day",
    "our_walk",
    "schnetpack_calculator",
    "size_row",
    "sizes",
]


def compare(
    ours: PIWSLCalculator, theirs: Any, atoms: Atoms, *, steps: int | None = None, seconds: float = 5.0
) -> dict[str, Any]:
    """Measure milliseconds per step of a calculator, and of SchNetPack's on the same weights where there is one.

    Parameters
    ----------
    ours : PIWSLCalculator
    theirs : SpkCalculator or None
    atoms : Atoms
    steps, seconds
        As for `race`.

    Returns
    -------
    dict
        `ours_ms` with the neighbour list and `ours_list_ms`, `ours_without_list_ms`; `schnetpack_ms` and `ratio`;
        `atoms`, `edges`, `engine`, the share of steps that kept their list, and the largest difference of forces.
    """
    before = ours.stats()
    walks: dict[str, Callable[[int], Times]] = {"ours": our_walk(ours, atoms)}
    if theirs is not None:
        walks["schnetpack"] = Walk(theirs, atoms)
    times = race(walks, steps=steps, seconds=seconds)
    after = ours.stats()
    calls = after["calls"] - before["calls"]
    row = {key: value for name, taken in times.items() for key, value in taken.to_dict(f"{name}_").items()}
    row |= {"atoms": len(atoms), "edges": n_edges(atoms, ours.card["cutoff"]), "engine": ours.engine.describe()}
    row["neighbor_hit_rate"] = round(1.0 - (after["neighbor_builds"] - before["neighbor_builds"]) / calls, 3)
    if theirs is not None:
        row["ratio"] = round(row["schnetpack_ms"] / row["ours_ms"], 2)
        row |= _agreement(ours, theirs, atoms)
    return row


def our_walk(calculator: PIWSLCalculator, atoms: Atoms) -> Walk:
    """Make a walk that also takes the time of the neighbour lists."""
    return Walk(calculator, atoms, lambda: calculator.stats()["seconds_neighbors"])


def size_row(calculator: PIWSLCalculator, atoms: Atoms, *, steps: int | None = None) -> dict[str, Any]:
    """Time per step and per atom of one structure, with the memory so far: of the process, or of a GPU."""
    walk = our_walk(calculator, atoms)
    first = walk(1).total_ms[0]
    times = walk(steps or (4 if len(atoms) > 5000 else 12))
    return {
        "ours_ms": round(times.step(), 2),
        "first_call_ms": round(first, 1),
        "atoms": len(atoms),
        "microseconds_per_atom": round(1000 * times.step() / len(atoms), 2),
        "peak_memory_GB": _peak_memory(calculator.device),
    }


def batch_row(
    calculator: PIWSLCalculator, atoms: Atoms, size: int, *, structures: int = 256, repeats: int = 5
) -> dict[str, Any]:
    """Measure structures per second when `size` are evaluated at once; `structures` displaced copies of `atoms`."""
    rng, images = np.random.default_rng(0), []
    for _ in range(structures):
        images.append(atoms.copy())
        images[-1].positions += rng.normal(0, 0.03, atoms.positions.shape)
    calculator.evaluate(images[:size], batch_size=size)
    seconds = _median(lambda: calculator.evaluate(images, batch_size=size), repeats)
    return {"molecules_per_second": round(structures / seconds, 1), "batch": size}


def schnetpack_calculator(calculator: PIWSLCalculator) -> Any:
    """Return SchNetPack's SpkCalculator, with its matscipy neighbour list, on the weights of a calculator.

    Without the ZBL core that a model may have, which costs SchNetPack nothing.

    Raises
    ------
    InputError
        When SchNetPack is not installed or has no such model.
    """
    try:
        import schnetpack as spk

        from asecalc_mlip.bench.schnetpack_models import to_schnetpack
    except ImportError as error:
        raise needs("timing SchNetPack's calculator", error.name or "schnetpack") from error
    learned = [part for part in parts_of(calculator.potential) if any(True for _ in part.parameters())]
    potential = learned[0] if len(learned) == 1 else calculator.potential
    return spk.interfaces.SpkCalculator(
        to_schnetpack(potential),
        spk.transform.MatScipyNeighborList(cutoff=potential.cutoff),
        energy_unit="eV",
        position_unit="Ang",
        device=str(calculator.device),
        dtype=potential.dtype,
    )


def ns_per_day(milliseconds: float, timestep_fs: float) -> float:
    """Return nanoseconds of dynamics in a day of steps; the integrator and the writing of files come on top."""
    return 86_400_000.0 / milliseconds * timestep_fs * 1e-6


def n_edges(atoms: Atoms, cutoff: float) -> int:
    """Count directed pairs shorter than `cutoff` (Å)."""
    return len(neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)[0])


def knows(calculator: PIWSLCalculator, atoms: Atoms) -> bool:
    """Tell whether the model was trained on all elements of a structure."""
    return set(atoms.symbols) <= set(calculator.card["elements"])


def sizes(atoms: Atoms, largest: int) -> Sequence[int]:
    """Return repeats for `enlarged`, each about twice the atoms of the one before, up to `largest` atoms."""
    wanted = [round(2 ** (k / 3)) for k in range(64)]
    return sorted({n for n in wanted if n**3 * len(atoms) <= largest} | {1})


def _agreement(ours: Any, theirs: Any, atoms: Atoms) -> Mapping[str, float]:
    forces, others = ours.get_forces(atoms), theirs.get_forces(atoms)
    return {
        "force_difference_eV_per_A": float(np.abs(forces - others).max()),
        "largest_force_eV_per_A": float(np.abs(forces).max()),
    }


def _median(function: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _peak_memory(device: Any) -> float | None:
    if device.type == "cuda":
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 2)
