"""Our TorchMD-ET against that of TorchMD-NET with the same weights, and what is its own."""

import pytest
import torch
from ase import Atoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_network, predict
from asecalc_mlip.models.radial import ExpNormalBasis
from tests.cases import make_potential, make_structure

CUTOFF, WIDTH, LAYERS, HEADS, N_RBF = 4.0, 16, 3, 4, 12


def test_basis_is_narrow_near_the_nucleus_and_ends_at_the_cutoff():
    basis = ExpNormalBasis(8, 5.0)
    values = basis(torch.tensor([0.0, 1.0, 4.999, 5.0, 6.0], dtype=torch.float64))
    # The last function has its centre at d = 0, where exp(−d) = 1 and f_c = 1.
    assert values[0, -1].item() == pytest.approx(1.0, abs=1e-15)
    assert values[2].abs().max() < 1e-6
    assert not values[3:].any()
    single = basis(torch.tensor([0.01, 4.9]))
    assert single[single > 0].min() > torch.finfo(torch.float32).tiny


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 3}, "3 heads cannot share 16 features"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"radial_basis": "bessel"}, r"'bessel' is unknown here; choose one of \['expnorm', 'gaussian'\]"),
        ({"n_rbf": 1}, "at least 2"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(InputError, match=message):
        build_network("torchmd_et", {"n_features": 16, **changes})


@pytest.mark.parametrize("n_interactions", [1, 2])
def test_an_atom_on_its_own_image_and_in_a_line_of_atoms(n_interactions):
    """Where all vectors cancel by symmetry, or have one direction, nothing becomes NaN and forces are what they are."""
    potential = make_potential("torchmd_et", n_interactions=n_interactions, trainable=True)
    cell = Atoms("Si", cell=[2.2, 2.3, 2.4], pbc=True)
    line = Atoms("CO2", [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]])
    for atoms, symmetric in ((cell, True), (line, False)):
        result = predict(potential, graph_from_atoms(atoms, 4.0), create_graph=True)
        assert (result.forces.abs().max() < 1e-12) == symmetric
        loss = result.energy.sum() + result.forces.square().sum()
        gradients = torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def test_vectors_matter():
    """The angle of a molecule changes the energy, though its ends are out of each other's reach."""
    potential = make_potential("torchmd_et", cutoff=3.0)
    energies = []
    for end in ([0, 0, 2.2], [0, 2.2, 0]):
        atoms = Atoms("OSiO", [[0, 0, -2.2], [0, 0, 0], end])
        energies.append(predict(potential, graph_from_atoms(atoms, 3.0), forces=False).energy.item())
    assert abs(energies[0] - energies[1]) > 1e-7


@pytest.mark.parametrize("structure", ["molecule", "slab"])
@pytest.mark.parametrize("radial_basis", ["expnorm", "gaussian"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_same_energies_and_forces(dtype, tolerance, radial_basis, structure):
    theirs = reference(radial_basis, dtype)
    ours = converted(theirs, radial_basis)
    atoms = make_structure(structure)
    atoms.pbc = False  # theirs takes only boxes of two cutoffs and more
    graph = graph_from_atoms(atoms, CUTOFF)
    energy, forces = theirs(graph.numbers, graph.positions.to(dtype), graph.batch)
    result = predict(lambda graph: ours(graph).double(), graph)
    scale = max(1.0, forces.abs().max().item())
    assert forces.abs().max() > 1e-2
    assert result.energy.item() == pytest.approx(energy.item(), abs=tolerance * graph.n_atoms)
    assert (result.forces - forces.detach()).abs().max() < tolerance * scale


def reference(radial_basis, dtype):
    """The model of TorchMD-NET with random weights and biases."""
    module = pytest.importorskip("torchmdnet.models.torchmd_et")
    outputs = pytest.importorskip("torchmdnet.models.output_modules")
    from torchmdnet.models.model import TorchMD_Net

    torch.manual_seed(1)
    names = {"expnorm": "expnorm", "gaussian": "gauss"}
    representation = module.TorchMD_ET(
        hidden_channels=WIDTH,
        num_layers=LAYERS,
        num_rbf=N_RBF,
        rbf_type=names[radial_basis],
        trainable_rbf=False,
        num_heads=HEADS,
        cutoff_upper=CUTOFF,
        vector_cutoff=True,
        max_num_neighbors=64,
        dtype=dtype,
    )
    model = TorchMD_Net(representation, outputs.Scalar(WIDTH, dtype=dtype), derivative=True, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        # Its radial functions are made in float32 whatever the dtype, which alone would be a difference of 1e-8.
        basis = representation.distance_expansion
        basis.dtype = dtype
        if radial_basis == "expnorm":
            means, betas = basis._initial_params()
            basis.means, basis.betas = means, betas
        else:
            basis.offset, basis.coeff = basis._initial_params()
    return model


def converted(model, radial_basis):
    """Our network with the weights of theirs."""
    sizes = {"n_features": WIDTH, "n_interactions": LAYERS, "n_heads": HEADS, "n_rbf": N_RBF}
    network = build_network("torchmd_et", {"cutoff": CUTOFF, "radial_basis": radial_basis, **sizes})
    network.to(next(model.parameters()).dtype)
    theirs = {name.partition(".")[2]: value for name, value in model.state_dict().items()}
    renamed = {_renamed(name): _reordered(name, value) for name, value in theirs.items()}
    network.load_state_dict({name: value for name, value in renamed.items() if name in network.state_dict()})
    return network


def _renamed(name):
    replacements = {
        "neighbor_embedding.distance_proj": "of_neighbors.filters",
        "neighbor_embedding.": "of_neighbors.",
        "attention_layers": "layers",
        "layernorm": "norm",
        "out_norm": "norm",
        ".q_proj": ".queries",
        ".k_proj": ".keys",
        ".v_proj": ".values",
        ".o_proj": ".outputs",
        ".vec_proj": ".channels",
        ".dk_proj": ".key_filters",
        ".dv_proj": ".value_filters",
        "output_network.layers": "readout",
    }
    for old, new in replacements.items():
        name = name.replace(old, new)
    return name


def _reordered(name, value):
    if ".v_proj" in name or ".dv_proj" in name:
        # Theirs: heads, each with its parts: scalars, vectors of the neighbour, direction. Ours: parts, then heads.
        parts = value.unflatten(0, (HEADS, 3, WIDTH // HEADS)).transpose(0, 1)
        return parts[[0, 2, 1]].flatten(0, 2)
    if ".o_proj" in name:
        # Theirs: for vectors, for products of vectors, for itself.
        return value.unflatten(0, (3, WIDTH)).flip(0).flatten(0, 1)
    return value
