"""Message passing in pieces gives what it gives in one go, and large structures fall back to it."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from ase.build import bulk

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.engine import guard, memory
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.guard import MemoryGuard
from asecalc_mlip.errors import NotEnoughMemoryError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import plain_kernels
from tests.cases import MODELS, STRUCTURES, make_potential, make_structure, model_file

pytestmark = pytest.mark.parametrize("architecture", MODELS)


@pytest.mark.parametrize("plain", [False, True], ids=["native messages", "plain messages"])
@pytest.mark.parametrize("edges_per_piece", [1, 7, 1000])
def test_equals_the_whole(architecture, edges_per_piece, plain):
    potential = make_potential(architecture)
    graph = graph_from_atoms([make_structure(name) for name in STRUCTURES], potential.cutoff)
    with plain_kernels() if plain else nullcontext():
        whole = EagerEngine(potential)(graph, stress=True)
        pieces = ChunkedEngine(potential, edges_per_piece=edges_per_piece)(graph, stress=True)
    for name in ("energy", "energies", "forces", "stress"):
        one, other = getattr(whole, name), getattr(pieces, name)
        assert torch.allclose(one, other, atol=1e-9, rtol=1e-13, equal_nan=True), name
    assert torch.equal(potential(graph), EagerEngine(potential)(graph).energies)  # the model itself is as it was


def test_float32_and_energy_alone(architecture):
    potential = make_potential(architecture, dtype=torch.float32)
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True) * 3
    graph = graph_from_atoms(atoms, potential.cutoff)
    whole, pieces = EagerEngine(potential), ChunkedEngine(potential, edges_per_piece=1000)
    assert torch.allclose(whole(graph).forces, pieces(graph).forces, atol=1e-4)
    assert torch.allclose(whole(graph, forces=False).energy, pieces(graph, forces=False).energy, rtol=1e-8)


@pytest.fixture
def eager(architecture, tmp_path):
    """A calculator whose engine is eager."""
    calculator = PIWSLCalculator.load(model_file(tmp_path, architecture), device="cpu", dtype="float64")
    calculator.engine = MemoryGuard(EagerEngine(calculator.potential), calculator.device)
    return calculator


def test_large_structures_fall_back_to_it(eager, monkeypatch):
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True) * 10
    atoms.positions += np.random.default_rng(0).normal(0, 0.05, atoms.positions.shape)
    energy, forces = eager.get_potential_energy(atoms), eager.get_forces(atoms)
    graph = graph_from_atoms(atoms, eager.cutoff)
    needed = eager.engine.bytes_needed(graph.n_atoms, graph.n_edges)
    in_pieces = ChunkedEngine(eager.potential).bytes_needed(graph.n_atoms, graph.n_edges)
    assert in_pieces < 0.9 * needed
    monkeypatch.setattr(guard, "_SMALL", 1)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 0.5 * (in_pieces + needed) / guard._SHARE)
    eager.engine = MemoryGuard(EagerEngine(eager.potential), eager.device)
    eager.reset()
    with pytest.warns(UserWarning, match=r"8,000 atoms and [0-9,]+ edges .* In pieces of 65,536 edges instead"):
        assert eager.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-6)
    assert np.allclose(eager.get_forces(atoms), forces, atol=1e-8)
    (result,) = eager.evaluate([atoms])
    assert np.allclose(result["forces"], forces, atol=1e-8)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 0.5 * in_pieces / guard._SHARE)
    with pytest.raises(NotEnoughMemoryError, match="8,000 atoms"):
        MemoryGuard(EagerEngine(eager.potential), eager.device)(graph)


def test_memory_ran_out_all_the_same(eager):
    """The estimate was too low: the eager engine fails, the pieces do not."""

    class Full(EagerEngine):
        def __call__(self, graph, **wanted):
            raise MemoryError

    atoms = make_structure("crystal")
    expected = eager.evaluate([atoms])[0]["energy"]
    eager.engine = MemoryGuard(Full(eager.potential), eager.device)
    with pytest.warns(UserWarning, match="memory ran out"):
        (result,) = eager.evaluate([atoms])
    assert result["energy"] == pytest.approx(expected, abs=1e-9)
    # A step of a dynamics goes on as well.
    assert eager.get_potential_energy(atoms) == pytest.approx(expected, abs=1e-9)
