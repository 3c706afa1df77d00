"""A network begins at the mean energy of its data, however far that is from its E0."""

import numpy as np
import pytest
import torch

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_potential
from tests.teacher import molecule_frames

pytest.importorskip("schnetpack")
from training.start.first_energies import begin_at_mean_energy  # noqa: E402

SMALL = {
    "painn": {"cutoff": 5.0, "n_features": 8, "n_interactions": 1, "n_rbf": 6},
    "schnet": {"cutoff": 5.0, "n_features": 8, "n_interactions": 1, "n_rbf": 6},
    "tensornet": {"cutoff": 5.0, "n_features": 8, "n_interactions": 1, "n_rbf": 6},
}


def frames_of(shift):
    frames = molecule_frames(12)
    for atoms in frames:
        atoms.info["energy"] = shift * len(atoms)
    return frames


def energies(potential, frames):
    return np.array([float(potential(graph_from_atoms(a, 5.0)).detach().sum()) / len(a) for a in frames])


@pytest.mark.parametrize("architecture", sorted(SMALL))
@pytest.mark.parametrize("training", [True, False])
def test_mean_energies_are_right_at_the_first_step(architecture, training):
    frames = frames_of(-7.0)
    elements = sorted({int(z) for a in frames for z in a.numbers})
    torch.manual_seed(1)
    e0 = dict.fromkeys(elements, -2.0)
    potential = build_potential(architecture, SMALL[architecture], reference_energies=e0, scale=1.5).train(training)
    potential.lone_atoms()  # kept, and to be dropped
    assert abs(energies(potential, frames).mean() + 7.0) > 3.0
    assert begin_at_mean_energy(potential, frames)
    assert energies(potential, frames) == pytest.approx(-7.0, abs=0.5)
    assert energies(potential, frames).mean() == pytest.approx(-7.0, abs=0.05)
    # An atom alone is still its E0.
    alone = frames[0][:1]
    assert energies(potential, [alone])[0] == pytest.approx(-2.0, abs=1e-5)


def test_a_small_mean_is_left_alone():
    frames = frames_of(-2.01)
    elements = sorted({int(z) for a in frames for z in a.numbers})
    potential = build_potential("painn", SMALL["painn"], reference_energies=dict.fromkeys(elements, -2.0))
    before = [p.clone() for p in potential.parameters()]
    assert not begin_at_mean_energy(potential, frames)
    assert all(torch.equal(a, b) for a, b in zip(before, potential.parameters(), strict=True))


def test_forces_alone_say_nothing_of_it():
    frames = molecule_frames(2)
    for atoms in frames:
        del atoms.info["energy"]
    elements = sorted({int(z) for a in frames for z in a.numbers})
    potential = build_potential("painn", SMALL["painn"], reference_energies=dict.fromkeys(elements, 0.0))
    assert not begin_at_mean_energy(potential, frames)
