"""Harmonics, rotations of edges and grids on the sphere, against scipy and against what they are for."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation
from scipy.special import lpmv
from torch._subclasses import FakeTensorMode

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import ARCHITECTURES, predict
from asecalc_mlip.models.budget import Budget
from asecalc_mlip.models.constants import Places, Table
from asecalc_mlip.models.so2 import edge_grid, node_grid
from asecalc_mlip.models.spherical import (
    EdgeRotations,
    SphereGrid,
    edge_frames,
    orders,
    sphere_points,
    spherical_harmonics,
)
from tests.cases import make_potential, make_structure

SIZES = [(1, 0), (2, 1), (3, 3), (6, 2)]


def directions(n=20):
    """Unit vectors, among them both poles and some close to them and on the equator."""
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3)))
    special = [[0, 1, 0], [0, -1, 0], [1e-9, 1, 0], [1e-9, -1, 1e-10], [1, 0, 0], [0, -0.0, 1], [-1, 0, 0]]
    points = torch.cat([points, torch.tensor(special, dtype=torch.float64)])
    return points / points.norm(dim=1, keepdim=True)


def test_harmonics_are_those_of_scipy():
    points = directions()[:20]
    x, y, z = points.numpy().T
    values = spherical_harmonics(4, points)
    for k, (degree, m) in enumerate(orders(4)):
        size = (2 * degree + 1) / (4 * math.pi) * math.factorial(degree - abs(m)) / math.factorial(degree + abs(m))
        # y is the polar axis and z that of azimuth zero; scipy's functions have the Condon-Shortley sign.
        legendre = (-1) ** m * lpmv(abs(m), degree, y)
        azimuth = np.arctan2(x, z)
        wave = 1.0 if m == 0 else math.sqrt(2) * (np.sin(-m * azimuth) if m < 0 else np.cos(m * azimuth))
        assert np.allclose(values[:, k], math.sqrt(size) * legendre * wave, atol=1e-12)
    assert torch.allclose(spherical_harmonics(3, 2 * points)[:, 9:], 8 * spherical_harmonics(3, points)[:, 9:])


@pytest.mark.parametrize(("l_max", "m_max"), SIZES)
def test_rotations_turn_harmonics_onto_the_axis(l_max, m_max):
    rotations, u = EdgeRotations(l_max, m_max), directions()
    frames = edge_frames(u)
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(frames @ frames.mT, identity.expand(len(u), 3, 3), atol=1e-14)
    assert torch.allclose(torch.linalg.det(frames), torch.ones(len(u), dtype=torch.float64), atol=1e-14)
    assert torch.allclose(frames @ u[:, :, None], identity[1, :, None].expand(len(u), 3, 1), atol=1e-14)
    points = torch.from_numpy(np.random.default_rng(1).normal(size=(len(u), 3)))
    turned = spherical_harmonics(l_max, (frames @ points[:, :, None]).squeeze(-1))
    kept = turned[:, [degree * degree + degree + m for degree, m in rotations.orders]]
    found = (rotations(u) @ spherical_harmonics(l_max, points)[:, :, None]).squeeze(-1)
    assert torch.allclose(found, kept, atol=1e-12 * kept.abs().max().item())


def test_rotations_have_derivatives_everywhere():
    rotations, u = EdgeRotations(4, 2), directions().requires_grad_()
    value = rotations(u).pow(3).sum()
    (first,) = torch.autograd.grad(value, u, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), u)
    for found in (first, second):
        assert torch.isfinite(found).all()
        # Those of angles would be 10⁹ and its square at the directions that close to a pole.
        assert found.abs().max() < 1e6


@pytest.mark.parametrize(("l_max", "m_max"), [(0, 0), (2, 3), (2.0, 1), (3, -1)])
def test_bad_sizes(l_max, m_max):
    with pytest.raises(ValueError, match="l_max is"):
        EdgeRotations(l_max, m_max)


@pytest.mark.parametrize("gauss", [True, False])
def test_points_integrate_polynomials(gauss):
    points, weights = sphere_points(8, 9, gauss=gauss)
    sums = weights @ spherical_harmonics(7, points)
    assert sums[0].item() == pytest.approx(math.sqrt(4 * math.pi), abs=1e-12)
    assert sums[1:].abs().max() < 1e-12


@pytest.mark.parametrize("grid", ["fine", "published"])
@pytest.mark.parametrize(("l_max", "m_max"), SIZES)
def test_to_the_grid_and_back(grid, l_max, m_max):
    rotations = EdgeRotations(l_max, m_max)
    for found in (node_grid(l_max, grid), edge_grid(rotations, grid)):
        n = len(orders(l_max)) if found.n_points == node_grid(l_max, grid).n_points else len(rotations.orders)
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, n, 2)))
        assert torch.allclose(found.coefficients(found.values(x)), x, atol=1e-12)
    with pytest.raises(ValueError, match="choose fine or published"):
        node_grid(2, "coarse")


@pytest.mark.parametrize("architecture", ["escn", "equiformer_v2"])
def test_the_angle_of_a_frame_about_its_edge_does_not_matter(architecture):
    """Not even with m_max < l_max; published networks draw it at random."""
    potential = make_potential(architecture, l_max=3, m_max=2)
    rotations, graph = potential.network.rotations, graph_from_atoms(make_structure("molecule"), 4.0)
    generator = torch.Generator().manual_seed(0)

    def rolled(directions):
        angle = 2 * math.pi * torch.rand(len(directions), generator=generator, dtype=torch.float64)
        c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
        roll = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1).unflatten(-1, (3, 3))
        return rotations.of_frames(roll @ edge_frames(directions))

    expected = predict(potential, graph)
    potential.network.rotations = Rolled(rolled, rotations)
    found = predict(potential, graph)
    assert found.energy.item() == pytest.approx(expected.energy.item(), abs=1e-6)
    assert (found.forces - expected.forces).abs().max() < 1e-5 * expected.forces.abs().max()
    assert not torch.equal(found.forces, expected.forces)


class Rolled:
    def __init__(self, function, rotations):
        self.function, self.l_max, self.m_max = function, rotations.l_max, rotations.m_max

    def __call__(self, directions):
        return self.function(directions)


@pytest.mark.parametrize("architecture", ["escn", "equiformer_v2"])
def test_derivatives_after_a_call_in_inference_mode(architecture):
    potential = make_potential(architecture, dtype=torch.float32, trainable=True)
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    with torch.inference_mode():
        expected = potential(graph).sum().item()
    result = predict(potential, graph, create_graph=True)
    assert result.energy.item() == pytest.approx(expected, abs=1e-2)
    result.forces.square().sum().backward()


def test_a_program_that_is_traced_leaves_numbers_behind():
    """As the compiler traces them: a compilation that fails is followed by calls of the same network."""
    table, places, like = Table(torch.ones(2)), Places([1, 0]), torch.empty(2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert hasattr(table.like(torch.empty(2)), "fake_mode")
        places.like(torch.empty(2))
    assert table.like(like).tolist() == [1.0, 1.0] and places.like(like).tolist() == [1, 0]
    assert table.like(like) is table.like(like)


@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        ("escn", {"n_features": 2048, "n_hidden": 2048, "l_max": 10, "m_max": 10, "n_interactions": 64}),
        ("equiformer_v2", {"n_features": 2048, "n_feed": 2048, "l_max": 10, "n_interactions": 64}),
    ],
)
def test_a_file_cannot_ask_for_more_weights_than_it_has(architecture, sizes):
    with pytest.raises(InputError, match="more weights than the file holds"), Budget(1000):
        ARCHITECTURES[architecture](**sizes)


@pytest.mark.parametrize("architecture", ["escn", "equiformer_v2"])
def test_forces_next_to_the_poles(architecture):
    """Along the y axis, where angles have no derivatives, forces are those a little beside it, and finite twice."""
    potential = make_potential(architecture, trainable=True)
    found = []
    for sideways in (0.0, 1e-7):
        atoms = Atoms("OCO", [[sideways, 1.2, 0], [0, 0, 0], [0, -1.3, sideways]])
        result = predict(potential, graph_from_atoms(atoms, 4.0), create_graph=True)
        found.append(result.forces)
    assert (found[0] - found[1]).abs().max() < 1e-5
    gradients = torch.autograd.grad(found[0].square().sum(), list(potential.parameters()), allow_unused=True)
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_a_fine_grid_turns_with_what_is_on_it():
    """A function of values at points commutes with rotations, as far as the sums over points are integrals."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 9, 4)))
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix())[None]
    turn = EdgeRotations(2, 2)
    matrix = torch.zeros(9, 9, dtype=torch.float64)
    matrix[[degree * degree + degree + m for degree, m in turn.orders]] = turn.of_frames(rotation)[0]
    errors = {}
    for name in ("fine", "published"):
        grid = node_grid(2, name)

        def act(x, grid: SphereGrid = grid):
            return grid.coefficients(torch.nn.functional.silu(grid.values(x)))

        errors[name] = (act(matrix @ x) - matrix @ act(x)).abs().max().item()
    assert errors["fine"] < 1e-6
    assert 1e-4 < errors["published"] < 0.1
