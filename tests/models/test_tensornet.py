"""TensorNet beyond the physics suite: its nine numbers, mirror images, own-feature messages, the force head."""

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels.plain_tensor import from_matrices, to_matrices
from asecalc_mlip.kernels.tensor import squares
from asecalc_mlip.models import build_network, build_potential, predict
from tests.cases import E0, make_potential, make_structure


def test_nine_numbers_hold_a_matrix():
    matrices = torch.randn(4, 3, 3, 5, dtype=torch.float64)
    numbers = from_matrices(matrices)
    assert torch.allclose(to_matrices(numbers), matrices, atol=1e-14)
    assert torch.allclose(squares(numbers).sum(1), matrices.square().sum((1, 2)), atol=1e-13)


def test_only_so3_tells_mirror_images_apart():
    chiral = Atoms("CHFClSi", [[0, 0, 0], [0.6, 0.7, 0.6], [-0.8, -0.7, 0.8], [-1.0, 1.0, -1.0], [1.1, -1.0, -1.2]])
    mirrored = chiral.copy()
    mirrored.positions[:, 0] *= -1
    for group, differs in (("O3", False), ("SO3", True)):
        torch.manual_seed(0)
        network = build_network("tensornet", {"n_features": 16, "group": group}).double()
        a, b = (network(graph_from_atoms(atoms, 5.0)).sum().item() for atoms in (chiral, mirrored))
        assert (abs(a - b) > 1e-12) is differs


@pytest.mark.parametrize(("messages", "reach"), [("own", 1), ("neighbor", 3)])
def test_how_far_an_atom_looks(messages, reach):
    """Own-feature messages end at one cutoff; messages of neighbours at one more for each block."""
    torch.manual_seed(0)
    network = build_network("tensornet", {"cutoff": 2.8, "n_features": 8, "messages": messages}).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.5)  # so that what comes from afar shows
    chain = Atoms("C8", [[1.5 * k, 0.1 * k * k, 0] for k in range(8)])
    moved = chain.copy()
    for far in range(1, 6):
        moved.positions = chain.positions
        moved.positions[far:] += [0, 0, 0.1]
        graphs = [graph_from_atoms(atoms, 2.8) for atoms in (chain, moved)]
        before, after = (network(graph)[0].item() for graph in graphs)
        assert (abs(after - before) > 1e-14) is (far <= reach)


def test_force_head():
    potential = build_potential("tensornet", {"n_features": 16, "direct_forces": True}, reference_energies=E0).double()
    atoms = molecule("CH3CH2OH")
    forces = predict(potential, graph_from_atoms(atoms, 5.0)).forces
    assert forces.abs().max() > 0
    mirrored = atoms.copy()
    mirrored.positions *= -1
    # An inversion turns forces around: the skew parts are vectors.
    assert torch.allclose(predict(potential, graph_from_atoms(mirrored, 5.0)).forces, -forces, atol=1e-12)
    with pytest.raises(InputError, match="group O3"):
        build_network("tensornet", {"direct_forces": True, "group": "SO3"})


def test_pieces_of_edges_give_the_same():
    from asecalc_mlip.engine.chunked import ChunkedEngine

    potential = make_potential("tensornet")
    graph = graph_from_atoms(make_structure("slab"), potential.cutoff)
    whole = predict(potential, graph, stress=False)
    pieces = ChunkedEngine(potential, edges_per_piece=50)(graph)
    assert torch.allclose(pieces.forces, whole.forces, atol=1e-10)
