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
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_same_energies_and_forces(case, structure, dtype, tolerance):
    network, factor = network_of(case, dtype)
    graph, expected = graph_of(structure, dtype), EXPECTED[case][structure]
    energies, forces = network.energies_and_forces(graph)
    (gradient,) = torch.autograd.grad(energies.double().sum(), graph.positions)
    energy = factor * energies.double().sum().item()
    assert energy == pytest.approx(expected["energy"], rel=tolerance, abs=tolerance * factor)
    # Rounding goes with what cancels: energies in slopes, and 128 values of a tenth in a force.
    slopes = (-factor * gradient, expected["minus_slopes"], abs(expected["energy"]))
    for found, theirs, summed in ((forces, expected["forces"], 0.01), slopes):
        assert np.abs(theirs).max() > 1e-6 * factor
        assert np.abs(found.detach().numpy() - theirs).max() < tolerance * max(np.abs(theirs).max(), summed)
