"""Force head of PaiNN: what it adds, what it refuses, and that it leaves conservative models as they were."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import describe, load, save
from asecalc_mlip.engine import NativeEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import VectorHead, build_network, predict
from tests.cases import DIRECT, make_potential, make_structure, model_file


def graph_of(structure, cutoff=4.0):
    return graph_from_atoms(make_structure(structure), cutoff)


@pytest.mark.parametrize("structure", ["molecule", "slab"])
def test_one_pass_gives_the_energies_of_the_network_and_forces_of_the_head(structure):
    potential, graph = make_potential(DIRECT), graph_of(structure)
    assert potential.direct_forces
    raw, forces = potential.network.energies_and_forces(graph)
    assert torch.equal(raw, potential.network(graph))
    q, mu = potential.network.features(graph)
    assert q.shape == (graph.n_atoms, 16)
    assert mu.shape == (graph.n_atoms, 3, 16)
    energies, vectors, scalars = potential.energies_and_vectors(graph)
    assert torch.equal(vectors, mu)
    assert torch.equal(scalars, q)
    result = predict(potential, graph)
    assert torch.equal(result.energies, energies)
    assert torch.equal(result.forces, forces * potential.scale)
    assert not result.forces.requires_grad
    assert torch.equal(predict(potential, graph, forces=False).energy, result.energy)


def test_the_last_block_mixes_the_vectors_for_the_head():
    potential, graph = make_potential(DIRECT, trainable=True), graph_of("molecule")
    result = predict(potential, graph, create_graph=True)
    result.forces.square().sum().backward()
    for name, parameter in potential.network.named_parameters():
        if not name.startswith("readout"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_any_vector_head_turns_with_the_structure():
    # The head that tells noise in training is of the same class, on a conservative model.
    torch.manual_seed(0)
    potential, head, atoms = make_potential("painn"), VectorHead(16).double(), make_structure("slab")
    rotation = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    _, vectors, scalars = potential.energies_and_vectors(graph_from_atoms(atoms, 4.0))
    seen = head(scalars, vectors)
    atoms.set_cell(atoms.cell.array @ rotation, scale_atoms=False)
    atoms.positions[:] = atoms.positions @ rotation
    _, vectors, scalars = potential.energies_and_vectors(graph_from_atoms(atoms, 4.0))
    assert torch.allclose(head(scalars, vectors), seen @ torch.from_numpy(rotation), atol=1e-12)
    assert seen.abs().max() > 1e-3


def test_force_gradients_in_the_weights_are_exact():
    potential, graph = make_potential(DIRECT, trainable=True), graph_of("crystal")
    weight = potential.network.messages[0][0].weight
    loss = predict(potential, graph, create_graph=True).forces.square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    direction, h, values = torch.randn_like(weight), 1e-5, []
    for step in (h, -h):
        with torch.no_grad():
            weight += step * direction
            values.append(predict(potential, graph).forces.square().sum().item())
            weight -= step * direction
    assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)


def test_forces_are_not_the_derivative_of_the_energy():
    direct, graph = make_potential(DIRECT), graph_of("molecule")
    derivative = predict(lambda g: direct(g), graph).forces
    forces = predict(direct, graph).forces
    assert (forces - derivative).abs().max() > 0.1 * derivative.abs().max()
    # Nothing makes them add up to zero, and nothing here pretends it.
    assert forces.sum(0).abs().max() > 1e-4


def test_same_seed_gives_the_energies_of_the_conservative_model():
    torch.manual_seed(3)
    plain = build_network("painn", {"n_features": 16})
    torch.manual_seed(3)
    direct = build_network("painn", {"n_features": 16, "direct_forces": True})
    graph = graph_of("molecule", 5.0)
    assert torch.equal(plain(graph), direct(graph))
    assert not any(name.startswith("force_head") for name in plain.state_dict())


def test_no_stress():
    potential = make_potential(DIRECT)
    for forces in (True, False):
        with pytest.raises(InputError, match="no stress.*conservative model"):
            predict(potential, graph_of("crystal"), forces=forces, stress=True)


def test_conservative_models_have_no_head():
    for architecture in ("painn", "schnet"):
        assert not make_potential(architecture).direct_forces
    with pytest.raises(InputError, match="direct_forces=True"):
        make_potential("painn").energies_and_forces(graph_of("molecule"))
    for name in ("energies_and_forces", "energies_and_vectors"):
        with pytest.raises(InputError, match="schnet has no energies and .*use painn"):
            getattr(make_potential("schnet"), name)(graph_of("molecule"))


@pytest.mark.parametrize(
    ("architecture", "value", "message"),
    [("schnet", True, "Only .*painn.* and tensornet have direct_forces"), ("painn", 1, "expected true or false")],
)
def test_wrong_hyperparameters_are_named(architecture, value, message):
    with pytest.raises(InputError, match=message):
        build_network(architecture, {"direct_forces": value})


def test_file_keeps_the_head(tmp_path):
    path = model_file(tmp_path, DIRECT)
    potential = load(path).potential
    graph = graph_of("molecule")
    expected = predict(make_potential(DIRECT, dtype=torch.float32), graph)
    assert torch.equal(predict(potential, graph).forces, expected.forces)
    assert "direct (not the derivative of the energy)" in describe(path)


def test_files_of_conservative_models_do_not_mention_it(tmp_path):
    # Versions before force heads refuse hyper-parameters that they do not know.
    potential = make_potential("painn", direct_forces=False)
    save(tmp_path / "m.pt", potential)
    assert "direct_forces" not in torch.load(tmp_path / "m.pt", weights_only=True)["hyperparameters"]
    assert "direct" not in describe(tmp_path / "m.pt")


@pytest.mark.parametrize("structure", ["molecule", "crystal"])
def test_calculator(structure, tmp_path):
    calculator = PIWSLCalculator.load(model_file(tmp_path, DIRECT), dtype="float64", device="cpu")
    assert not NativeEngine.serves(calculator.potential)
    atoms = make_structure(structure)
    atoms.calc = calculator
    expected = predict(calculator.potential, graph_from_atoms(atoms, 4.0))
    assert np.allclose(atoms.get_forces(), expected.forces, atol=1e-10)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy.item(), abs=1e-9)
    (result,) = calculator.evaluate([atoms])
    assert np.allclose(result["forces"], expected.forces, atol=1e-10)
    assert result["stress"] is None
    assert "forces           direct (not the derivative of the energy)" in str(calculator)
    assert "painn with a force head" in repr(calculator)


def test_calculator_without_stress(tmp_path):
    calculator = PIWSLCalculator.load(model_file(tmp_path, DIRECT), device="cpu")
    assert "stress" not in calculator.implemented_properties
    assert "stress" in PIWSLCalculator.implemented_properties
    atoms = make_structure("crystal")
    atoms.calc = calculator
    with pytest.raises(InputError, match="no stress"):
        atoms.get_stress()
    assert np.isfinite(atoms.get_forces()).all()
    # ASE's writers ask for what is there already, and expect this exception.
    with pytest.raises(PropertyNotImplementedError):
        calculator.get_property("stress", atoms, allow_calculation=False)


def test_pulled_apart_atoms_have_no_force():
    pair = graph_from_atoms(Atoms("CO", [[0, 0, 0], [0, 0, 30.0]]), 4.0)
    assert torch.equal(predict(make_potential(DIRECT), pair).forces, torch.zeros(2, 3).double())
