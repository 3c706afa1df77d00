"""The table of architectures: a new one is its class and a line, and an incomplete one fails when it is registered."""

import dataclasses

import pytest
import torch
from torch import nn

from asecalc_mlip.engine import EagerEngine, make_engine
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.engine.hessian import hessian
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import (
    ARCHITECTURES,
    CGCNN,
    Network,
    PaiNN,
    Traits,
    build_network,
    build_potential,
    check_trainable,
    predict,
    register,
    trainable,
)
from tests.cases import E0, SIZES, make_potential, make_structure


class Pairs(Network):
    """A toy: Σ_j w exp(−d²)."""

    traits = CGCNN.traits

    def __init__(self, cutoff: float = 4.0):
        super().__init__()
        self.cutoff, self.n_features, self.n_blocks = cutoff, 1, 1
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, graph):
        vectors = graph.vectors().to(self.weight.dtype)
        return self.over_edges(self._sum, (vectors, graph.centers), (self.weight.expand(graph.n_atoms),))

    def _sum(self, vectors, centers, weights):
        values = weights.index_select(0, centers) * torch.exp(-vectors.square().sum(-1))
        return torch.zeros_like(weights).index_add(0, centers, values)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr("asecalc_mlip.models.registry.ARCHITECTURES", dict(ARCHITECTURES))


def test_a_new_architecture_is_a_class_and_a_line(table):
    register("pairs", Pairs)
    potential = build_potential("pairs", {"cutoff": 3.5}, reference_energies=E0).double().requires_grad_(False).eval()
    graph = graph_from_atoms(make_structure("crystal"), 3.5)
    expected = predict(potential, graph, stress=True)
    for engine in (make_engine(potential), ChunkedEngine(potential, edges_per_piece=7)):
        assert torch.allclose(engine(graph, stress=True).forces, expected.forces, atol=1e-12)
    assert EagerEngine(potential).bytes_needed(100, 2000) > 0
    assert hessian(potential, graph).shape == (6, 6)
    assert "pairs" in build_and_refuse("pairs", "n_rbf")


def build_and_refuse(architecture, name):
    with pytest.raises(InputError, match="no hyper-parameter") as caught:
        build_network(architecture, {name: 3})
    return str(caught.value)


class Bare(Network):
    """Says nothing of itself."""


class Unpacked(Network):
    """Has a kernel and cannot pack its weights."""

    traits = PaiNN.traits


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Bare, "'toy': Bare has no traits"),
        (Unpacked, r"'toy': Unpacked has a native kernel and no method packed\(\)"),
        (nn.Linear, "not a subclass of"),
    ],
)
def test_an_incomplete_one_is_refused(table, cls, message):
    with pytest.raises(TypeError, match=message):
        register("toy", cls)


@pytest.mark.parametrize("missing", [field.name for field in dataclasses.fields(Traits)])
def test_every_trait_must_be_said(missing):
    said = {field.name: getattr(CGCNN.traits, field.name) for field in dataclasses.fields(Traits)}
    del said[missing]
    with pytest.raises(TypeError, match=f"'{missing}'"):
        Traits(**said)


def test_who_is_trained_from_scratch():
    assert trainable() == [
        "cgcnn",
        "equiformer_v2",
        "escn",
        "m3gnet",
        "painn",
        "schnet",
        "spinconv",
        "tensornet",
        "torchmd_et",
    ]
    for name in trainable():
        check_trainable(name)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("eam", "'eam' is not trained from scratch: fit one with: asecalc eam fit"),
        ("sum", "'sum' is not trained from scratch: .*finetune.delta"),
        ("zbl", "'zbl' is not trained from scratch: .*model.prior=zbl.* asecalc core"),
        (
            "gpt",
            "'gpt' is unknown; asecalc train has "
            "cgcnn, equiformer_v2, escn, m3gnet, painn, schnet, spinconv, tensornet, torchmd_et",
        ),
    ],
)
def test_who_is_not(architecture, message):
    with pytest.raises(InputError, match=message):
        check_trainable(architecture)


@pytest.mark.parametrize("first", sorted(set(ARCHITECTURES) - {"sum"}))
@pytest.mark.parametrize("second", [*sorted(set(ARCHITECTURES) - {"sum"}), "zbl"])
def test_a_sum_of_anything(first, second):
    parts = [{"architecture": name, "hyperparameters": SIZES.get(name, {})} for name in (first, second)]
    network = build_network("sum", {"parts": parts})
    assert [type(part) for part in network.parts][0] is ARCHITECTURES[first]
    assert network.cutoff == max(part.cutoff for part in network.parts)


@pytest.mark.parametrize("architecture", [name for name, cls in ARCHITECTURES.items() if cls.traits.halo is not None])
def test_an_atom_feels_no_further_than_its_halos(architecture):
    """Blocks × halo × cutoff, in a chain whose neighbours are just within the cutoff of each other."""
    potential = make_potential(architecture, cutoff=4.0)
    network = potential.network
    reach = network.n_blocks * network.traits.halo
    positions = torch.zeros(12, 3, dtype=torch.float64)
    positions[:, 2] = 2.2 * torch.arange(12)
    from ase import Atoms

    graph = graph_from_atoms(Atoms("Si12", positions.numpy()), 4.0)
    moved = graph.positions.clone().requires_grad_()
    energies = potential(dataclasses.replace(graph, positions=moved))
    (slope,) = torch.autograd.grad(energies[0], moved)
    felt = slope.abs().sum(1).nonzero().squeeze(-1)
    assert 0 < felt.max() <= reach  # one neighbour per cutoff
