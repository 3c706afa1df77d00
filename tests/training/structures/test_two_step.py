"""The two-step perturbation: which pairs are pulled, by how much, and what is refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from asecalc_mlip.errors import InputError
from training.perturb import two_step, two_step_series
from training.structures.two_step import _closest, closest_pairs


def rng(seed=0):
    return np.random.default_rng(seed)


def crystal(repeat=2, noise=0.1):
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True) * (repeat, 1, 1)
    atoms.positions += rng(3).uniform(-noise, noise, atoms.positions.shape)
    return atoms


def by_hand(atoms, n):
    """Closest disjoint pairs from the matrix of all distances."""
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    order = sorted((distances[i, j], i, j) for i in range(len(atoms)) for j in range(i + 1, len(atoms)))
    used, found = set(), []
    for _, i, j in order:
        if len(found) < n and not {i, j} & used:
            used |= {i, j}
            found.append((i, j))
    return found


@pytest.mark.parametrize("atoms", [crystal(), molecule("CH3CH2OH"), bulk("SiO", "rocksalt", a=4.4)])
@pytest.mark.parametrize("n", [1, 4, 50])
def test_pairs_are_the_closest_and_disjoint(atoms, n):
    found = closest_pairs(atoms, n)
    assert [(i, j) for i, j, _ in found] == by_hand(atoms, min(n, len(atoms) // 2))
    for i, j, vector in found:
        assert np.linalg.norm(vector) == pytest.approx(atoms.get_distance(i, j, mic=bool(atoms.pbc.any())))


def test_pull_across_the_boundary():
    atoms = Atoms("O2", [[0.4, 5, 5], [9.6, 5, 5]], cell=[10, 10, 10], pbc=True)
    pulled = two_step(atoms, 0.3, 0.0, rng=rng())
    assert pulled.get_distance(0, 1, mic=True) < 0.8
    # Half to each, towards each other: through the boundary, not through the cell.
    assert pulled.positions[0, 0] < 0.4 and pulled.positions[1, 0] > 9.6
    assert 0.4 - pulled.positions[0, 0] == pytest.approx(pulled.positions[1, 0] - 9.6)


def test_pull_is_uniform_and_leaves_the_others():
    atoms, pulls = crystal(), []
    pairs = closest_pairs(atoms, 4)
    touched = {k for i, j, _ in pairs for k in (i, j)}
    for seed in range(200):
        pulled = two_step(atoms, 0.4, 0.0, rng=rng(seed))
        moved = np.flatnonzero(np.abs(pulled.positions - atoms.positions).max(axis=1) > 0)
        assert set(moved) <= touched
        pulls += [np.linalg.norm(v) - pulled.get_distance(i, j, mic=True) for i, j, v in pairs]
    assert min(pulls) >= 0 and max(pulls) <= 0.4
    assert np.mean(pulls) == pytest.approx(0.2, abs=0.01) and np.std(pulls) == pytest.approx(0.4 / 12**0.5, abs=0.01)


def test_random_moves():
    atoms, lengths, directions = crystal(), [], []
    for seed in range(200):
        moved = two_step(atoms, 0.0, 0.3, rng=rng(seed))
        step = moved.positions - atoms.positions
        size = np.linalg.norm(step, axis=1)
        assert np.count_nonzero(size) == 5
        lengths += size[size > 0].tolist()
        directions += (step[size > 0] / size[size > 0, None]).tolist()
    assert max(lengths) <= 0.3 and np.mean(lengths) == pytest.approx(0.15, abs=0.01)
    assert np.abs(np.mean(directions, axis=0)).max() < 0.06
    assert np.allclose(np.mean(np.square(directions), axis=0), 1 / 3, atol=0.03)
    few = two_step(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), 0.0, 0.1, rng=rng())
    assert (np.abs(few.positions - [[0, 0, 0], [0, 0, 0.74]]).max(axis=1) > 0).all()


def test_series_grows_from_the_structure_itself():
    atoms = crystal()
    atoms.info["energy"] = 1.0
    atoms.arrays["forces"] = np.zeros_like(atoms.positions)
    series = two_step_series(atoms, rounds=6, maximum=0.5, rng=rng())
    assert len(series) == 6 and np.array_equal(series[0].positions, atoms.positions)
    assert np.array_equal(series[0].cell, atoms.cell) and series[0].pbc.all()
    # Labels are those of another structure now.
    assert not series[3].info and set(series[3].arrays) == {"numbers", "positions"}
    largest = [np.abs(frame.positions - atoms.positions).max() for frame in series]
    assert largest[1] < 0.16 and largest[-1] > largest[1]
    again = two_step_series(atoms, rounds=6, maximum=0.5, rng=rng())
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(series, again, strict=True))


def test_atoms_do_not_pass_through_each_other():
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    for seed in range(50):
        pulled = two_step(atoms, 5.0, 0.0, rng=rng(seed))
        assert pulled.get_distance(0, 1) >= 0.6 * 0.62 - 1e-12
        assert pulled.positions[1, 2] > pulled.positions[0, 2]
    for seed in range(20):
        strong = two_step(crystal(), 1.5, 1.5, rng=rng(seed))
        i, j, d = neighbor_list("ijd", strong, 3.0)
        assert (d / (covalent_radii[strong.numbers[i]] + covalent_radii[strong.numbers[j]])).min() > 0.6 - 1e-9


def test_bad_input():
    pair = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    for lonely in (Atoms("H"), Atoms("Si", cell=[3, 3, 3], pbc=True)):
        with pytest.raises(InputError, match=r"1 atom\(s\) has no pair"):
            two_step(lonely, 0.1, 0.1, rng=rng())
    for p, q in ((-0.1, 0.1), (0.1, float("nan")), (float("inf"), 0.1)):
        with pytest.raises(InputError, match="lengths of 0"):
            two_step(pair, p, q, rng=rng())
    with pytest.raises(InputError, match="n_pairs -1"):
        two_step(pair, 0.1, 0.1, rng=rng(), n_pairs=-1)
    with pytest.raises(InputError, match="rounds 0"):
        two_step_series(pair, rounds=0, rng=rng())
    with pytest.raises(InputError, match="overlapping atoms"):
        two_step(Atoms("H2", [[0, 0, 0], [0, 0, 0.01]]), 0.0, 0.01, rng=rng())


def test_compressed_crystals_are_moved_too():
    # Closer than 0.6 from the start, with many equal shortest distances: hardly a move makes none of them shorter.
    atoms = bulk("NaCl", "rocksalt", a=2.8, cubic=True)
    before = _closest(atoms)[0]
    assert before < 0.6
    for k, strength in enumerate((0.05, 0.3, 1.0)):
        moved = two_step(atoms, strength, strength, rng=np.random.default_rng(k))
        assert 0.9 * before <= _closest(moved)[0] and np.abs(moved.positions - atoms.positions).max() > 0


def test_atoms_in_one_place_have_no_direction_to_be_pulled_along():
    atoms = Atoms("HHO2", [[0, 0, 0], [0, 0, 0], [0, 0, 3], [0, 0, 4.3]])
    moved = two_step(atoms, 0.3, 0.0, rng=rng())
    assert np.isfinite(moved.positions).all() and moved.get_distance(2, 3) < 1.3
