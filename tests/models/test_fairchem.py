"""eSCN and EquiformerV2 give what fairchem-core 1.10 gives with the same weights (tools/fairchem_reference.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from asecalc_mlip.files import read_json
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_network
from tools import fairchem_reference

EXPECTED = read_json(Path(__file__).parents[1] / "golden" / "fairchem" / "expected.json")
every_case = pytest.mark.parametrize("case", sorted(fairchem_reference.CASES))


def network_of(case, dtype, **changes):
    architecture, hyperparameters = fairchem_reference.CASES[case]
    network = build_network(architecture, {**hyperparameters, **changes})
    factor = fairchem_reference.FACTORS[architecture]
    return fairchem_reference.filled(network).to(dtype), factor


def graph_of(structure, dtype):
    atoms = Atoms.fromdict(EXPECTED["structures"][structure])
    graph = graph_from_atoms(atoms, 4.0)
    graph.positions.requires_grad_()
    return graph


@every_case
@pytest.mark.parametrize("structure", sorted(EXPECTED["structures"]))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 3e-6)])
def test_same_energies_and_forces(case, structure, dtype, tolerance):
    network, factor = network_of(case, dtype)
    graph, expected = graph_of(structure, dtype), EXPECTED[case][structure]
    energies, forces = network.energies_and_forces(graph)
    (gradient,) = torch.autograd.grad(energies.double().sum(), graph.positions)
    energy = factor * energies.double().sum().item()
    assert energy == pytest.approx(expected["energy"], rel=tolerance, abs=tolerance * factor)
    # Rounding goes with what cancels: energies in slopes, and 128 values of a tenth in a force. Where Gaussians are
    # 0.013 Å wide, float32 distances give slopes to 2e-5. Their tables are float32 whatever the dtype.
    rounded = 5.0 if dtype == torch.float32 and network.radial_basis.n_rbf == 600 else 1.0
    slopes = (-factor * gradient, expected["minus_slopes"], rounded * tolerance, abs(expected["energy"]))
    # float32 rounds the sums of a head by the processor: below 1e-5 of the largest force on one, 1.4e-5 on another.
    heads = (forces, expected["forces"], 2e-5 if dtype == torch.float32 else tolerance, 0.01)
    for found, theirs, bound, summed in (heads, slopes):
        assert np.abs(theirs).max() > 1e-6 * factor
        assert np.abs(found.detach().numpy() - theirs).max() < bound * max(np.abs(theirs).max(), summed)


@pytest.mark.parametrize("case", ["escn_3_2", "equiformer_v2_3_2"])
def test_fine_grids_are_near_the_published_ones(case):
    """The same weights serve both."""
    graph = graph_of("molecule", torch.float64)
    (fine, _), (published, _) = (network_of(case, torch.float64, **c) for c in ({"grid": "fine"}, {}))
    found, expected = fine(graph).sum().item(), published(graph).sum().item()
    assert 1e-9 < abs(found - expected) < 0.02 * abs(expected)
