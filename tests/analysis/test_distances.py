"""h(r): normalisation, edges, comparison."""

import time

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.distance import pdist

from asecalc_mlip.analysis import DistanceHistogram, distance_histogram
from asecalc_mlip.errors import InputError


def frames(n=20, scale=0.05, seed=1):
    rng = np.random.default_rng(seed)
    return molecule("C6H6").positions + scale * rng.standard_normal((n, 12, 3))


def test_density_integrates_to_one_and_matches_numpy():
    positions = frames()
    h = distance_histogram(positions)
    assert np.sum(h.density * np.diff(h.edges)) == pytest.approx(1.0)
    expected, _ = np.histogram(np.concatenate([pdist(p) for p in positions]), h.edges, density=True)
    np.testing.assert_allclose(h.density, expected)
    assert h.n_frames == 20 and len(h.r) == 500


def test_arrays_atoms_and_generators_give_the_same():
    positions = frames(3)
    atoms = [molecule("C6H6") for _ in positions]
    for frame, p in zip(atoms, positions, strict=True):
        frame.positions = p
    expected = distance_histogram(positions).counts
    np.testing.assert_array_equal(distance_histogram(atoms).counts, expected)
    np.testing.assert_array_equal(distance_histogram(p for p in positions).counts, expected)
    assert distance_histogram(atoms[0]).n_frames == distance_histogram(positions[0]).n_frames == 1


def test_error_is_zero_for_equal_and_two_for_disjoint():
    h = distance_histogram(frames())
    short, long = (distance_histogram(np.array([[0, 0, 0], [x, 0, 0]], float)) for x in (1.0, 2.0))
    assert h.error(h) == 0.0
    assert short.error(long) == pytest.approx(2.0)
    assert 0.0 < h.error(distance_histogram(frames(seed=2))) < 1.0


def test_distances_beyond_r_max_are_left_out():
    h = distance_histogram(np.array([[0, 0, 0], [1, 0, 0], [50, 0, 0]], float))
    assert h.counts.sum() == 1 and h.density.sum() * 0.02 == pytest.approx(1.0)
    # The bins are (a, b]: a distance of exactly r_max counts.
    assert distance_histogram(np.array([[0, 0, 0], [10.0, 0, 0]])).counts[-1] == 1


def test_survives_json_and_says_what_it_is():
    h = distance_histogram(frames(2))
    again = DistanceHistogram.from_dict(h.to_dict())
    assert again.error(h) == 0.0 and again.n_frames == 2
    assert "2 frames" in repr(h) and "peak at" in repr(h)


def test_large_clusters_take_no_look_at_all_pairs():
    rod = np.zeros((60_000, 3))
    rod[:, 2] = 4.0 * np.arange(len(rod))
    begun = time.process_time()
    counts = distance_histogram(rod).counts
    # All pairs are 1.8e9 distances.
    assert time.process_time() - begun < 3.0
    assert sorted(counts[counts > 0]) == [59_998, 59_999]


@pytest.mark.parametrize("bad", [[], np.zeros((2, 4, 2)), np.full((1, 2, 3), np.nan)])
def test_bad_frames_are_refused(bad):
    with pytest.raises(InputError):
        distance_histogram(bad)


def test_different_bins_cannot_be_compared():
    with pytest.raises(InputError, match="different bins"):
        distance_histogram(frames()).error(distance_histogram(frames(), bins=100))
