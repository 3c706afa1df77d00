"""Which frames are labelled: features of atoms, and the frames farthest from the known ones."""

import tracemalloc

import numpy as np
import pytest
from ase.build import molecule

from asecalc_mlip.models import build_potential
from training.learn.selection import COPY, atomic_features, farthest


def test_farthest_frames_come_first_and_copies_never():
    numbers = np.array([1, 8])
    known = [np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])]
    frames = [np.array([[0.0], [1.0]]), np.array([[0.1], [0.0]]), np.array([[5.0], [0.0]]), np.array([[5.2], [0.0]])]
    taken = farthest(frames, [numbers] * 4, known, [numbers] * 2, 10)
    # Of frame 0 each atom is known, frame 2 is near frame 3; the scale of the known atoms is 0.5.
    assert [k for k, _ in taken] == [3, 2, 1]
    assert [d for _, d in taken] == pytest.approx([8.4, 0.4, 0.2])
    assert farthest(frames, [numbers] * 4, known, [numbers] * 2, 1) == taken[:1]
    tiny = [known[0] + 0.4 * COPY]
    assert farthest(tiny, [numbers], known, [numbers] * 2, 5) == []


def test_many_atoms_are_compared_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    many, known = [rng.normal(size=(40, 3)) for _ in range(50)], [rng.normal(size=(40, 3)) for _ in range(100)]
    numbers = [np.full(40, 6)]
    whole = farthest(many, numbers * 50, known, numbers * 100, 5)
    monkeypatch.setattr("training.learn.selection.PIECE", 10_000)
    tracemalloc.start()
    assert farthest(many, numbers * 50, known, numbers * 100, 5) == whole
    assert tracemalloc.get_traced_memory()[1] < 2e6  # all distances at once have 64 MB
    tracemalloc.stop()


def test_an_element_is_compared_with_its_own_atoms_only():
    known, candidates = [np.array([[0.0], [9.0]])], [np.array([[9.0], [9.0]]), np.array([[0.0], [9.0]])]
    taken = farthest(candidates, [np.array([1, 8])] * 2, known, [np.array([1, 8])], 5)
    assert [k for k, _ in taken] == [0]  # its hydrogen looks like a known oxygen, and no known hydrogen


@pytest.mark.parametrize("architecture", ["painn", "schnet"])
def test_features_know_a_turned_molecule_and_tell_a_stretched_one(architecture):
    start = molecule("H2O")
    turned, stretched = start.copy(), start.copy()
    turned.rotate(77.0, (1, 2, 3))
    stretched.set_distance(0, 1, 1.3, fix=0)
    potential = build_potential(architecture, {"n_features": 8}, reference_energies={1: 0.0, 8: 0.0}).eval()
    same, other, base = atomic_features(potential, [turned, stretched, start])
    np.testing.assert_allclose(same, base, atol=1e-4)
    assert np.abs(other - base).max() > 1e-3
