"""Many structures in batches that fit: into memory, and on a CPU into its caches.

Structures are taken in the order given and packed by what they cost, which is their edges much more than their number,
so sizes may be mixed. Results come out in the same order, as soon as their batch is done.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from tqdm import tqdm

from asecalc_mlip.calculators.base import check_atoms
from asecalc_mlip.calculators.checks import CLOSEST, ElementCheck, check_distances
from asecalc_mlip.calculators.states import StateNote
from asecalc_mlip.engine import MemoryGuard
from asecalc_mlip.engine.memory import available_bytes, check_list
from asecalc_mlip.errors import InputError, NotEnoughMemoryError
from asecalc_mlip.graph import AtomGraph, batch_graphs, graph_from_atoms, graph_without_edges
from asecalc_mlip.neighbors.cells import cell_lists
from asecalc_mlip.neighbors.device_lists import DeviceLists, made_on

if TYPE_CHECKING:
    from asecalc_mlip.models import Prediction

__all__ = ["BatchSize", "evaluate_iter"]

BatchSize = int | Literal["auto"]

# Measured on aspirin: from 2 500 edges on a CPU's throughput stays the same, and falls by 5 % until 300 000, when the
# caches no longer hold the batch; the more threads, the more there must be for each.
_EDGES_PER_THREAD = 10_000
# A GPU is busy with less than this.
_EDGES_ON_GPU = 2_000_000
# Lists made on a GPU are known only when the batch is there; so many has an atom of a condensed phase.
_EDGES_PER_ATOM = 60
_LISTS = DeviceLists()
# Of the free memory; the rest is for an estimate that is too low, and for whoever else runs here.
_SHARE = 0.5


class Evaluated(Protocol):
    """A calculator, as `evaluate_iter` sees it."""

    device: torch.device
    engine: MemoryGuard
    check_elements: ElementCheck
    tell_state: StateNote

    @property
    def cutoff(self) -> float: ...

    @property
    def gives_stress(self) -> bool: ...


def evaluate_iter(
    calculator: Evaluated, structures: Iterable[Atoms], *, batch_size: BatchSize = "auto", progress: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the results of structures one by one; see `PIWSLCalculator.evaluate_iter`."""
    limit = _Limit(calculator, batch_size)
    total = len(structures) if isinstance(structures, Sequence) else None
    with tqdm(total=total, unit="structure", disable=not progress) as bar:
        for batch in _batches(calculator, structures, limit):
            for result in _run(calculator, batch, limit):
                bar.update()
                yield result


@dataclass(frozen=True)
class _Entry:
    index: int
    graph: AtomGraph
    n_edges: int
    pbc: tuple[bool, ...]
    stress: bool


class _Limit:
    """How large a batch may be; shrinks when memory runs out nevertheless."""

    def __init__(self, calculator: Evaluated, batch_size: BatchSize):
        whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
        if batch_size != "auto" and not (whole and int(batch_size) >= 1):
            raise InputError(f"batch_size is {batch_size!r}; allowed: 'auto', or a number of structures from 1 on")
        self.engine, self.device = calculator.engine, calculator.device
        self.number: float = float("inf") if batch_size == "auto" else batch_size
        self.edges = float("inf")
        if batch_size == "auto":
            on_gpu = calculator.device.type == "cuda"
            self.edges = _EDGES_ON_GPU if on_gpu else _EDGES_PER_THREAD * torch.get_num_threads()

    @cached_property
    def bytes(self) -> float:
        """Asked for only if there is more than one structure: to look for it takes a millisecond."""
        return _SHARE * available_bytes(self.device) if self.number == float("inf") else float("inf")

    def allows(self, number: int, n_atoms: int, n_edges: int) -> bool:
        """Return whether structures with so many atoms and edges in all may go together."""
        # An atom without neighbours costs something too.
        small = number <= self.number and n_edges + n_atoms <= self.edges
        return small and self.engine.bytes_needed(n_atoms, n_edges) <= self.bytes

    def shrink(self, batch: Sequence[_Entry]) -> None:
        """Allow from now on half of the bytes of a batch that did not fit."""
        sizes = (sum(entry.graph.n_atoms for entry in batch), sum(entry.n_edges for entry in batch))
        self.bytes = min(self.bytes, 0.5 * self.engine.bytes_needed(*sizes))


def _batches(calculator: Evaluated, structures: Iterable[Atoms], limit: _Limit) -> Iterator[list[_Entry]]:
    batch: list[_Entry] = []
    n_atoms = n_edges = 0
    for index, atoms in enumerate(structures):
        entry = _prepared(calculator, atoms, index)
        n_atoms, n_edges = n_atoms + entry.graph.n_atoms, n_edges + entry.n_edges
        if batch and not limit.allows(len(batch) + 1, n_atoms, n_edges):
            yield batch
            batch, n_atoms, n_edges = [], entry.graph.n_atoms, entry.n_edges
        batch.append(entry)
    if batch:
        yield batch


@torch.inference_mode(False)  # forces are derivatives, which a caller's inference mode forbids
def _prepared(calculator: Evaluated, atoms: Atoms, index: int) -> _Entry:
    check_atoms(atoms, f"structure {index}")
    there = made_on(calculator.device)
    try:
        calculator.check_elements(atoms.numbers)
        calculator.tell_state(atoms)
        check_list(atoms.positions, atoms.cell.array, atoms.pbc, calculator.cutoff)
        graph = graph_without_edges(atoms) if there else graph_from_atoms(atoms, calculator.cutoff)
        check_distances(graph)
    except InputError as error:
        raise type(error)(f"structure {index}: {error}") from None
    edges = _EDGES_PER_ATOM * graph.n_atoms if there else graph.n_edges
    pbc = tuple(bool(periodic) for periodic in atoms.pbc)
    return _Entry(index, graph, edges, pbc, all(pbc) and calculator.gives_stress)


def _graph_of(calculator: Evaluated, batch: Sequence[_Entry]) -> AtomGraph:
    """Graph of a batch on the device."""
    graph = batch_graphs([entry.graph for entry in batch]) if len(batch) > 1 else batch[0].graph
    graph = graph.to(calculator.device)
    if not made_on(calculator.device):
        return graph
    pbc = torch.tensor([entry.pbc for entry in batch], device=calculator.device)
    try:
        i, j, shifts = _LISTS(graph.positions, graph.cell, pbc, graph.batch, calculator.cutoff)
    except InputError:
        # Of one structure after another, to say which.
        for entry in batch:
            _check_alone(entry, calculator.cutoff)
        raise
    graph = replace(graph, centers=i, neighbors=j, shifts=shifts, reach=calculator.cutoff)
    if len(i) and not graph.shortest() >= CLOSEST:
        for entry in batch:
            _check_alone(entry, calculator.cutoff)
    return graph


def _check_alone(entry: _Entry, cutoff: float) -> None:
    graph = entry.graph
    pbc = torch.tensor([entry.pbc])
    try:
        i, j, shifts = cell_lists(graph.positions, graph.cell, pbc, graph.batch, cutoff)
        check_distances(replace(graph, centers=i, neighbors=j, shifts=shifts))
    except InputError as error:
        raise InputError(f"structure {entry.index}: {error}") from None


def _run(calculator: Evaluated, batch: Sequence[_Entry], limit: _Limit) -> Iterator[dict[str, Any]]:
    """Results of a batch; halves it as often as memory runs out."""
    pending = [batch]
    while pending:
        part = pending.pop()
        prediction = _together(calculator, part) if len(part) > 1 else _alone(calculator, part[0])
        if prediction is not None:
            yield from _split(prediction, part)
            continue
        half = (len(part) + 1) // 2
        limit.shrink(part)
        warnings.warn(f"memory ran out at {len(part)} structures at once; going on with {half}", stacklevel=3)
        pending += [part[half:], part[:half]]


@torch.inference_mode(False)
def _alone(calculator: Evaluated, entry: _Entry) -> Prediction:
    """Prediction of one structure, which cannot be halved but perhaps go in pieces."""
    try:
        return calculator.engine(_graph_of(calculator, [entry]), forces=True, stress=entry.stress)
    except NotEnoughMemoryError as error:
        raise NotEnoughMemoryError(f"structure {entry.index}: {error}") from None


@torch.inference_mode(False)
def _together(calculator: Evaluated, batch: Sequence[_Entry]) -> Prediction | None:
    """Prediction of a batch, or None where memory is too small for it."""
    graph = _graph_of(calculator, batch)
    return calculator.engine.whole(graph, forces=True, stress=any(entry.stress for entry in batch))


def _split(prediction: Prediction, batch: Sequence[_Entry]) -> Iterator[dict[str, Any]]:
    assert prediction.forces is not None
    ends = np.cumsum([entry.graph.n_atoms for entry in batch])
    energies, forces = prediction.energy.tolist(), np.split(prediction.forces.cpu().numpy(), ends[:-1])
    stress = None if prediction.stress is None else prediction.stress.cpu().numpy()
    # A committee gives its spread as well.
    energy_std, forces_std = getattr(prediction, "energy_std", None), getattr(prediction, "forces_std", None)
    for k, entry in enumerate(batch):
        # Copies: a view would keep the forces of the whole batch alive.
        result: dict[str, Any] = {"energy": energies[k], "forces": forces[k].copy(), "stress": None}
        if stress is not None and entry.stress:
            result["stress"] = full_3x3_to_voigt_6_stress(stress[k])
        if energy_std is not None and forces_std is not None:
            result["energy_std"] = float(energy_std[k])
            result["forces_std"] = forces_std[ends[k] - entry.graph.n_atoms : ends[k]].cpu().numpy()
        yield result
