"""M3GNet beyond the physics suite: which angles there are, and what they do."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.special import spherical_jn

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_network
from asecalc_mlip.models.m3gnet import _combinations
from asecalc_mlip.models.radial import SmoothBesselBasis, SphericalBesselBasis
from tests.cases import make_structure


def test_all_pairs_of_pairs_at_an_atom():
    graph = graph_from_atoms(make_structure("crystal"), 4.0)
    first, second = _combinations(graph.centers, graph.n_atoms)
    wanted = {
        (p, q) for p, q in itertools.permutations(range(graph.n_edges), 2) if graph.centers[p] == graph.centers[q]
    }
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == wanted and len(first) == len(wanted)


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
    roots = basis._roots[order].numpy()
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
