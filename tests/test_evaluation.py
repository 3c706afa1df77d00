"""Batches: as large as they may be, halved when memory runs out, in order; and refusals before it does."""

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.engine import EagerEngine, memory
from asecalc_mlip.engine.guard import MemoryGuard
from asecalc_mlip.engine.memory import available_bytes
from asecalc_mlip.errors import InputError, NotEnoughMemoryError
from asecalc_mlip.graph import graph_from_atoms
from tests.cases import MODELS, STRUCTURES, make_potential, make_structure, model_file

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("not enough memory: you tried to allocate 1000000000000 bytes"),
]


class SmallMachine:
    """An engine that has memory for so many edges only, and counts the structures of each call."""

    def __init__(self, engine, most_edges, error):
        self.engine, self.potential = engine, engine.potential
        self.most_edges, self.error = most_edges, error
        self.calls = []

    def __call__(self, graph, **wanted):
        self.calls.append(graph.n_structures)
        if graph.n_edges > self.most_edges:
            raise self.error
        return self.engine(graph, **wanted)

    holds_edges, keeps_buffer = True, False

    def bytes_needed(self, n_atoms, n_edges):
        return EagerEngine(self.potential).bytes_needed(n_atoms, n_edges)

    def describe(self):
        return "eager on a small machine"


@pytest.fixture
def calculator(tmp_path):
    return PIWSLCalculator.load(model_file(tmp_path), device="cpu", dtype="float64")


@pytest.fixture
def mixed():
    """Structures of 1 to 216 atoms, periodic and not, in no order."""
    structures = [make_structure(STRUCTURES[k % 4], seed=k) for k in range(10)] + [Atoms("C")]
    large = bulk("SiO", "rocksalt", a=4.4, cubic=True) * 3
    large.positions += np.random.default_rng(1).normal(0, 0.05, large.positions.shape)
    return [*structures[:3], large, *structures[3:]]


def shrunk(calculator, edges, error=OUT_OF_MEMORY[1]):
    """The calculator with an engine that has memory for so many edges."""
    small = SmallMachine(calculator.engine.engine, edges, error)
    calculator.engine = MemoryGuard(small, calculator.device)
    return small


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("batch_size", ["auto", 12])
def test_halves_when_memory_runs_out(calculator, mixed, error, batch_size):
    whole = calculator.evaluate(mixed, batch_size=1)
    most = max(graph_from_atoms(atoms, calculator.cutoff).n_edges for atoms in mixed)
    engine = shrunk(calculator, most, error)
    with pytest.warns(UserWarning, match="memory ran out at 12 structures at once; going on with 6"):
        results = calculator.evaluate(mixed, batch_size=batch_size)
    assert engine.calls[0] == len(mixed) and len(engine.calls) > 2
    for one, other in zip(whole, results, strict=True):
        assert other["energy"] == pytest.approx(one["energy"], abs=1e-9)
        assert np.allclose(other["forces"], one["forces"], atol=1e-10)
        assert (one["stress"] is None) == (other["stress"] is None)


def test_smaller_batches_after_a_failure(calculator):
    structures = [molecule("C6H6") for _ in range(40)]
    edges = graph_from_atoms(structures[0], calculator.cutoff).n_edges
    engine = shrunk(calculator, 5 * edges)
    with pytest.warns(UserWarning, match="ran out"):
        calculator.evaluate(structures, batch_size=20)
    assert engine.calls == [20, 10, 5, 5, 10, 5, 5, *[5] * 4]


def test_what_was_computed_is_kept(calculator, mixed, monkeypatch):
    largest = max(range(len(mixed)), key=lambda k: len(mixed[k]))
    edges = graph_from_atoms(mixed[largest], calculator.cutoff).n_edges
    shrunk(calculator, edges - 1)
    monkeypatch.setattr(SmallMachine, "holds_edges", False)
    results = []
    with pytest.warns(UserWarning), pytest.raises(NotEnoughMemoryError) as caught:
        for result in calculator.evaluate_iter(iter(mixed)):
            results.append(result)
    assert len(results) == largest == 3
    for part in (f"structure {largest}", "216 atoms", f"{edges:,} edges", "per atom", "GB are free", "smaller"):
        assert part in str(caught.value)


def test_other_errors_pass(calculator):
    shrunk(calculator, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        calculator.evaluate([molecule("H2O")])


def test_automatic_batches_count_edges(calculator, monkeypatch):
    engine = shrunk(calculator, 10**9)
    small, large = molecule("H2O"), bulk("SiO", "rocksalt", a=4.4, cubic=True) * 5  # 1000 atoms, 18 000 edges and more
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calculator.evaluate([small] * 500 + [large] * 3 + [small] * 500)
        assert engine.calls == [500, 1, 1, 1, 500]
        engine.calls.clear()
        monkeypatch.setattr("asecalc_mlip.calculators.batches.available_bytes", lambda device: 2e6)
        assert len(calculator.evaluate([small] * 100)) == 100
        assert 1 < max(engine.calls) < 50


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "all", None])
def test_bad_batch_size(calculator, batch_size):
    with pytest.raises(InputError, match="allowed: 'auto', or a number"):
        calculator.evaluate([molecule("H2O")], batch_size=batch_size)


def test_progress_and_nothing(calculator, capsys):
    assert calculator.evaluate([]) == []
    calculator.evaluate([molecule("H2O")] * 3, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_refused_before_memory_runs_out(calculator, monkeypatch):
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True) * 14
    monkeypatch.setattr(memory, "available_bytes", lambda device: 5e7)
    monkeypatch.setattr("asecalc_mlip.calculators.batches.available_bytes", lambda device: 5e7)
    engine = shrunk(calculator, 10**9)
    with pytest.raises(NotEnoughMemoryError, match="neighbour list of 21,952 atoms") as caught:
        calculator.get_potential_energy(atoms)
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, InputError)
    # So little that not even pieces help.
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2e8)
    for ask in (calculator.get_potential_energy, lambda a: calculator.evaluate([a])):
        with pytest.raises(NotEnoughMemoryError, match=r"edges \(26 per atom\) need about .* dtype='float32'"):
            ask(atoms)
    assert engine.calls == []


def test_a_running_dynamics_is_not_refused(calculator, monkeypatch):
    graph = graph_from_atoms(bulk("SiO", "rocksalt", a=4.4, cubic=True) * 10, calculator.cutoff)
    guard = MemoryGuard(EagerEngine(calculator.potential), calculator.device)
    guard.check(graph)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1e8)
    guard.check(graph)
    with pytest.raises(NotEnoughMemoryError):
        MemoryGuard(EagerEngine(calculator.potential), calculator.device).check(graph)


@pytest.mark.parametrize("architecture", MODELS)
def test_estimates_grow_with_the_system(architecture):
    potential = make_potential(architecture)
    calculator_engine = EagerEngine(potential)
    small, large = calculator_engine.bytes_needed(100, 2000), calculator_engine.bytes_needed(1000, 20000)
    assert large == pytest.approx(10 * small)
    single = EagerEngine(make_potential(architecture, dtype=torch.float32)).bytes_needed(100, 2000)
    assert 0.45 * small < single < 0.8 * small


def test_free_memory_respects_containers(tmp_path, monkeypatch):
    assert 1e7 < available_bytes("cpu") < 1e14
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000000\n")
    names = ("memory.max", "memory.current", "inactive_file")
    assert memory._free_in_group(tmp_path, *names) == 2.5e9
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_in_group(tmp_path, *names) == float("inf")
    assert memory._free_in_group(tmp_path / "missing", *names) == float("inf")
