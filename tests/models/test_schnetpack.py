"""Our SchNet and PaiNN against SchNetPack's, with the same weights."""

import numpy as np
import pytest
import torch

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import predict
from tests.cases import make_structure

spk = pytest.importorskip("schnetpack")
from asecalc_mlip.bench.schnetpack_models import from_schnetpack  # noqa: E402

CUTOFF, WIDTH, BLOCKS, N_RBF = 4.0, 16, 3, 12


@pytest.mark.parametrize("structure", ["molecule", "crystal"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("architecture", ["painn", "schnet"])
def test_same_energies_and_forces(architecture, dtype, tolerance, structure):
    theirs = reference(architecture, dtype)
    ours = from_schnetpack(theirs, [1, 6, 8, 14])
    graph = graph_from_atoms(make_structure(structure), CUTOFF)
    batch = {
        "_atomic_numbers": graph.numbers,
        "_positions": graph.positions.to(dtype),
        "_idx_i": graph.centers,
        "_idx_j": graph.neighbors,
        "_offsets": (graph.shifts @ graph.cell[0] if graph.is_periodic else torch.zeros(graph.n_edges, 3)).to(dtype),
        "_idx_m": graph.batch,
        "_n_atoms": graph.counts(),
    }
    result = theirs(batch)
    prediction = predict(ours, graph)
    scale = max(1.0, result["forces"].abs().max().item())
    assert prediction.energy.item() == pytest.approx(result["energy"].item(), abs=tolerance * graph.n_atoms)
    assert np.abs(prediction.forces - result["forces"].detach().double()).max() < tolerance * scale


def reference(architecture, dtype):
    """SchNetPack's model with random weights and biases."""
    torch.manual_seed(1)
    radial = spk.nn.GaussianRBF(n_rbf=N_RBF, cutoff=CUTOFF)
    cls = {"painn": spk.representation.PaiNN, "schnet": spk.representation.SchNet}[architecture]
    model = spk.model.NeuralNetworkPotential(
        representation=cls(
            n_atom_basis=WIDTH,
            n_interactions=BLOCKS,
            radial_basis=radial,
            cutoff_fn=spk.nn.CosineCutoff(CUTOFF),
        ),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(n_in=WIDTH, output_key="energy"), spk.atomistic.Forces()],
    ).to(dtype)
    # Its Gaussian centres are made in float32 whatever the dtype, which alone would be a difference of 1e-8.
    radial.offsets.copy_(torch.linspace(0, CUTOFF, N_RBF, dtype=dtype))
    radial.widths.fill_(CUTOFF / (N_RBF - 1))
    model.representation.cutoff_fn.cutoff = torch.tensor([CUTOFF], dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_other_models_are_refused():
    model = reference("painn", torch.float32)
    model.representation.radial_basis = spk.nn.BesselRBF(n_rbf=N_RBF, cutoff=CUTOFF)
    with pytest.raises(InputError, match="BesselRBF; expected GaussianRBF"):
        from_schnetpack(model, [6])
    model = reference("schnet", torch.float32)
    model.postprocessors.append(spk.transform.AddOffsets("energy", add_mean=True))
    with pytest.raises(InputError, match="AddOffsets"):
        from_schnetpack(model, [6])
