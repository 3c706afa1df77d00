"""The cell list in torch gives the lists of vesin, number by number: any cell, any mixture of structures."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from torch.utils._python_dispatch import TorchDispatchMode

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.calculators import batches
from asecalc_mlip.calculators.checks import ElementCheck
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.neighbors import batched, cells, device_lists, neighbor_list, verlet
from asecalc_mlip.neighbors.cells import cell_lists
from asecalc_mlip.neighbors.device_lists import DeviceLists, vesin_list
from tests.cases import STRUCTURES, make_structure, model_file


def tensors(structures):
    """Arguments of `cell_lists`, without the reach."""
    sizes = torch.tensor([len(atoms) for atoms in structures])
    return (
        torch.from_numpy(np.concatenate([atoms.positions for atoms in structures])),
        torch.from_numpy(np.stack([atoms.cell.array for atoms in structures])),
        torch.from_numpy(np.stack([atoms.pbc for atoms in structures])),
        torch.repeat_interleave(torch.arange(len(structures)), sizes),
    )


def assert_same(structures, reach):
    i, j, shifts = cell_lists(*tensors(structures), reach)
    begin, at = 0, 0
    for atoms in structures:
        expected = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
        part = slice(at, at + len(expected[0]))
        assert np.array_equal(i[part] - begin, expected[0])
        assert np.array_equal(j[part] - begin, expected[1])
        if expected[2] is not None:
            assert np.array_equal(shifts[part], expected[2])
        elif shifts is not None:
            assert not shifts[part].any()
        begin, at = begin + len(atoms), part.stop
    assert at == len(i)
    return len(i)


def random_structure(rng, most=40):
    """Skewed cells, often smaller than the reach; any mixture of periodic directions; atoms far outside."""
    pbc, cell = rng.random(3) < 0.6, np.diag(rng.uniform(1.5, 14, 3)) + rng.normal(0, 0.8, (3, 3))
    positions = rng.uniform(-1.5, 2.5, (rng.integers(1, most), 3)) @ cell
    return Atoms(["Si"] * len(positions), positions=positions, cell=cell, pbc=pbc)


@pytest.mark.parametrize("seed", range(30))
def test_any_cell(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    if seed % 2:
        # Parts of atoms, and of the bins that an atom looks into.
        monkeypatch.setattr(cells, "_ON_CPU", int(rng.integers(500, 3000)))
    assert_same([random_structure(rng)], rng.uniform(1, 5))
    assert_same([random_structure(rng) for _ in range(rng.integers(2, 9))], rng.uniform(1, 5))


def test_structures_of_the_tests_together():
    assert assert_same([make_structure(name) for name in STRUCTURES], 5.5) > 600


def test_a_large_cell_has_many_bins(monkeypatch):
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True) * (6, 5, 4)
    atoms.rattle(0.2, seed=1)
    looked = []
    real = cells._Grid.make
    monkeypatch.setattr(cells._Grid, "make", lambda *args: looked.append(real(*args)) or looked[0])
    n_edges = assert_same([atoms], 5.0)
    assert looked[0].n.tolist() == [[5, 4, 3]]
    candidates = sum(piece[-1] for piece in looked[0].pieces())
    assert candidates < 10 * n_edges


def test_lone_atoms_and_gaps():
    """Atoms without neighbours, one far away, crowds, and a structure along a line."""
    far = Atoms("Si3", positions=[[0, 0, 0], [1, 1, 1], [1e7, -3e7, 0]])
    line = Atoms("Si20", positions=np.outer(np.arange(20) * 1.7, [1.0, 0.0, 0.0]))
    crowd = Atoms("Si60", positions=np.random.default_rng(0).normal(0, 0.5, (60, 3)), cell=[30, 30, 30], pbc=True)
    assert_same([Atoms("Si"), far, line, crowd, Atoms("O")], 3.0)
    assert cell_lists(*tensors([Atoms("Si")]), 3.0)[0].shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.positions.__setitem__((1, 2), np.nan), r"structure 1 of 3: the positions of atoms \[1\]"),
        (lambda atoms: atoms.positions.__setitem__((0, 0), 1e9), "structure 1 of 3: atoms .* more than 1e"),
        (lambda atoms: atoms.set_cell(np.zeros((3, 3))), "structure 1 of 3: pbc is .* no volume"),
        (lambda atoms: atoms.set_cell(atoms.cell * 0.001), "structure 1 of 3: the cell .* thick"),
        (lambda atoms: atoms.set_cell(atoms.cell * np.nan), "structure 1 of 3: the cell is not finite"),
    ],
)
def test_broken_structures_are_named(change, message):
    structures = [make_structure("molecule"), make_structure("crystal"), make_structure("slab")]
    change(structures[1])
    with pytest.raises(InputError, match=message):
        cell_lists(*tensors(structures), 4.0)


def test_vesin_on_tensors_is_the_same(monkeypatch):
    """Its code for tensors; on a GPU the same call runs its CUDA kernels."""
    for seed in range(12):
        atoms = random_structure(np.random.default_rng(seed))
        positions, cell, pbc, batch = tensors([atoms])
        expected = cell_lists(positions, cell, pbc, batch, 4.0)
        assert_equal(vesin_list(positions, cell[0], pbc[0], 4.0), expected)
        lists = DeviceLists()
        assert_equal(lists(positions, cell, pbc, batch, 4.0), expected)
        assert lists._trusts_vesin
        monkeypatch.setattr(device_lists, "cell_lists", None)
        assert_equal(lists(positions, cell, pbc, batch, 4.0), expected)
        monkeypatch.undo()


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one is other or torch.equal(one, other)


@pytest.mark.parametrize("fault", ["a pair less", "an error"])
def test_a_vesin_that_fails_is_left_out(fault, monkeypatch):
    real, calls = device_lists.vesin_list, []

    def faulty(*args):
        calls.append(args)
        if fault == "an error":
            raise RuntimeError("failed to load libnvrtc.so")
        return tuple(tensor if tensor is None else tensor[1:] for tensor in real(*args))

    monkeypatch.setattr(device_lists, "vesin_list", faulty)
    args, lists = (*tensors([make_structure("crystal")]), 4.0), DeviceLists()
    with pytest.warns(UserWarning, match=r"vesin makes no neighbour list on the GPU \((its list has|failed to load)"):
        assert_equal(lists(*args), cell_lists(*args))
    assert_equal(lists(*args), cell_lists(*args))
    assert len(calls) == 1


@pytest.fixture
def there(monkeypatch):
    """Caches make their lists as on a GPU, with tensors on the CPU."""
    monkeypatch.setattr(verlet, "made_on", lambda device: True)
    monkeypatch.setattr(batched, "made_on", lambda device: True)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_skin_over_lists_from_the_device(name, there):
    rng, atoms, cache = np.random.default_rng(0), make_structure(name), verlet.NeighborCache(4.0, 0.8)
    for _ in range(30):
        atoms.positions += rng.normal(0, 0.04, atoms.positions.shape)
        graph = cache.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        fresh = graph_from_atoms(atoms, 4.0)
        assert torch.equal(graph.centers, fresh.centers) and torch.equal(graph.neighbors, fresh.neighbors)
        assert torch.allclose(graph.vectors(), fresh.vectors(), rtol=0, atol=1e-12)
    assert 1 < cache.builds < 25


def asked(cache, structures, pbc=True, **options):
    positions, cell, _, batch = tensors(structures)
    numbers = torch.from_numpy(np.concatenate([atoms.numbers for atoms in structures]))
    return cache.graph(numbers, positions, cell, batch, pbc, **options)


@pytest.mark.parametrize("strained", [False, True])
def test_a_batch_over_lists_from_the_device(there, strained):
    """A walk, with jumps across the cell; cells that shear, shrink and turn; structures that leave."""
    rng, cache = np.random.default_rng(0), batched.BatchedNeighborCache(4.0, 0.8)
    structures = [make_structure("crystal", seed=seed) for seed in range(3)] + [make_structure("skewed")]
    for step in range(30):
        for atoms in structures:
            atoms.positions += rng.normal(0, 0.03, atoms.positions.shape) + 0.1
            if strained:
                strain = np.eye(3) + rng.normal(0, 0.003, (3, 3)) - 0.002 * np.eye(3)
                atoms.set_cell(atoms.cell.array @ strain)
                atoms.positions = atoms.positions @ strain
        structures[0].wrap()
        graph, fresh = asked(cache, structures), graph_from_atoms(structures, 4.0)
        assert graph.n_edges >= fresh.n_edges
        near = graph.within(4.0)
        lengths = [np.sort(one.vectors().norm(dim=1).numpy()) for one in (near, fresh)]
        assert np.allclose(*lengths, rtol=0, atol=1e-10)
        assert torch.equal(near.centers, fresh.centers) and torch.equal(near.neighbors, fresh.neighbors)
        assert cache.closest <= lengths[0].min()
        if step == 15:
            structures = structures[1:]
    assert 8 <= cache.builds < cache.calls / 2


def test_a_slab_over_lists_from_the_device(there):
    cache, atoms = batched.BatchedNeighborCache(4.0, 0.8), make_structure("slab")
    for _ in range(10):
        atoms.positions[:, 2] += 0.3
        graph = asked(cache, [atoms], [True, True, False]).within(4.0)
        assert torch.allclose(graph.vectors(), graph_from_atoms(atoms, 4.0).vectors(), rtol=0, atol=1e-12)
    # Atoms that move together stay as far apart.
    assert cache.builds == 1


class Waits(TorchDispatchMode):
    """Counts the operations whose result the host waits for on a GPU."""

    names = ("_local_scalar_dense", "nonzero", "aten.equal", "masked_select", "_unique", "repeat_interleave.Tensor")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        # Tensors that are on the CPU whatever the device.
        small = all(isinstance(one, torch.Tensor) and one.shape == (3,) for one in args)
        if any(name in str(function) for name in self.names) and not small:
            self.seen.append(str(function))
        return found


def test_a_list_that_is_kept_costs_one_look(there):
    cache, structures = batched.BatchedNeighborCache(4.0, 0.8), [make_structure("crystal", seed=k) for k in range(5)]
    asked(cache, structures)
    structures[2].positions += 0.01
    with Waits() as waits:
        asked(cache, structures)
    # That of two flags, and of whether any direction is periodic, which the host knows.
    assert len(waits.seen) <= 3 and cache.builds == 5


def test_unknown_elements_in_a_batch_are_named(there):
    structures = [make_structure("crystal"), bulk("Fe", cubic=True)]
    cache, check = batched.BatchedNeighborCache(4.0, 0.5), ElementCheck([8, 14], "x")
    with pytest.raises(InputError, match="structure 1 of 2: .*Fe"):
        asked(cache, structures, check=check)
    asked(cache, structures[:1], check=check)
    structures[0].numbers[:] = 26
    with pytest.raises(InputError, match="Fe"):
        asked(cache, structures[:1], check=check)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_lists_on_a_gpu():
    rng = np.random.default_rng(0)
    structures = [random_structure(rng) for _ in range(20)] + [make_structure(name) for name in STRUCTURES]
    for reach in (2.0, 4.5):
        args = tensors(structures)
        found = cell_lists(*(tensor.cuda() for tensor in args), reach)
        assert_equal([tensor.cpu() for tensor in found], cell_lists(*args, reach))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("seed", range(12))
def test_vesin_on_a_gpu(seed):
    positions, cell, pbc, batch = tensors([random_structure(np.random.default_rng(seed))])
    found = vesin_list(positions.cuda(), cell[0].cuda(), pbc[0].cuda(), 4.0)
    assert_equal([t if t is None else t.cpu() for t in found], cell_lists(positions, cell, pbc, batch, 4.0))


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_evaluation_over_lists_from_the_device(batch_size, tmp_path, monkeypatch):
    calculator = PIWSLCalculator.load(model_file(tmp_path), device="cpu", dtype="float64")
    structures = [make_structure(name, seed=seed) for seed in range(2) for name in STRUCTURES]
    expected = calculator.evaluate(structures)
    monkeypatch.setattr(batches, "made_on", lambda device: True)
    for ours, theirs in zip(calculator.evaluate(structures, batch_size=batch_size), expected, strict=True):
        assert ours["energy"] == pytest.approx(theirs["energy"], abs=1e-9)
        assert np.allclose(ours["forces"], theirs["forces"], rtol=0, atol=1e-9)
        assert (ours["stress"] is None) == (theirs["stress"] is None)
        assert ours["stress"] is None or np.allclose(ours["stress"], theirs["stress"], rtol=0, atol=1e-12)
    structures[5].positions[1] = structures[5].positions[0]
    with pytest.raises(InputError, match="structure 5: atoms 0 and 1 are 0.000 Å apart"):
        calculator.evaluate(structures, batch_size=batch_size)
    structures[5].positions[1] = np.nan
    with pytest.raises(InputError, match=r"structure 5: the positions of atoms \[1\] are not finite"):
        calculator.evaluate(structures, batch_size=batch_size)
