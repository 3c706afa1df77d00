"""The curl of a force field against dense Jacobians, fields that are known, and conservative models."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms

pytest.importorskip("schnetpack")

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.data.errors import evaluate_file, evaluate_frames
from asecalc_mlip.engine.curl import force_curl, forces_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import native_library, plain_kernels
from asecalc_mlip.models import predict
from tests.cases import DIRECT, MODELS, STRUCTURES, make_potential, make_structure, model_file


class LinearField:
    """F = A r for one structure; no energy is needed."""

    direct_forces = True

    def __init__(self, matrix):
        self.matrix = matrix

    def energies_and_forces(self, graph):
        forces = (self.matrix @ graph.positions.reshape(-1)).reshape(-1, 3)
        return forces.new_zeros(graph.n_atoms), forces


def graph_of(structure, **options):
    return graph_from_atoms(make_structure(structure, **options), 4.0)


def matrices(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return a + a.T, a - a.T


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_linear_field_with_a_known_antisymmetric_part(share):
    graph = graph_of("molecule")
    symmetric, skew = matrices(3 * graph.n_atoms)
    j = (1 - share) * symmetric + share * skew
    expected = (2 * share * skew).norm() / j.norm()
    # Enough probes that chance does not matter.
    curl = force_curl(LinearField(j), graph, n_probes=2000)
    assert curl.shape == (1,)
    assert curl.item() == pytest.approx(expected.item(), rel=0.02, abs=1e-12)


@pytest.mark.parametrize("structure", ["molecule", "crystal", "slab"])
def test_direct_model_against_its_dense_jacobian(structure):
    potential, graph = make_potential(DIRECT), graph_of(structure)
    j = torch.autograd.functional.jacobian(lambda r: forces_of(potential, graph, r), graph.positions)
    j = j.reshape(3 * graph.n_atoms, -1)
    curl = force_curl(potential, graph, n_probes=400).item()
    assert curl > 0.1
    assert curl == pytest.approx(((j - j.T).norm() / j.norm()).item(), rel=0.03)


def test_jacobian_is_that_of_differences():
    potential, graph = make_potential(DIRECT), graph_of("molecule")
    direction, h = torch.randn_like(graph.positions), 1e-5
    values = [forces_of(potential, graph, graph.positions + step * direction) for step in (h, -h)]
    j = torch.autograd.functional.jacobian(lambda r: forces_of(potential, graph, r), graph.positions)
    assert torch.allclose(torch.einsum("nimj,mj->ni", j, direction), (values[0] - values[1]) / (2 * h), atol=1e-7)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("architecture", MODELS)
def test_conservative_models_have_none(architecture, structure):
    assert force_curl(make_potential(architecture), graph_of(structure), n_probes=3).item() < 1e-12
    single = force_curl(make_potential(architecture, dtype=torch.float32), graph_of(structure), n_probes=3)
    assert single.item() < 1e-4


def test_the_energy_of_a_direct_model_is_conservative():
    potential = make_potential(DIRECT)
    assert force_curl(lambda graph: potential(graph), graph_of("molecule"), n_probes=3).item() < 1e-12


def test_forces_of_is_predict():
    for name in (*MODELS, DIRECT):
        potential, graph = make_potential(name), graph_of("slab")
        forces = forces_of(potential, graph, graph.positions.clone().requires_grad_())
        assert torch.allclose(forces, predict(potential, graph).forces, atol=1e-12)


def test_batch_is_one_at_a_time():
    potential = make_potential(DIRECT)
    graphs = [graph_of(name, seed=k) for k, name in enumerate(STRUCTURES)]
    batch = batch_graphs([*graphs, graph_from_atoms(Atoms("C"), 4.0)])
    curls = force_curl(potential, batch, n_probes=100)
    assert curls.shape == (5,)
    assert not curls.requires_grad
    for curl, graph in zip(curls, graphs, strict=False):
        assert curl.item() == pytest.approx(force_curl(potential, graph, n_probes=100).item(), rel=0.15)
    assert curls[4].item() == 0


def test_nothing_to_measure():
    lone = graph_from_atoms(Atoms("C"), 4.0)
    for name in (*MODELS, DIRECT):
        assert force_curl(make_potential(name), lone).item() == 0


def test_probes_come_from_the_generator():
    potential, graph = make_potential(DIRECT), graph_of("molecule")
    first, same = (force_curl(potential, graph, n_probes=2) for _ in range(2))
    other = force_curl(potential, graph, n_probes=2, generator=torch.Generator().manual_seed(1))
    assert first.item() == same.item() != other.item()
    with pytest.raises(InputError, match="n_probes is 0"):
        force_curl(potential, graph, n_probes=0)


@pytest.mark.skipif(native_library() is None, reason="needs the native library")
@pytest.mark.parametrize("architecture", MODELS)
def test_plain_kernels_have_every_derivative(architecture):
    potential, graph = make_potential(architecture), graph_of("molecule")
    with plain_kernels():
        inside = forces_of(potential, graph, graph.positions.clone().requires_grad_())
    outside = forces_of(potential, graph, graph.positions.clone().requires_grad_())
    assert torch.allclose(inside, outside, atol=1e-12)
    assert "_Forward" not in names_in_graph(inside.grad_fn)
    assert "_Forward" in names_in_graph(outside.grad_fn)


def names_in_graph(node):
    seen, stack = {}, [node]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen[node] = node.name()
            stack += [parent for parent, _ in node.next_functions]
    return " ".join(seen.values())


def frames(n=25):
    result = []
    for seed in range(n):
        atoms = make_structure("molecule", seed=seed)
        atoms.info["energy"] = -1000.0 - 0.01 * seed
        atoms.arrays["forces"] = np.random.default_rng(seed).normal(size=(len(atoms), 3))
        result.append(atoms)
    return result


def test_evaluation_reports_the_curl_of_direct_models(tmp_path):
    calculator = PIWSLCalculator.load(model_file(tmp_path, DIRECT), device="cpu")
    errors = evaluate_frames(calculator, frames())
    double = make_potential(DIRECT, dtype=torch.float32).double()
    exact = [force_curl(double, graph_from_atoms(atoms, 4.0), n_probes=50).item() for atoms in frames()[::5]]
    assert errors.curl == pytest.approx(np.mean(exact), rel=0.1)
    assert f"curl ‖J−Jᵀ‖/‖J‖  {errors.curl:.3g}" in repr(errors)
    assert json.loads(json.dumps(errors.to_dict()))["curl"] == errors.curl


def test_evaluation_leaves_conservative_models_alone(tmp_path):
    errors = evaluate_frames(PIWSLCalculator.load(model_file(tmp_path), device="cpu"), frames(2))
    assert errors.curl is None
    assert "curl" not in repr(errors)


def test_evaluation_of_a_file(tmp_path):
    from asecalc_mlip.data.convert import write_reference

    write_reference(tmp_path / "data.xyz", frames(3))
    errors = evaluate_file(str(model_file(tmp_path, DIRECT)), str(tmp_path / "data.xyz"), device="cpu")
    assert errors.curl > 0
