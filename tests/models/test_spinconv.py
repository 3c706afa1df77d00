"""SpinConv beyond the physics suite: what its convolutions are, how far a spin mean depends on its angles."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_network, predict
from asecalc_mlip.models.harmonics import columns_by_order, fixed_points, point_weights, real_harmonics
from asecalc_mlip.models.spinconv import Spin, quadrature
from tests.cases import make_potential, make_structure, model_file


def unit_vectors(n, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize(("n", "m"), [(0, 0), (1, -1), (1, 0), (2, 1), (3, -2), (4, 3)])
def test_harmonics_are_those_of_scipy(n, m):
    directions = unit_vectors(20)
    x, y, z = directions.numpy().T
    theirs = np.sqrt(4 * np.pi) * (-1) ** m * sph_harm_y(n, abs(m), np.arccos(z), np.arctan2(y, x))
    if m:
        theirs = np.sqrt(2) * (theirs.real if m > 0 else theirs.imag)
    ours = real_harmonics(directions, 5)[:, n * n + n + m].numpy()
    assert np.allclose(ours, theirs.real, atol=1e-12)


@pytest.mark.parametrize("n_angular", [1, 4, 6])
def test_values_at_fixed_points_give_the_function_in_any_frame(n_angular):
    directions, amounts = unit_vectors(7), torch.from_numpy(np.random.default_rng(1).normal(size=7))
    turn = torch.from_numpy(Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix())
    wanted = amounts @ real_harmonics(directions @ turn.T, n_angular)
    values = point_weights(n_angular) @ (amounts @ real_harmonics(directions, n_angular))
    found = real_harmonics(fixed_points(n_angular) @ turn.T, n_angular).T @ values
    assert torch.allclose(found, wanted, atol=1e-12)


def test_a_block_is_the_sum_over_pairs_of_pairs():
    """The sphere of e = (j → i), pole along r_ij, holds the messages f = (k → j): c = Σ f_c x Y(R r̂)."""
    network = make_potential("spinconv").network
    graph = graph_from_atoms(make_structure("crystal"), 3.0)
    messages = []
    network.blocks[1].spin.register_forward_pre_hook(lambda _, inputs: messages.append(inputs[0]))
    network.blocks[1].register_forward_pre_hook(lambda _, inputs: messages.append(inputs))
    network(graph)
    (x, _, edges, _), function = messages
    vectors = graph.vectors()
    # Of all things only the zeroth and the m = 0 harmonics do not depend on the azimuth: those are Legendre's.
    for e in range(0, graph.n_edges, 7):
        wanted = torch.zeros(3, x.shape[1], dtype=torch.float64)
        for f in range(graph.n_edges):
            if graph.centers[f] == graph.neighbors[e]:
                cosine = float(vectors[e] @ vectors[f] / vectors[e].norm() / vectors[f].norm())
                legendre = [1.0, np.sqrt(3) * cosine, np.sqrt(5) * (1.5 * cosine**2 - 0.5)]
                wanted += edges.envelope[f] * torch.tensor(legendre)[:, None] * x[f]
        assert torch.allclose(function[e, :3], wanted, atol=1e-12)


def test_a_spun_filter_gives_the_same():
    """To rounding for turns by the angle between spins, and nearly so for any other: the more spins the nearer."""
    torch.manual_seed(0)
    directions, x = unit_vectors(9), torch.randn(9, 8, dtype=torch.float64)

    def spun(spin, angle):
        turn = torch.from_numpy(Rotation.from_euler("z", angle).as_matrix())
        harmonics = real_harmonics(directions @ turn.T, 3)[:, columns_by_order(3)]
        return spin(torch.einsum("kl,kf->lf", harmonics, x)[None])

    errors = []
    for n_spins in (8, 16, 32):
        torch.manual_seed(1)
        spin = Spin(8, 8, 3, n_spins).double()
        assert torch.allclose(spun(spin, 2 * np.pi / n_spins), spun(spin, 0.0), atol=1e-12)
        errors.append((spun(spin, 0.1) - spun(spin, 0.0)).abs().max().item())
    assert errors[0] > 1e-2 > 1e-3 > errors[1]
    assert errors[2] < 1e-6


def test_energies_hardly_depend_on_the_number_of_spins():
    graph = graph_from_atoms(make_structure("slab"), 4.0)
    few, default, many = (predict(make_potential("spinconv", n_spins=n), graph).energies for n in (4, 32, 64))
    assert (few - many).abs().max() > 1e-7
    assert (default - many).abs().max() < 1e-9


@pytest.mark.parametrize("architecture", ["spinconv", "spinconv-direct"])
def test_sites_without_a_direction_are_no_trouble(architecture):
    """A perfect crystal, where the mean of the neighbours vanishes, a line of atoms and a dimer."""
    potential = make_potential(architecture, trainable=True)
    crystal = bulk("SiO", "rocksalt", a=4.4)
    line = Atoms("CO2", [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]])
    for atoms in (crystal, line, line[:2]):
        result = predict(potential, graph_from_atoms(atoms, 4.0), create_graph=True)
        loss = result.energy.sum() + result.forces.square().sum()
        gradients = torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
        assert atoms is not crystal or architecture == "spinconv-direct" or result.forces.abs().max() < 1e-9


def test_angles_matter():
    potential = make_potential("spinconv", cutoff=3.0)
    energies = []
    for end in ([0, 0, 2.2], [0, 2.2, 0]):
        atoms = Atoms("OSiO", [[0, 0, -2.2], [0, 0, 0], end])
        energies.append(predict(potential, graph_from_atoms(atoms, 3.0), forces=False).energy.item())
    assert abs(energies[0] - energies[1]) > 1e-7


def test_the_quadrature_is_exact_for_harmonics():
    directions, weights = quadrature(4)
    mean = weights @ real_harmonics(directions, 8)
    assert mean[0].item() == pytest.approx(1.0, abs=1e-14)
    assert mean[1:].abs().max() < 1e-14
    # ⟨n s(n)⟩ of a force along a line, s = F · n
    force = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    assert torch.allclose(3.0 * (directions @ force * weights) @ directions, force, atol=1e-14)


def test_the_head_needs_to_be_asked_for():
    plain, direct = make_potential("spinconv"), make_potential("spinconv-direct")
    assert (plain.direct_forces, direct.direct_forces) == (False, True)
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    with pytest.raises(InputError, match="direct_forces=True"):
        plain.energies_and_forces(graph)
    assert torch.equal(predict(direct, graph, forces=False).energies, predict(direct, graph).energies)
    assert predict(direct, graph).forces.abs().max() > 1e-3


def test_a_file_keeps_the_head(tmp_path):
    path = model_file(tmp_path, "spinconv-direct")
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    expected = predict(make_potential("spinconv-direct", dtype=torch.float32), graph)
    assert torch.equal(predict(load(path).potential, graph).forces, expected.forces)


@pytest.mark.parametrize("changes", [{"n_features": 12}, {"n_features": 32, "n_hidden": 6}])
def test_bad_sizes(changes):
    with pytest.raises(InputError, match="multiples of 8"):
        build_network("spinconv", changes)
