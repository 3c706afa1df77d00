"""Our SchNet and PaiNN against SchNetPack's, with the same weights."""

import numpy as np
import pytest
import torch

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_potential, predict
from tests.cases import make_structure

spk = pytest.importorskip("schnetpack")

CUTOFF, WIDTH, BLOCKS, N_RBF = 4.0, 16, 3, 12


@pytest.mark.parametrize("structure", ["molecule", "crystal"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("architecture", ["painn", "schnet"])
def test_same_energies_and_forces(architecture, dtype, tolerance, structure):
    theirs = reference(architecture, dtype)
    ours = build_potential(
        architecture,
        {"cutoff": CUTOFF, "n_features": WIDTH, "n_interactions": BLOCKS, "n_rbf": N_RBF},
        reference_energies={1: 0.0, 6: 0.0, 8: 0.0, 14: 0.0},
    ).to(dtype)
    ours.network.load_state_dict(translated(architecture, theirs.state_dict()))
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
    prediction = predict(ours.network, graph)  # SchNetPack does not take the lone atoms off
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


def translated(architecture, state):
    """SchNetPack's weights under our names."""
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix("representation.").replace("output_modules.0.outnet.0.", "readout.0.")
        name = name.replace("output_modules.0.outnet.1.", "readout.2.")
        if name.startswith(("radial_basis", "cutoff_fn", "postprocessors")):
            continue
        if architecture == "painn":
            parts = name.split(".")
            if parts[0] == "interactions":
                name = f"messages.{parts[1]}.{2 * int(parts[3])}.{parts[4]}"
            elif parts[0] == "mixing" and "context" in name:
                name = f"mixings.{parts[1]}.context.{2 * int(parts[3])}.{parts[4]}"
            elif parts[0] == "mixing":
                name = f"mixings.{parts[1]}.channels.{parts[3]}"
            name = name.replace("filter_net.", "filters.")
        else:
            for block in ("f2out", "filter_network"):
                name = name.replace(f"{block}.1.", f"{block}.2.")
        # SchNetPack 2.2 has 100 rows for the elements, as we do.
        renamed[name] = value
    return renamed
