"""Perturbations: their range, seeds, limits and directions, structure by structure."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from tests.cases import make_structure
from training.perturb import (
    LARGEST_SHARE,
    Perturbation,
    adversarial,
    guarded,
    largest_relative_shift,
    uniform,
)


def graph_of(structure, **options):
    return graph_from_atoms(make_structure(structure, **options), 4.5)


def dimer(length, symbols="CO"):
    return graph_from_atoms(Atoms(symbols, [[0, 0, 0], [0, 0, length]]), 4.5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_forces(graph, seed=0):
    return torch.randn(2, graph.n_atoms, 3, generator=seeded(seed), dtype=torch.float64)


def test_components_are_uniform():
    graph = batch_graphs([graph_of("molecule", seed=k) for k in range(300)])
    d = uniform(graph, 0.05, generator=seeded())
    assert d.shape == graph.positions.shape and d.dtype == torch.float64 and not d.requires_grad
    assert d.abs().max() < 0.05
    values = np.sort(d.flatten().numpy()) / 0.05
    expected = np.linspace(-1, 1, len(values))
    assert np.abs(values - expected).max() < 2 * 1.63 / math.sqrt(len(values))  # Kolmogorov, 1 %; the range is 2
    # No component knows another one.
    assert torch.corrcoef(d.T).fill_diagonal_(0).abs().max() < 0.05


def test_seeds():
    graph = graph_of("molecule")
    generator = seeded(3)
    first, second = (uniform(graph, 0.05, generator=generator) for _ in range(2))
    assert torch.equal(first, uniform(graph, 0.05, generator=seeded(3)))
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    loose = uniform(graph, 0.05)
    torch.manual_seed(7)
    assert torch.equal(loose, uniform(graph, 0.05))
    assert torch.equal(Perturbation(0.05).first(graph, seeded(3)), first)


def test_translation_is_removed_from_each_structure():
    graphs = [graph_of("molecule"), graph_of("crystal"), graph_of("slab")]
    batch = batch_graphs(graphs)
    d = Perturbation(0.05, remove_translation=True).uniform(batch, seeded())
    assert batch.sum_over_atoms(d).abs().max() < 1e-14
    raw = uniform(batch, 0.05, generator=seeded())
    assert (batch.sum_over_atoms(raw).norm(dim=-1) > 1e-3).all()
    # What is taken off is the same for all atoms of a structure.
    for part in (raw - d).split(batch.counts().tolist()):
        assert torch.allclose(part, part[:1].expand_as(part), atol=1e-15)
    # One atom alone has nothing left.
    assert uniform(graph_from_atoms(Atoms("C"), 4.0), 0.05, remove_translation=True).abs().max() == 0


@pytest.mark.parametrize("remove_translation", [False, True])
def test_no_pair_comes_closer_than_a_skin_allows(remove_translation):
    graph = batch_graphs([graph_of("molecule", seed=k) for k in range(100)])
    d = uniform(graph, 0.05, generator=seeded(), remove_translation=remove_translation)
    change = (d[graph.neighbors] - d[graph.centers]).norm(dim=-1)
    assert 0.12 < change.max() <= largest_relative_shift(0.05)


def test_guard_at_thirty_percent_of_the_shortest_bond():
    short, long = dimer(0.2), dimer(1.1)
    batch = batch_graphs([short, long])
    d = uniform(batch, 0.1, generator=seeded(1))
    free = 0.1 * (2 * torch.rand(4, 3, generator=seeded(1), dtype=torch.float64) - 1)
    assert torch.equal(d[2:], free[2:])
    assert d[:2].norm(dim=-1).max() == pytest.approx(LARGEST_SHARE * 0.2, rel=1e-12)
    # Scaled as a whole: the direction stays.
    assert torch.allclose(d[:2] / free[:2], (d[0, 0] / free[0, 0]).expand(2, 3))


def test_guard_sees_periodic_images():
    atoms = Atoms("H", cell=[0.3, 5, 5], pbc=True)
    d = guarded(graph_from_atoms(atoms, 2.0), torch.tensor([[0.0, 0.2, 0.0]], dtype=torch.float64))
    assert d.norm().item() == pytest.approx(0.09)


def test_guard_leaves_lone_atoms_alone():
    lone = graph_from_atoms(Atoms("C"), 4.0)
    d = torch.tensor([[0.5, 0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(guarded(lone, d), d)
    both = guarded(batch_graphs([lone, dimer(1.0)]), torch.cat([d, d, 0 * d]))
    assert torch.equal(both[:1], d)
    assert both[1].norm().item() == pytest.approx(0.3)
    assert torch.equal(guarded(dimer(1.0), torch.zeros(2, 3).double()), torch.zeros(2, 3).double())


def test_adversarial_goes_against_the_error_of_the_force():
    graph = batch_graphs([graph_of("molecule"), graph_of("crystal")])
    forces, reference = random_forces(graph)
    d = adversarial(graph, 0.05, forces.requires_grad_(), reference)
    error = (forces - reference).detach()
    assert not d.requires_grad
    assert torch.allclose(d.norm(dim=-1), torch.full((graph.n_atoms,), math.sqrt(3) * 0.05).double())
    assert torch.allclose((d * error).sum(-1), -d.norm(dim=-1) * error.norm(dim=-1))
    exact = torch.cat([forces[:1], reference[1:]]).detach()
    assert torch.equal(adversarial(graph, 0.05, exact, reference)[1:], torch.zeros(graph.n_atoms - 1, 3).double())


def test_adversarial_is_guarded_too():
    graph = dimer(0.2)
    forces, reference = random_forces(graph)
    assert adversarial(graph, 0.1, forces, reference).norm(dim=-1).max().item() == pytest.approx(0.06)


def test_adversarial_first_and_uniform_second():
    graph = graph_of("molecule")
    forces, reference = random_forces(graph)
    perturbation = Perturbation(0.05, "adversarial")
    d = perturbation.first(graph, forces=forces, reference=reference)
    assert torch.equal(d, adversarial(graph, 0.05, forces, reference))
    assert torch.equal(perturbation.uniform(graph, seeded()), uniform(graph, 0.05, generator=seeded()))
    for given in ({}, {"forces": forces}, {"reference": reference}):
        with pytest.raises(InputError, match="needs force labels.*or use perturbation 'uniform'"):
            perturbation.first(graph, **given)


@pytest.mark.parametrize("epsilon", [0.0, -0.1, math.nan, math.inf])
def test_epsilon_is_a_length(epsilon):
    with pytest.raises(InputError, match="expected a length above 0"):
        Perturbation(epsilon)


def test_unknown_kind():
    with pytest.raises(InputError, match="'gaussian' is unknown; allowed: 'uniform', 'adversarial'"):
        Perturbation(0.05, "gaussian")
