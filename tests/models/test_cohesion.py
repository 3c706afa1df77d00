"""Cohesion: none for an atom alone or with one neighbour, a constant at the data, smooth in between."""

import numpy as np
import pytest
import torch
from ase import Atoms

from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.native import NativeEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import build_network, build_potential
from asecalc_mlip.models.cohesion import FIRST, CohesionWeights, fewest_neighbors
from tests.kernels.test_contract import struct_here, struct_of
from tests.teacher import crystal_frames

CUTOFF = 5.0


def made(elements=(11, 17), energies=(-3.0, -1.5), full=(2.5, 3.0), dtype=torch.float64, knots=0):
    parameters = {"elements": list(elements), "energies": list(energies), "full": list(full), "cutoff": CUTOFF}
    parameters["knots"] = knots
    potential = build_potential("cohesion", parameters, reference_energies=dict.fromkeys(elements, 0.0))
    if knots:
        r = torch.linspace(FIRST, CUTOFF, knots, dtype=torch.float64)
        for (a, b), depth in {(0, 0): 0.5, (0, 1): 3.0, (1, 1): 1.0}.items():
            tables = torch.stack(well(r, depth), dim=1)
            potential.network.pairs[a, b] = potential.network.pairs[b, a] = tables.to(potential.dtype)
    return potential.to(dtype).eval()


def well(r, depth):
    """Energy and slope of a pair, zero at the cutoff with two derivatives."""
    x, s = torch.exp(-1.5 * (r - 1.8)), (CUTOFF - r) / CUTOFF
    energy, slope = depth * (x * x - 2 * x), depth * -3.0 * (x * x - x)
    return energy * s**3, slope * s**3 - 3.0 * energy * s**2 / CUTOFF


def cluster(scale=1.0):
    """Return five atoms, of which none has the count of a dimer or all of its neighbours."""
    positions = np.array([[0, 0, 0], [2.6, 0.3, 0], [0.2, 2.9, 0.4], [2.5, 2.7, 1.9], [1.1, 0.9, 3.1]])
    return Atoms([11, 17, 17, 11, 17], scale * positions)


def test_nothing_for_an_atom_alone_and_any_dimer():
    potential = made()
    assert potential(graph_from_atoms(Atoms([11], [[0, 0, 0]]), CUTOFF)).item() == 0.0
    for distance in np.linspace(0.3, 5.2, 40):
        found = EagerEngine(potential)(graph_from_atoms(Atoms([11, 17], [[0, 0, 0], [0, 0, distance]]), CUTOFF))
        assert found.energy.item() == 0.0 and not found.forces.any()


def test_a_dimer_has_the_energy_of_its_pair_and_a_straight_wall_inside():
    engine = EagerEngine(made(knots=200))
    for distance in (0.4, 1.0, 1.8, 2.6, 4.5, 4.99, 5.3):
        found = engine(graph_from_atoms(Atoms([11, 17], [[0, 0, 0], [0, 0, distance]]), CUTOFF))
        energy, slope = well(torch.tensor(distance, dtype=torch.float64), 3.0)
        inside = distance < CUTOFF
        assert found.energy.item() == pytest.approx(float(energy) * inside, abs=2e-4 * (1 + abs(float(energy))))
        assert -found.forces[1, 2].item() == pytest.approx(float(slope) * inside, rel=2e-3, abs=2e-3)
    closer = [engine(graph_from_atoms(Atoms([11, 17], [[0, 0, 0], [0, 0, r]]), CUTOFF)).energy.item() for r in
              (0.02, 0.06, 0.1)]  # fmt: skip
    assert closer[0] - closer[1] == pytest.approx(closer[1] - closer[2], rel=1e-3) and closer[0] > closer[2]


def test_at_a_knot_the_force_is_that_of_the_table():
    """A distance of round digits, such as 1.6 Å of a dimer, may be a knot to the last bit."""
    potential = made(knots=50)
    slopes = potential.network.pairs[0, 1, :, 1]
    for knot in range(1, 49):
        distance = FIRST + knot * (CUTOFF - FIRST) / 49
        found = EagerEngine(potential)(graph_from_atoms(Atoms([11, 17], [[0, 0, 0], [0, 0, distance]]), CUTOFF))
        assert found.forces[1, 2].item() == pytest.approx(-slopes[knot].item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("knots", [0, 100])
def test_a_constant_without_forces_where_atoms_have_all_their_neighbours(knots):
    frames = crystal_frames(6)
    fewest = fewest_neighbors(frames, CUTOFF)
    potential = made([11, 17], [-3.0, -1.5], [0.95 * fewest[z] for z in (11, 17)], knots=knots)
    for atoms in frames:
        found = EagerEngine(potential)(graph_from_atoms(atoms, CUTOFF))
        expected = -3.0 * (atoms.numbers == 11).sum() - 1.5 * (atoms.numbers == 17).sum()
        assert found.energy.item() == pytest.approx(expected, abs=1e-5) and not found.forces.any()


@pytest.mark.parametrize("knots", [0, 100])
def test_forces_in_between_are_those_of_the_energy(knots):
    engine, atoms, h = EagerEngine(made(knots=knots)), cluster(1.2), 1e-4
    found = engine(graph_from_atoms(atoms, CUTOFF))
    assert -9.0 < found.energy.item() < -0.5 and found.forces.abs().max() > 0.1
    for atom, axis in [(0, 0), (3, 2), (4, 1)]:
        ends = []
        for step in (-h, h):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            ends.append(engine(graph_from_atoms(moved, CUTOFF)).energy.item())
        assert found.forces[atom, axis].item() == pytest.approx(-(ends[1] - ends[0]) / (2 * h), abs=1e-5)


@pytest.mark.skipif(native_library() is None, reason="the native library was not built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("knots", [0, 100])
def test_the_kernel_agrees(knots, dtype):
    potential = made(dtype=dtype, knots=knots)
    frames = [cluster(scale) for scale in (0.5, 1.0, 1.2, 1.5)] + [Atoms([17], [[0, 0, 0]])]
    frames += [Atoms([11, 17], [[0, 0, 0], [0, 0, r]]) for r in (0.05, 1.0, 4.98)]
    frames.append(Atoms([11, 17], [[0, 0, 0], [1.9, 0, 0]], cell=[4, 4, 4], pbc=True))
    for atoms in frames:
        graph = graph_from_atoms(atoms, CUTOFF)
        ours, plain = NativeEngine(potential)(graph, stress=True), EagerEngine(potential)(graph, stress=True)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-11
        tolerance *= max(1.0, float(plain.forces.abs().max()))
        assert torch.allclose(ours.energies, plain.energies, atol=tolerance)
        assert torch.allclose(ours.forces, plain.forces, atol=tolerance)
        assert torch.allclose(ours.stress, plain.stress, atol=tolerance, equal_nan=True)
    assert struct_here(CohesionWeights) == struct_of("cohesion.cpp", "Network")


def test_numbers_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="give one each"):
        build_network("cohesion", {"elements": [1, 6], "energies": [-2.0], "full": [3.0, 3.0]})
    with pytest.raises(InputError, match="counts above 1"):
        build_network("cohesion", {"elements": [1], "energies": [-2.0], "full": [1.0]})
    with pytest.raises(InputError, match="no numbers for O"):
        made().network.check_numbers(torch.tensor([8, 11]))
