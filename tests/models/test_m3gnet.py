"""M3GNet beyond the physics suite: which angles there are, and what they do."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.special import eval_legendre, spherical_jn

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_network
from asecalc_mlip.models.radial import SmoothBesselBasis, SphericalBesselBasis, polynomial_cutoff
from tests.cases import make_structure


@pytest.mark.parametrize("n_angular", [1, 3, 5])
def test_sums_over_angles_are_those_of_a_list_of_them(n_angular):
    """T_p = Σ_q c_p c_q Φ(r_q, cos θ_pq) σ_k over all other pairs q of the same atom."""
    torch.manual_seed(0)
    network = build_network("m3gnet", {"n_features": 8, "n_angular": n_angular, "cutoff": 4.5}).double()
    graph = graph_from_atoms(make_structure("crystal"), 4.5)
    vectors = graph.vectors()
    near = network._near(vectors, vectors.norm(dim=1), graph)
    three_body, v = network.blocks[0].three_body, torch.randn(graph.n_atoms, 8, dtype=torch.float64)
    e = torch.zeros(graph.n_edges, 8, dtype=torch.float64)
    found = three_body(v, e, near)

    third = torch.sigmoid(three_body.atoms(v))
    t = torch.zeros(graph.n_edges, 3 * n_angular, dtype=torch.float64)
    orders = np.repeat(np.arange(n_angular), 3)
    for p, q in itertools.permutations(range(graph.n_edges), 2):
        r = vectors[[p, q]].norm(dim=1)
        if graph.centers[p] == graph.centers[q] and (r <= 4.0).all():
            cosine = float(vectors[p] @ vectors[q] / r.prod())
            y = torch.from_numpy(np.sqrt((2 * orders + 1) / (4 * np.pi)) * eval_legendre(orders, cosine))
            c = polynomial_cutoff(r, 4.0).prod()
            t[p] += c * network.angular.all(r[1:])[0] * y * third[graph.neighbors[q]]
    wanted = torch.nn.functional.silu(three_body.value(t)) * torch.sigmoid(three_body.gate(t))
    assert wanted.abs().max() > 1e-3 and (found - wanted).abs().max() < 1e-13


def test_angles_matter():
    torch.manual_seed(0)
    network = build_network("m3gnet", {"n_features": 8}).double()
    with torch.no_grad():
        for block in network.blocks:
            block.three_body.value.weight.mul_(20)

    def energy(angle):
        # Both far ends are further than the cutoff from each other, so only the angle changes.
        ends = [[2.9, 0, 0], [2.9 * np.cos(angle), 2.9 * np.sin(angle), 0]]
        return network(graph_from_atoms(Atoms("OHH", [[0, 0, 0], *ends]), 5.0)).sum().item()

    assert abs(energy(2.2) - energy(2.8)) > 1e-9


@pytest.mark.parametrize("order", [0, 1, 2])
def test_spherical_bessel_functions_are_those_of_scipy(order):
    basis = SphericalBesselBasis(3, 3, 5.0)
    r = torch.linspace(0.5, 4.9, 30, dtype=torch.float64)
    found = basis(r).reshape(30, 3, 3)[:, order].numpy()
    roots = basis._roots[order].values.numpy()
    wanted = [
        np.sqrt(2 / 125) * spherical_jn(order, z * r.numpy() / 5) / abs(spherical_jn(order + 1, z)) for z in roots
    ]
    assert np.allclose(found, np.transpose(wanted), atol=1e-12)
    assert np.abs(basis(torch.tensor([5.0], dtype=torch.float64)).numpy()).max() < 1e-12


def test_smooth_bessel_functions_are_orthonormal_and_end_smoothly():
    basis = SmoothBesselBasis(6, 5.0)
    r = torch.linspace(1e-6, 5.0, 20001, dtype=torch.float64)
    values = basis(r)
    overlap = (values[:, :, None] * values[:, None] * (r.square())[:, None, None]).sum(0) * (r[1] - r[0])
    assert torch.allclose(overlap, torch.eye(6, dtype=torch.float64), atol=1e-4)
    end = torch.tensor([5.0 - 1e-4], dtype=torch.float64)
    assert basis(end).abs().max() < 1e-9
