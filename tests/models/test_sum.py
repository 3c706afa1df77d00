"""Sums of potentials: they add, with a neighbour list of the longest cutoff, whoever runs them."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import describe, load, save
from asecalc_mlip.engine import CudaGraphEngine, EagerEngine, SumEngine, make_engine
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.models import add_potentials, build_network, parts_of, predict
from tests.cases import E0, STRUCTURES, make_potential, make_structure

FLOAT32, FLOAT64 = torch.float32, torch.float64


def total(dtype=FLOAT64):
    """PaiNN with a short cutoff and an EAM with a long one."""
    parts = [make_potential("painn", cutoff=3.2), make_potential("eam", cutoff=4.5, seed=1)]
    return add_potentials(parts, reference_energies=E0).to(dtype).eval().requires_grad_(False), parts


@pytest.mark.parametrize("structure", STRUCTURES)
def test_it_is_the_sum_of_its_parts(structure):
    potential, parts = total()
    atoms = make_structure(structure)
    both = predict(potential, graph_from_atoms(atoms, 4.5), stress=True)
    alone = [predict(part, graph_from_atoms(atoms, part.cutoff), stress=True) for part in parts]
    e0 = sum(E0[z] for z in atoms.numbers)
    assert both.energy.item() + e0 == pytest.approx(sum(one.energy.item() for one in alone), abs=1e-9)
    assert torch.allclose(both.forces, alone[0].forces + alone[1].forces, atol=1e-10)
    assert torch.allclose(both.stress, alone[0].stress + alone[1].stress, atol=1e-10, equal_nan=True)


def test_smooth_where_the_shorter_part_ends():
    potential, _ = total()
    distances = np.linspace(3.18, 3.22, 401)
    pairs = [Atoms("SiO", [[0, 0, 0], [0, 0, d]]) for d in distances]
    found = predict(potential, graph_from_atoms(pairs, 4.5))
    forces = found.forces[1::2, 2].numpy()
    assert np.abs(np.diff(forces)).max() < 20 * np.abs(forces).max() / 200
    assert np.abs(np.diff(found.energy.numpy()) / 1e-4 + forces[1:]).max() < 1e-2


def test_a_part_that_is_not_trained_costs_no_second_derivative():
    potential, _ = total()
    graph = graph_from_atoms([make_structure(name, seed=k) for k, name in enumerate(STRUCTURES)], 4.5)
    gradients = []
    for freeze in (False, True):
        potential.train().requires_grad_(True)
        potential.network.parts[1].requires_grad_(not freeze)
        found = predict(potential, graph, stress=True, create_graph=True)
        loss = found.energy.square().mean() + found.forces.square().mean() + found.stress.nan_to_num().square().sum()
        weights = list(potential.network.parts[0].parameters())
        gradients.append([found.energy, found.forces, found.stress, *torch.autograd.grad(loss, weights)])
    for free, fixed in zip(*gradients, strict=True):
        size = max(1e-3, free.nan_to_num().abs().max().item())
        assert torch.allclose(free, fixed, rtol=1e-9, atol=1e-9 * size, equal_nan=True)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("engine", ["parts", "padded", "pieces"])
def test_engines_agree_with_float64_eager(engine, dtype):
    exact, ours = total()[0], total(dtype)[0]
    makers = {
        "parts": lambda: SumEngine(ours, lambda part: make_engine(part, False)),
        "padded": lambda: CudaGraphEngine(ours, capture=False),
        "pieces": lambda: ChunkedEngine(ours, edges_per_piece=37),
    }
    runs = makers[engine]()
    graphs = [graph_from_atoms(make_structure(name, seed=k), 4.5) for k, name in enumerate(STRUCTURES)]
    for graph in [*graphs, batch_graphs(graphs), graph_from_atoms(Atoms("Si"), 4.5)]:
        for one in (runs, copy.deepcopy(runs)):
            found, reference = one(graph, stress=True), EagerEngine(exact)(graph, stress=True)
            assert ((found.energy - reference.energy).abs() / graph.counts()).max() < 2e-6
            assert (found.forces - reference.forces).abs().max() < 1e-4
            assert torch.equal(found.stress.isnan(), reference.stress.isnan())
            assert (found.stress - reference.stress).nan_to_num().abs().max() < 1e-5
    only_energy = runs(graphs[0], forces=False)
    assert only_energy.forces is None and only_energy.stress is None


def test_the_network_of_a_sum_runs_natively_if_it_can():
    potential, _ = total(FLOAT32)
    chosen = make_engine(potential)
    if SumEngine.pays(potential):
        assert "native painn" in chosen.describe() and "native eam" in chosen.describe()
        assert 0 < chosen.bytes_needed(100, 10_000) < EagerEngine(potential).bytes_needed(100, 10_000)
    assert type(make_engine(potential, "eager")) is EagerEngine


def test_one_file(tmp_path):
    potential, _ = total(FLOAT32)
    save(tmp_path / "delta.pt", potential, card={"name": "delta"})
    calculator = PIWSLCalculator.load(tmp_path / "delta.pt", dtype="float64", device="cpu")
    atoms = make_structure("crystal")
    atoms.calc = calculator
    exact = predict(load(tmp_path / "delta.pt").potential.double(), graph_from_atoms(atoms, 4.5), stress=True)
    assert atoms.get_potential_energy() == pytest.approx(exact.energy.item(), abs=1e-9)
    assert np.allclose(atoms.get_forces(), exact.forces.numpy(), atol=1e-10)
    assert atoms.get_stress().shape == (6,)
    assert calculator.cutoff == 4.5
    text = describe(tmp_path / "delta.pt")
    assert "painn, " in text and " + eam, " in text and "cutoff 3.2 Å" in text


def test_parts_come_apart_and_together():
    potential, parts = total()
    found = parts_of(potential)
    assert [part.architecture for part in found] == ["painn", "eam"]
    assert found[0].reference_energies == E0 and set(found[1].reference_energies.values()) == {0.0}
    assert all(a is b for a, b in zip(potential.network.parts, [p.network for p in found], strict=True))
    assert parts_of(parts[0]) == [parts[0]]
    again = add_potentials([potential, make_potential("eam", seed=3)], reference_energies=E0)
    assert [part.architecture for part in parts_of(again)] == ["painn", "eam", "eam"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "two parts or more"),
        ("painn", "two parts or more"),
        ([{"architecture": "painn"}, {"hyperparameters": {}}], "part 1 of a sum"),
        ([{"architecture": "painn"}, {"architecture": "sum"}], "list its parts"),
        ([{"architecture": "zbl"}, {"architecture": "painn"}], "no weights"),
        ([{"architecture": "painn"}, {"architecture": "gpt"}], "'gpt' is unknown"),
        ([{"architecture": "painn", "hyperparameters": {"direct_forces": True}}, {"architecture": "zbl"}], "direct"),
    ],
)
def test_what_cannot_be_summed(parts, message):
    with pytest.raises(InputError, match=message):
        build_network("sum", {"parts": parts})
