"""Nothing runs past the guard of memory: steps, batches of replicas, committees."""

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner

from asecalc_mlip import CommitteeCalculator, PIWSLCalculator
from asecalc_mlip.engine import EagerEngine, MemoryGuard, guard, memory
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.errors import NotEnoughMemoryError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.md.ensembles import make_integrator
from asecalc_mlip.md.replicas import Batch
from asecalc_mlip.md.settings import MDSettings
from tests.cases import make_structure, model_file
from tools import measure_memory


@pytest.fixture
def little(monkeypatch):
    """A machine with hardly any memory; even small structures are looked at."""
    monkeypatch.setattr(guard, "_SMALL", 1)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000.0)


def batch_of(calculator, number):
    def replica(seed):
        atoms = make_structure("molecule", seed=seed)
        integrator = make_integrator(atoms, MDSettings(ensemble="nve"), np.random.default_rng(seed))
        return SimpleNamespace(atoms=atoms, integrator=integrator, start=atoms.copy())

    return Batch([replica(seed) for seed in range(number)], calculator)


def test_batched_replicas(tmp_path, little):
    calculator = PIWSLCalculator.load(model_file(tmp_path), device="cpu")
    with pytest.raises(NotEnoughMemoryError, match=r"3 structures with 27 atoms and [0-9]+ edges"):
        batch_of(calculator, 3).evaluate()


def test_batched_replicas_go_in_pieces_where_only_that_fits(tmp_path, monkeypatch):
    calculator = PIWSLCalculator.load(model_file(tmp_path), device="cpu", dtype="float64")
    batch = batch_of(calculator, 3)
    batch.evaluate()
    expected = batch.flat.forces
    calculator.engine = MemoryGuard(EagerEngine(calculator.potential), calculator.device)
    pieces = partial(ChunkedEngine, edges_per_piece=50)
    edges = graph_from_atoms([replica.atoms for replica in batch.replicas], calculator.cutoff).n_edges
    sizes = [engine.bytes_needed(27, edges) for engine in (pieces(calculator.potential), calculator.engine)]
    assert sizes[0] < 0.9 * sizes[1]
    monkeypatch.setattr(guard, "ChunkedEngine", pieces)
    monkeypatch.setattr(guard, "_SMALL", 1)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 0.5 * sum(sizes) / guard._SHARE)
    with pytest.warns(UserWarning, match="3 structures .* In pieces of 50 edges instead"):
        batch.evaluate()
    np.testing.assert_allclose(batch.flat.forces, expected, atol=1e-9)


def test_steps_and_committees(tmp_path, little):
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True)
    path = model_file(tmp_path)
    for calculator in (PIWSLCalculator.load(path, device="cpu"), CommitteeCalculator.load([path, path], device="cpu")):
        with pytest.raises(NotEnoughMemoryError, match="8 atoms"):
            calculator.get_potential_energy(atoms)
        with pytest.raises(NotEnoughMemoryError, match="structure 0: 8 atoms"):
            calculator.evaluate([atoms])


def test_what_it_guards_is_what_it_says(tmp_path):
    calculator = PIWSLCalculator.load(model_file(tmp_path), device="cpu")
    engine = calculator.engine.engine
    assert calculator.engine.describe() == engine.describe()
    assert calculator.engine.bytes_needed(100, 5000) == engine.bytes_needed(100, 5000) > 0
    assert (calculator.engine.holds_edges, calculator.engine.keeps_buffer) == (engine.holds_edges, engine.keeps_buffer)
    assert calculator.engine.potential is engine.potential


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_an_architecture_is_measured():
    result = CliRunner().invoke(measure_memory.main, ["schnet", "{n_features: 16, cutoff: 4.0}", "--repeat", "2"])
    assert result.exit_code == 0, result.output
    assert "64 atoms, 1664 edges" in result.output and "numbers per edge, block and feature" in result.output
