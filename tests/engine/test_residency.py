"""What travels to a GPU at each step: positions, and a new neighbour list only when one is made."""

import numpy as np
import pytest
import torch

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.calculators.checks import CLOSEST
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.engine import EagerEngine
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.neighbors.verlet import NeighborCache
from tests.cases import DIRECTS, MODELS, PHYSICAL, STRUCTURES, make_potential, make_structure

KEPT = ("numbers", "batch", "centers", "neighbors", "cell", "shifts")


def asked(cache, atoms, **options):
    return cache.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, **options)


def test_all_but_the_positions_stays_until_a_new_list():
    cache, atoms = NeighborCache(4.0, 0.6), make_structure("slab")
    first = asked(cache, atoms, trim=False)
    for _ in range(3):
        atoms.positions += 0.02
        graph = asked(cache, atoms, trim=False)
        assert all(getattr(graph, name) is getattr(first, name) for name in KEPT)
        assert np.array_equal(graph.positions, atoms.positions)
    atoms.positions[0] += 1.0
    assert asked(cache, atoms, trim=False).centers is not first.centers


@pytest.mark.parametrize("architecture", [*PHYSICAL, *DIRECTS])
def test_edges_in_the_skin_change_nothing(architecture):
    """On a GPU they are left in the list; the radial functions of M3GNet are not zero there by themselves."""
    potential = make_potential(architecture)
    engine, cutoff, stress = EagerEngine(potential), potential.cutoff, not potential.direct_forces
    for structure in STRUCTURES if architecture in MODELS else ["crystal"]:
        cache, atoms = NeighborCache(cutoff, 0.8), make_structure(structure)
        asked(cache, atoms)
        atoms.positions += np.random.default_rng(3).uniform(-0.1, 0.1, atoms.positions.shape)
        graph = asked(cache, atoms, trim=False)
        ours = engine(graph, stress=stress)
        reference = engine(graph_from_atoms(atoms, cutoff), stress=stress)
        assert graph.n_edges > asked(cache, atoms).n_edges or structure == "molecule"
        assert torch.allclose(ours.forces, reference.forces, rtol=0, atol=1e-12)
        assert torch.allclose(ours.energy, reference.energy, rtol=0, atol=1e-10)
        if stress:
            assert torch.allclose(ours.stress, reference.stress, rtol=0, atol=1e-13, equal_nan=True)


def test_closest_is_a_lower_bound_without_a_look():
    rng = np.random.default_rng(0)
    cache, atoms = NeighborCache(4.0, 0.6), make_structure("crystal") * (2, 2, 2)
    for _ in range(50):
        atoms.positions += rng.uniform(-0.05, 0.05, atoms.positions.shape)
        graph = asked(cache, atoms)
        smallest = graph.vectors().norm(dim=1).min()
        assert smallest - 2 * 0.6 <= cache.closest <= smallest
    assert cache.builds < 50
    assert NeighborCache(4.0, 0.5).closest == np.inf


def test_overlaps_between_two_lists_are_found(tmp_path):
    from asecalc_mlip.errors import InputError

    atoms = make_structure("molecule")
    atoms.positions[1] = atoms.positions[0] + [0.5, 0.0, 0.0]
    atoms.calc = PIWSLCalculator(LoadedModel(make_potential("painn"), {}, tmp_path / "x.pt"), device="cpu", skin=1.0)
    atoms.get_forces()
    atoms.positions[1] = atoms.positions[0] + [0.9 * CLOSEST, 0.0, 0.0]
    with pytest.raises(InputError, match="closer than"):
        atoms.get_forces()
    assert atoms.calc.neighbors.builds == 1
