"""The physics every potential must obey, for every architecture and kind of structure (float64)."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from scipy.spatial.transform import Rotation

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.models import predict
from tests.cases import DIRECTS, E0, PHYSICAL, STRUCTURES, make_potential, make_structure

every_model = pytest.mark.parametrize("architecture", [*PHYSICAL, *DIRECTS])
# Where sums over points on the sphere stand for integrals of functions that are not polynomials (eV, eV/Å).
TURNED = {"equiformer_v2": 1e-5, "equiformer_v2-direct": 1e-5}
conservative = pytest.mark.parametrize("architecture", PHYSICAL)


def energies_of(potential, structures):
    """Energies of structures in one pass, which takes a fraction of the time of one at a time."""
    return predict(potential, graph_from_atoms(structures, potential.cutoff), forces=False).energy.numpy()


def results(potential, atoms, stress=False):
    return predict(potential, graph_from_atoms(atoms, potential.cutoff), stress=stress)


@conservative
@pytest.mark.parametrize("structure", STRUCTURES)
def test_forces_are_minus_the_energy_gradient(architecture, structure):
    potential, atoms = make_potential(architecture), make_structure(structure)
    forces = results(potential, atoms).forces.numpy()
    numeric, h = np.zeros_like(forces), 1e-4
    for i in range(len(atoms)):
        copies = []
        for axis in range(3):
            # Fourth order, so that the truncation error stays below the 1e-6 that is asked for.
            for step in (2 * h, h, -h, -2 * h):
                copies.append(atoms.copy())
                copies[-1].positions[i, axis] += step
        values = energies_of(potential, copies).reshape(3, 4)
        numeric[i] = values @ [1, -8, 8, -1] / (12 * h)
    assert np.abs(forces).max() > 1e-2
    assert np.abs(forces - numeric).max() <= 1e-6 * np.abs(forces).max()


@conservative
@pytest.mark.parametrize("structure", ["crystal", "skewed"])
def test_stress_is_the_strain_derivative(architecture, structure):
    potential, atoms = make_potential(architecture), make_structure(structure)
    stress = results(potential, atoms, stress=True).stress[0].numpy()
    h, copies = 1e-4, []
    for a in range(3):
        for b in range(3):
            for step in (2 * h, h, -h, -2 * h):
                strain = np.eye(3)
                strain[a, b] += step / 2
                strain[b, a] += step / 2
                copies.append(atoms.copy())
                copies[-1].set_cell(atoms.cell.array @ strain, scale_atoms=True)
    numeric = energies_of(potential, copies).reshape(3, 3, 4) @ [-1, 8, -8, 1] / (12 * h) / atoms.get_volume()
    assert np.abs(stress).max() > 1e-4
    assert np.abs(stress - numeric).max() <= 1e-6 * np.abs(stress).max()
    assert np.allclose(stress, stress.T, atol=1e-12)


@every_model
@pytest.mark.parametrize("structure", STRUCTURES)
def test_invariances(architecture, structure):
    potential, atoms = make_potential(architecture), make_structure(structure)
    reference = results(potential, atoms)
    rotation = Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix()
    order = np.random.default_rng(1).permutation(len(atoms))
    turned = Atoms(
        atoms.numbers, atoms.positions @ rotation + [3.1, -7.0, 0.4], cell=atoms.cell.array @ rotation, pbc=atoms.pbc
    )[order]
    result = results(potential, turned)
    tolerance = TURNED.get(architecture, 1e-9)
    assert result.energy.item() == pytest.approx(reference.energy.item(), abs=tolerance)
    assert np.allclose(result.forces.numpy(), (reference.forces.numpy() @ rotation)[order], atol=tolerance)
    if architecture not in DIRECTS:
        assert np.allclose(reference.forces.sum(0), 0, atol=1e-10)


@every_model
@pytest.mark.parametrize("structure", ["crystal", "slab"])
def test_wrapped_atoms_and_supercells_agree(architecture, structure):
    potential, atoms = make_potential(architecture), make_structure(structure)
    reference = results(potential, atoms)
    wandering = atoms.copy()
    wandering.positions += np.array([[2, -1, 0]]) @ atoms.cell.array
    wandering.positions[0] += np.array([-5, 3, 0]) @ atoms.cell.array
    moved = results(potential, wandering)
    assert moved.energy.item() == pytest.approx(reference.energy.item(), abs=1e-9)
    assert np.allclose(moved.forces, reference.forces, atol=1e-9)
    double = results(potential, atoms * (2, 1, 1))
    assert double.energy.item() == pytest.approx(2 * reference.energy.item(), abs=1e-8)
    assert np.allclose(double.forces[: len(atoms)], reference.forces, atol=1e-9)


@every_model
def test_smooth_at_the_cutoff(architecture):
    potential = make_potential(architecture)
    rc = potential.cutoff

    def pairs(distances):
        """Energies of pairs beside those of their atoms, and forces between them."""
        graph = graph_from_atoms([Atoms("SiO", [[0, 0, 0], [0, 0, d]]) for d in distances], rc)
        result = predict(potential, graph)
        return result.energy.numpy() - E0[14] - E0[8], result.forces[1::2, 2].numpy()

    (free, inside), (_, force_inside) = pairs([rc + 1e-3, rc - 1e-5])
    assert abs(inside - free) < 1e-7
    # The cosine cutoff leaves the square of the distance to r_c in the energy, so the force goes to zero linearly.
    assert abs(force_inside) < 1e-4
    _, forces = pairs(np.linspace(rc - 0.02, rc + 0.02, 401))
    assert np.abs(np.diff(forces)).max() < 20 * np.abs(forces).max() / 200


@every_model
def test_one_atom_alone_has_its_reference_energy(architecture):
    potential = make_potential(architecture)
    for symbol, number in (("H", 1), ("C", 6), ("Si", 14)):
        for cell in (None, [30, 30, 30]):
            result = results(potential, Atoms(symbol, [[5.0, -3, 9]], cell=cell, pbc=cell is not None))
            # To the last digit but one: a matrix product may round one row otherwise than the same row among others.
            assert result.energy.item() == pytest.approx(E0[number], abs=1e-14, rel=0)
            assert np.all(result.forces.numpy() == 0)
    # So two atoms that are pulled apart end at the sum of theirs.
    pair = results(potential, Atoms("CO", [[0, 0, 0], [0, 0, 30.0]]))
    assert pair.energy.item() == pytest.approx(E0[6] + E0[8], abs=1e-9)


@every_model
def test_lone_atoms_follow_the_weights(architecture):
    potential = make_potential(architecture).eval()
    alone = Atoms("C")
    assert results(potential, alone).energy.item() == E0[6]
    potential.train()
    with torch.no_grad():
        next(potential.parameters()).mul_(2.0)
    assert results(potential, alone).energy.item() == E0[6]
    assert results(potential.eval(), alone).energy.item() == E0[6]
    potential.load_state_dict(make_potential(architecture, seed=5).state_dict())
    assert results(potential, alone).energy.item() == E0[6]


@every_model
def test_training_mode_says_the_same(architecture):
    """There isolated atoms pass through the network together with the structures."""
    potential = make_potential(architecture, trainable=True)
    graph = graph_from_atoms([make_structure(name) for name in STRUCTURES], potential.cutoff)
    stress = architecture in PHYSICAL
    served = predict(potential, graph, stress=stress)
    trained = predict(potential.train(), graph, stress=stress, create_graph=True)
    assert torch.allclose(trained.energies, served.energies, rtol=1e-12)
    assert torch.allclose(trained.forces, served.forces, atol=1e-10)
    if stress:
        assert torch.allclose(trained.stress, served.stress, atol=1e-10, equal_nan=True)
    # An isolated atom keeps its reference energy whatever is learned.
    lone = predict(potential, graph_from_atoms(Atoms("C"), potential.cutoff), create_graph=True)
    assert lone.energy.item() == pytest.approx(E0[6], abs=1e-12, rel=0)
    gradients = torch.autograd.grad(lone.energy.sum(), list(potential.parameters()), allow_unused=True)
    assert max(g.abs().max().item() for g in gradients if g is not None) < 1e-12


@every_model
def test_batch_of_unlike_structures_equals_one_at_a_time(architecture):
    potential = make_potential(architecture)
    structures = [make_structure(name, seed=k) for k, name in enumerate(STRUCTURES)] + [Atoms("Si")]
    graphs = [graph_from_atoms(atoms, potential.cutoff) for atoms in structures]
    with_stress = architecture not in DIRECTS
    batch = predict(potential, batch_graphs(graphs), stress=with_stress)
    start = 0
    for k, (atoms, graph) in enumerate(zip(structures, graphs, strict=True)):
        single = predict(potential, graph, stress=with_stress and atoms.pbc.all())
        assert batch.energy[k].item() == pytest.approx(single.energy.item(), abs=1e-9)
        assert np.allclose(batch.forces[start : start + len(atoms)], single.forces, atol=1e-10)
        if single.stress is not None:
            assert np.allclose(batch.stress[k], single.stress[0], atol=1e-12)
        start += len(atoms)


@every_model
def test_float32_stays_near_float64(architecture):
    atoms = make_structure("slab")
    double, single = results(make_potential(architecture), atoms), results(make_potential(architecture).float(), atoms)
    assert single.energy.dtype == torch.float64
    assert abs(double.energy.item() - single.energy.item()) / len(atoms) < 1e-5
    assert np.abs(double.forces - single.forces).max() < 1e-3 * np.abs(double.forces).max()


@conservative
def test_energy_is_conserved(architecture, tmp_path):
    # A confined cluster under a random model is as anharmonic as it gets; the drift is that of the integrator.
    atoms = make_structure("crystal") * (2, 2, 2)
    model = LoadedModel(make_potential(architecture), {"name": "test"}, tmp_path / "test.pt")
    atoms.calc = PIWSLCalculator(model, dtype="float64", skin=0.6)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    energies, frames = [], []
    dynamics = VelocityVerlet(atoms, 0.25 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.attach(lambda: frames.append((atoms.copy(), atoms.get_potential_energy(), atoms.get_forces())), 20)
    dynamics.run(200)
    swing = np.ptp(energies)
    kinetic = atoms.get_kinetic_energy()
    assert swing < 2e-3 * kinetic
    assert atoms.calc.neighbors.hit_rate > 0.5
    # Without a skin energies and forces are the same along the way, so it conserves them as well.
    bare = PIWSLCalculator(model, dtype="float64", skin=0.0)
    for frame, energy, forces in frames:
        frame.calc = bare
        assert frame.get_potential_energy() == pytest.approx(energy, abs=1e-9)
        assert np.allclose(frame.get_forces(), forces, atol=1e-9)
    assert len(frames) == 11 and bare.neighbors.hit_rate == 0
