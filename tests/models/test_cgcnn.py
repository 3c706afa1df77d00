"""Our graph convolution against torch-geometric's CGConv with the same weights, and what is its own."""

import pytest
import torch

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import cgcnn
from asecalc_mlip.models.layers import at_once
from tests.cases import make_potential, make_structure

WIDTH, N_RBF = 16, 8


@pytest.mark.parametrize("structure", ["molecule", "crystal", "slab"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_convolution_is_that_of_the_paper_without_the_envelope(dtype, tolerance, structure):
    geometric = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    theirs = geometric.CGConv(WIDTH, dim=N_RBF).to(dtype)
    ours = cgcnn.GatedConvolution(WIDTH, N_RBF).to(dtype)
    with torch.no_grad():
        ours.terms.weight.copy_(torch.cat([theirs.lin_f.weight, theirs.lin_s.weight]))
        ours.terms.bias.copy_(torch.cat([theirs.lin_f.bias, theirs.lin_s.bias]))
    graph = graph_from_atoms(make_structure(structure), 4.0)
    x = torch.randn(graph.n_atoms, WIDTH, dtype=dtype)
    basis, no_envelope = torch.rand(graph.n_edges, N_RBF, dtype=dtype), torch.ones(graph.n_edges, 1, dtype=dtype)
    expected = theirs(x, torch.stack([graph.neighbors, graph.centers]), basis)
    found = x + ours(x, (basis, no_envelope, graph.centers, graph.neighbors), at_once)
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_network_is_a_stack_of_those_convolutions():
    """All of the network but the envelope and the layer norm, which the paper does not have."""
    geometric = pytest.importorskip("torch_geometric.nn")
    network = make_potential("cgcnn").network
    graph = graph_from_atoms(make_structure("crystal"), network.cutoff)
    distances = graph.vectors().norm(dim=-1)
    x = network.embedding(graph.numbers)
    for norm, ours in zip(network.norms, network.convolutions, strict=True):
        theirs = geometric.CGConv(WIDTH, dim=N_RBF).double()
        for part, layer in enumerate((theirs.lin_f, theirs.lin_s)):
            rows = slice(part * WIDTH, (part + 1) * WIDTH)
            layer.load_state_dict({"weight": ours.terms.weight[rows], "bias": ours.terms.bias[rows]})
        envelope = 0.5 * (torch.cos(torch.pi * distances / network.cutoff) + 1.0)[:, None]
        message = theirs.message
        theirs.message = lambda x_i, x_j, edge_attr, f=message, c=envelope: f(x_i, x_j, edge_attr) * c
        normed = norm(x)
        edges = torch.stack([graph.neighbors, graph.centers])
        x = x + theirs(normed, edges, network.radial_basis(distances)) - normed
    assert torch.allclose(network(graph), network.readout(x).squeeze(-1), rtol=1e-10, atol=1e-12)
