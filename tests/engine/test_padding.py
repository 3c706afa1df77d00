"""Padded graphs: what is added contributes exactly nothing, to any model, structure or derivative."""

import pytest
import torch
from ase import Atoms

from asecalc_mlip.engine.padding import bucket, pad_graph
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.models import predict
from tests.cases import MODELS, STRUCTURES, make_potential, make_structure


def everything():
    structures = [make_structure(name, seed=k) for k, name in enumerate(STRUCTURES)] + [Atoms("Si")]
    graphs = {name: graph_from_atoms(atoms, 4.0) for name, atoms in zip([*STRUCTURES, "lone"], structures, strict=True)}
    return {**graphs, "batch": batch_graphs(list(graphs.values()))}


@pytest.mark.parametrize("basis", ["gaussian", "bessel"])
@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("case", [*STRUCTURES, "lone", "batch"])
def test_padding_contributes_nothing(architecture, basis, case):
    potential = make_potential(architecture, radial_basis=basis)
    graph = everything()[case]
    n, b = graph.n_atoms, graph.n_structures
    reference = predict(potential, graph, stress=True)
    for atoms, edges in ((2, 0), (2, 2), (3, 7), (9, 200)):
        padded = predict(potential, pad_graph(graph, n + atoms, graph.n_edges + edges, far=9.0), stress=True)
        assert torch.allclose(padded.energy[:b], reference.energy, rtol=0, atol=1e-10)
        assert torch.allclose(padded.energies[:n], reference.energies, rtol=0, atol=1e-10)
        assert torch.allclose(padded.forces[:n], reference.forces, rtol=0, atol=1e-12)
        assert torch.allclose(padded.stress[:b], reference.stress, rtol=0, atol=1e-13, equal_nan=True)
        # Not small: nothing.
        assert not padded.forces[n:].any()
        assert (padded.energies[n:] == potential.e0[graph.numbers[0]]).all()


def test_the_order_of_edges_and_structures_is_kept():
    graph = everything()["batch"]
    for atoms in (2, 3, 8):
        padded = pad_graph(graph, graph.n_atoms + atoms, graph.n_edges + 37, far=9.0)
        assert (padded.centers.diff() >= 0).all() and (padded.batch.diff() >= 0).all()
        assert (padded.vectors()[graph.n_edges :].norm(dim=1) == 9.0).all()
        assert padded.n_structures == graph.n_structures + 1
        assert padded.neighbors.max() < padded.n_atoms


def test_too_small_a_size_is_refused():
    graph = everything()["molecule"]
    for atoms, edges in ((graph.n_atoms + 1, graph.n_edges), (graph.n_atoms + 2, graph.n_edges - 1)):
        with pytest.raises(InputError, match="the least is"):
            pad_graph(graph, atoms, edges, far=9.0)


def test_buckets_are_few_and_waste_little():
    sizes = [bucket(n, 16) for n in range(1, 100_000)]
    assert all(size >= n for n, size in enumerate(sizes, start=1))
    assert all(size <= 1.13 * n + 16 for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 110
