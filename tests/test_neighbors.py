"""Neighbour lists against counting by hand, and the Verlet skin against fresh lists."""

import itertools

import numpy as np
import pytest
import torch
import vesin
from ase import Atoms
from ase.build import bulk

from asecalc_mlip import graph as graphs
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.neighbors import lists, neighbor_list
from asecalc_mlip.neighbors.batched import BatchedNeighborCache
from asecalc_mlip.neighbors.lists import compact_list
from asecalc_mlip.neighbors.pairs import pairs_within
from asecalc_mlip.neighbors.resident import ResidentLists
from asecalc_mlip.neighbors.verlet import NeighborCache
from tests.cases import make_structure


def by_hand(positions, cell, pbc, cutoff):
    """All pairs and images, by trying every one that could be close enough."""
    inverse = np.linalg.inv(cell)
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0)) + np.ceil(np.ptp(positions @ inverse, axis=0))
    ranges = [range(-int(n), int(n) + 1) if p else [0] for n, p in zip(reach, pbc, strict=True)]
    pairs = set()
    for shift in itertools.product(*ranges):
        distances = np.linalg.norm(positions[None] + np.array(shift) @ cell - positions[:, None], axis=-1)
        for i, j in np.argwhere(distances < cutoff):
            if i != j or any(shift):
                pairs.add((int(i), int(j), *shift))
    return pairs


@pytest.mark.parametrize("seed", range(40))
def test_every_pair_once(seed):
    rng = np.random.default_rng(seed)
    # Skewed cells, often smaller than the cutoff; any mixture of periodic directions; atoms far outside.
    pbc, cell = rng.random(3) < 0.6, np.diag(rng.uniform(2, 6, 3)) + rng.normal(0, 0.8, (3, 3))
    positions = rng.uniform(-1.5, 2.5, (rng.integers(1, 8), 3)) @ cell
    cutoff = rng.uniform(2, 5)
    i, j, shifts = neighbor_list(positions, cell, pbc, cutoff)
    shifts = np.zeros((len(i), 3)) if shifts is None else shifts
    found = [(int(a), int(b), *map(int, s)) for a, b, s in zip(i, j, shifts, strict=True)]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert set(found) == by_hand(positions, cell, pbc, cutoff)


@pytest.mark.parametrize("seed", range(5))
def test_few_atoms_have_the_pairs_of_many(seed, monkeypatch):
    """By all distances, and by boxes as larger structures."""
    positions = np.random.default_rng(seed).uniform(0, 8, (lists.FEW - seed, 3))
    found = neighbor_list(positions, np.zeros((3, 3)), [False] * 3, 3.0)
    monkeypatch.setattr(lists, "FEW", 0)
    boxes = neighbor_list(positions, np.zeros((3, 3)), [False] * 3, 3.0)
    assert found[2] is boxes[2] is None and len(found[0]) > 100
    for one, other in zip(found[:2], boxes[:2], strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other) and one.flags.c_contiguous


def same(cache, atoms):
    graph = cache.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    fresh = graph_from_atoms(atoms, cache.cutoff)
    ours, theirs = graph.vectors().numpy(), fresh.vectors().numpy()
    return np.array_equal(graph.neighbors, fresh.neighbors) and np.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("structure", ["molecule", "crystal", "skewed", "slab"])
@pytest.mark.parametrize("wrap", [False, True])
def test_skin_gives_what_a_fresh_list_gives(structure, wrap):
    rng = np.random.default_rng(0)
    atoms = make_structure(structure)
    cache = NeighborCache(4.0, 0.8)
    for _ in range(60):
        atoms.positions += rng.normal(0, 0.04, atoms.positions.shape) + [0.05, 0.0, 0.0]
        if wrap and atoms.pbc.any():
            atoms.wrap()
            graph = cache.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
            lengths = np.sort(graph.vectors().norm(dim=1))
            assert np.allclose(lengths, np.sort(graph_from_atoms(atoms, 4.0).vectors().norm(dim=1)), atol=1e-10)
        else:
            assert same(cache, atoms)
    assert 0 < cache.builds < 40
    assert cache.hit_rate == 1 - cache.builds / cache.calls


def test_wrapping_alone_needs_no_new_list():
    atoms = bulk("Si", cubic=True)
    cache = NeighborCache(4.0, 0.5)
    cache.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    atoms.positions += 3 * atoms.cell.array[0] - atoms.cell.array[2]
    cache.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    assert cache.builds == 1


@pytest.mark.parametrize(("strain", "builds"), [(1e-9, 1), (1e-3, 1), (-1e-3, 1), (0.05, 1), (-0.12, 2)])
def test_a_changed_cell_is_followed(strain, builds):
    # SchNetPack's skin list keeps the old shifts here and is 0.04 eV wrong at 0.1 % strain.
    atoms = make_structure("crystal")
    cache = NeighborCache(4.0, 0.5)
    assert same(cache, atoms)
    atoms.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
    assert same(cache, atoms)
    assert cache.builds == builds


@pytest.mark.parametrize("structure", ["crystal", "skewed", "slab"])
@pytest.mark.parametrize("seed", range(6))
def test_cells_that_change_with_the_atoms(structure, seed):
    # As a barostat does it, about a point that is not the origin; a walk that shrinks, grows, shears and turns.
    rng = np.random.default_rng(seed)
    atoms = make_structure(structure)
    cache, drift = NeighborCache(4.0, 0.8), rng.normal(0, 0.01, (3, 3))
    for _ in range(60):
        strain = np.eye(3) + 0.3 * drift + rng.normal(0, 0.003, (3, 3))
        centre = atoms.positions.mean(axis=0)
        atoms.set_cell(atoms.cell.array @ strain)
        atoms.positions = (atoms.positions - centre) @ strain + centre + rng.normal(0, 0.01, atoms.positions.shape)
        assert same(cache, atoms)
        shortest = graph_from_atoms(atoms, 4.0).vectors().norm(dim=1).min()
        assert cache.closest <= shortest
    assert cache.builds < 40


@pytest.mark.parametrize("seed", range(4))
def test_cells_of_a_batch_that_change(seed):
    rng = np.random.default_rng(seed)
    structures, cache = [make_structure("crystal"), make_structure("skewed")], BatchedNeighborCache(4.0, 0.8)
    for step in range(40):
        for atoms in structures[: 1 + step % 2]:
            strain = np.eye(3) + rng.normal(0, 0.003, (3, 3)) - 0.004 * np.eye(3)
            atoms.set_cell(atoms.cell.array @ strain)
            moved = atoms.positions @ strain + rng.normal(0, 0.01, atoms.positions.shape)
            atoms.positions = moved + rng.integers(-1, 2, moved.shape) @ atoms.cell.array
        fresh = graph_from_atoms(structures, 4.0)
        graph = cache.graph(fresh.numbers, fresh.positions, fresh.cell, fresh.batch, True)
        assert torch.equal(graph.cell, fresh.cell) and torch.equal(graph.centers, fresh.centers)
        lengths = [np.sort(g.vectors().norm(dim=1)[g.batch[g.centers] == k]) for g in (graph, fresh) for k in range(2)]
        assert np.allclose(lengths[0], lengths[2], atol=1e-10) and np.allclose(lengths[1], lengths[3], atol=1e-10)
    assert 2 < cache.builds < 0.3 * cache.calls


class _Pbc(torch.Tensor):
    """Periodicity that counts how often it is copied to a device."""

    copies = 0

    def to(self, *arguments, **options):
        _Pbc.copies += 1
        return super().to(*arguments, **options)


@pytest.mark.parametrize("make", [BatchedNeighborCache, ResidentLists])
def test_periodicity_is_copied_to_the_device_only_when_it_changes(make, monkeypatch):
    monkeypatch.setattr(_Pbc, "copies", 0)
    graph, lists = graph_from_atoms(make_structure("crystal"), 4.0), make(4.0, 0.8)
    copies = []
    for pbc in ([True, True, True], [True, True, False]):
        for step in range(3):
            moved = graph.positions.double() + 0.01 * step
            there = torch.tensor(pbc).as_subclass(_Pbc)
            lists.graph(graph.numbers, moved, graph.cell.double(), graph.batch, there, None)
            copies.append(_Pbc.copies)
    first, second = copies[0], copies[3]
    assert 0 < first < second and copies == 3 * [first] + 3 * [second]


def test_a_cell_that_changes_without_its_atoms():
    atoms = make_structure("crystal")
    cache = NeighborCache(4.0, 0.5)
    assert same(cache, atoms)
    atoms.set_cell(atoms.cell.array + np.diag([2.0, 0.0, 0.0]))
    assert same(cache, atoms)
    assert cache.builds == 2


def test_another_structure_makes_a_new_list():
    cache = NeighborCache(4.0, 0.5)
    for name in ("molecule", "crystal", "molecule", "slab"):
        assert same(cache, make_structure(name))
    assert cache.builds == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.positions.__setitem__((1, 2), np.nan), r"atoms \[1\] are not finite"),
        (lambda a: a.set_cell([0, 0, 0]), "no volume"),
        (lambda a: a.set_cell([[4, 0, 0], [4, 0, 0], [0, 0, 4]]), "no volume"),
        (lambda a: a.__delitem__(slice(None)), "no atoms"),
    ],
)
def test_bad_structures(change, message):
    atoms = bulk("Si")
    change(atoms)
    with pytest.raises(InputError, match=message):
        graph_from_atoms(atoms, 4.0)


def test_negative_skin():
    with pytest.raises(InputError, match="skin is -1"):
        NeighborCache(4.0, -1.0)


@pytest.mark.parametrize("far", [1e3, 1e5, 1e6, 9e7])
@pytest.mark.parametrize("structure", ["molecule", "crystal", "skewed", "slab"])
def test_atoms_far_away(structure, far):
    # vesin alone divides by zero here, which ends the process.
    atoms = make_structure(structure)
    near = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
    moved = atoms.copy()
    jump = np.array([0.0, 0.0, far])
    if atoms.pbc.all():
        jump = np.round(far / atoms.cell.lengths().max()) * atoms.cell.array[2]
    moved.positions[1] += jump
    i, j, shifts = neighbor_list(moved.positions, moved.cell.array, moved.pbc, 4.0)
    keys = np.column_stack([i, j] if shifts is None else [i, j, shifts])
    assert np.array_equal(keys, keys[np.lexsort(keys.T[::-1])])
    graph = graph_from_atoms(moved, 4.0)
    assert float(graph.vectors().norm(dim=1).max()) < 4.0 + 1e-6
    if atoms.pbc.all():
        assert len(i) == len(near[0])
    else:
        lone = (near[0] != 1) & (near[1] != 1)
        own = (near[0] == 1) & (near[1] == 1)
        assert len(i) == (lone | own).sum()


@pytest.mark.parametrize("cell", [[1e6, 6, 6], [1e6, 1e6, 1e6], [[7, 2, 1], [1e5, 2e5, 3], [0, 1, 5]]])
def test_huge_cells_keep_all_pairs(cell):
    rng = np.random.default_rng(0)
    cell = np.diag(cell) if np.ndim(cell) == 1 else np.array(cell, dtype=float)
    # Clusters in the middle and at the border, where pairs reach across.
    first, middle, border = rng.uniform(0, 4, (6, 3)), rng.uniform(0, 4, (6, 3)), -rng.uniform(0, 3, (6, 3))
    positions = np.concatenate([first, cell.sum(0) / 2 + middle, border])
    i, j, shifts = neighbor_list(positions, cell, np.ones(3, bool), 4.0)
    found = [(int(a), int(b), *map(int, s)) for a, b, s in zip(i, j, shifts, strict=True)]
    assert found == sorted(found)
    wanted = set()
    for shift in itertools.product(range(-2, 3), repeat=3):
        distances = np.linalg.norm(positions[None] + np.array(shift) @ cell - positions[:, None], axis=-1)
        near = np.argwhere(distances < 4.0)
        wanted |= {(int(a), int(b), *shift) for a, b in near if a != b or any(shift)}
    assert set(found) == wanted


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("C", cell=[0.01, 0.01, 0.01], pbc=True), "0.01 Å thick"),
        (Atoms("C", cell=[1e-5, 9, 9], pbc=[True, False, False]), "1e-05 Å thick"),
        (Atoms("CO", [[0, 0, 0], [1e12, 0, 0]]), r"atoms \[1\] are more than 1e\+08 Å from the origin"),
    ],
)
def test_structures_out_of_proportion(atoms, message):
    with pytest.raises(InputError, match=message):
        graph_from_atoms(atoms, 4.0)


def test_order_with_huge_shifts():
    # Indices and shifts packed into one number would not fit 64 bits.
    atoms = bulk("Si", cubic=True) * (2, 2, 2)
    atoms.positions[3] += 5e6 * atoms.cell.array[0] - 2e6 * atoms.cell.array[1]
    i, j, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
    assert (np.diff(i) >= 0).all()
    assert len(i) == 64 * 16


@pytest.mark.parametrize("structure", ["molecule", "quartz", "mixed"])
def test_edges_in_pieces_are_those_of_the_whole(structure, monkeypatch):
    several = [bulk("Cu", cubic=True) * 2, Atoms("OH2", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])]
    given = {"molecule": several[1], "quartz": several[0], "mixed": several}[structure]
    graph = graph_from_atoms(given, 5.0)
    near, vectors, shortest = graph.within(3.0), graph.fixed_vectors(), graph.shortest()
    assert torch.equal(vectors, graph.vectors())
    assert 0 < near.n_edges < graph.n_edges or structure == "molecule"
    monkeypatch.setattr(graphs, "_PIECE", 5)
    in_pieces = graph.within(3.0)
    for name in ("centers", "neighbors"):
        assert torch.equal(getattr(in_pieces, name), getattr(near, name))
    assert torch.allclose(graph.fixed_vectors(), vectors, rtol=0, atol=1e-13)
    assert graph.shortest() == pytest.approx(shortest, abs=1e-13)
    assert shortest == pytest.approx(vectors.norm(dim=1).min().item(), abs=1e-13)


def test_shifts_take_a_byte_where_they_fit():
    copper = bulk("Cu", cubic=True) * 2
    copper.positions[3] += 200 * copper.cell[0]
    far = compact_list(copper.positions, copper.cell.array, copper.pbc, 4.0)[2]
    copper.wrap()
    near = compact_list(copper.positions, copper.cell.array, copper.pbc, 4.0)[2]
    assert near.dtype == np.int8
    assert far.dtype == np.int16
    assert np.abs(far).max() >= 200


def test_two_groups_far_apart_in_a_wire_are_few_boxes(monkeypatch):
    """Vesin took 5 s for 16 atoms in 18 000 boxes, most of them empty."""
    rng, seen = np.random.default_rng(0), []
    group = 8 * rng.random((8, 3))
    positions, cell, pbc = (
        np.vstack([group, group + [0, 240, 320]]),
        np.diag([19.0, 0, 0]),
        np.array([True, False, False]),
    )
    real = vesin.NeighborList.compute

    def compute(self, points, **options):
        seen.append(np.ptp(points, axis=0))
        return real(self, points=points, **options)

    monkeypatch.setattr(vesin.NeighborList, "compute", compute)
    i, j, shifts = neighbor_list(positions, cell, pbc, 5.0)
    one = neighbor_list(group, cell, pbc, 5.0)
    assert np.prod(seen[0]) < 30**3
    assert len(i) == 2 * len(one[0])
    np.testing.assert_array_equal(np.stack([i, j], 1)[: len(one[0])], np.stack(one[:2], 1))
    np.testing.assert_array_equal(shifts[: len(one[0])], one[2])


def test_pairs_of_a_structure_take_neither_memory_nor_time_for_empty_space():
    """Lists by boxes of the radius took all memory in a wide cell, and for ever for a slab with one atom far away."""
    molecule = make_structure("molecule")
    expected = np.sort(pairs_within(molecule, 3.0)[2])
    for cell, pbc in ((1e6, True), (20.0, [True, True, False])):
        atoms = molecule.copy()
        atoms.cell, atoms.pbc = [cell] * 3, pbc
        np.testing.assert_allclose(np.sort(pairs_within(atoms, 3.0)[2]), expected, atol=1e-9)
        atoms += Atoms("H", [[0.0, 0.0, 1e5]])
        np.testing.assert_allclose(np.sort(pairs_within(atoms, 3.0)[2])[: len(expected)], expected, atol=1e-9)


@pytest.mark.parametrize("far", [1e9, 1e15])
def test_pairs_of_a_crystal_that_explodes_are_those_of_its_images(far):
    crystal = bulk("Cu", cubic=True)
    crystal.positions[3] += far
    i, _, d = pairs_within(crystal, 3.0)
    assert len(d) and np.isfinite(d).all() and (d < 3.0).all() and i.max() <= 3
