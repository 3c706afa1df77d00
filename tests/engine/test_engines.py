"""Every engine against float64 eager: the same energies, forces, stress and dynamics, and who runs what."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.engine import CompiledEngine, CudaGraphEngine, EagerEngine, NativeEngine, make_engine
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import plain_kernels
from tests.cases import DIRECTS, E0, MODELS, PHYSICAL, STRUCTURES, make_potential, make_structure

# What issue and README promise: eV per atom and eV/Å.
ENERGY, FORCES, STRESS = 1e-6, 1e-4, 1e-5
ENGINES = ["eager", "chunked", "native", "compiled", "padded"]
FLOAT64, FLOAT32 = torch.float64, torch.float32
# A program takes 15 s to build; one of each architecture and one of each dtype have to do.
COMPILED = [("painn", FLOAT64), ("schnet", FLOAT32)]

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def engine_of(with_program):
    """Function that makes an engine by its name, or skips where it does not serve."""

    def make(name, potential):
        if name == "native" and not NativeEngine.serves(potential):
            pytest.skip("no kernel")
        if name == "compiled" and (potential.architecture, potential.dtype) not in COMPILED:
            pytest.skip("not built, to save time")
        if name == "padded":
            return CudaGraphEngine(potential, capture=False)
        if name == "chunked":
            return ChunkedEngine(potential, edges_per_piece=37)
        return make_engine(with_program(potential) if name == "compiled" else potential, name)

    return make


def assert_same(ours, reference, n_atoms):
    assert (ours.energies - reference.energies).abs().max() < ENERGY * 10
    assert ((ours.energy - reference.energy).abs() / n_atoms).max() < ENERGY
    assert (ours.forces - reference.forces).abs().max() < FORCES
    if reference.stress is not None:
        assert torch.equal(ours.stress.isnan(), reference.stress.isnan())
        assert ((ours.stress - reference.stress).nan_to_num().abs().max()) < STRESS


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("engine", ENGINES)
class TestAgainstFloat64Eager:
    def test_every_structure_alone_and_all_in_a_batch(self, engine, architecture, dtype, engine_of):
        exact = EagerEngine(make_potential(architecture))
        ours = engine_of(engine, make_potential(architecture, dtype=dtype))
        structures = [make_structure(name, seed=k) for k, name in enumerate(STRUCTURES)]
        structures += [Atoms("Si"), Atoms("CO", [[0, 0, 0], [0, 0, 5.0]]), Atoms("SiO", [[0, 0, 0], [0, 1.7, 0]])]
        graphs = [graph_from_atoms(atoms, 4.0) for atoms in structures]
        for graph in [*graphs, batch_graphs(graphs)]:
            for stress in (False, True):
                assert_same(ours(graph, stress=stress), exact(graph, stress=stress), graph.counts())

    def test_one_atom_has_its_reference_energy(self, engine, architecture, dtype, engine_of):
        ours = engine_of(engine, make_potential(architecture, dtype=dtype))
        for symbol, number in (("H", 1), ("C", 6), ("Si", 14)):
            result = ours(graph_from_atoms(Atoms(symbol), 4.0))
            assert result.energy.item() == pytest.approx(E0[number], abs=1e-9 if dtype == FLOAT64 else ENERGY)
            assert not result.forces.any()

    def test_a_cell_of_one_atom(self, engine, architecture, dtype, engine_of):
        atoms = Atoms("Si", cell=[[0.0, 2.2, 2.1], [2.0, 0.0, 2.2], [2.3, 2.2, 0.0]], pbc=True)
        graph = graph_from_atoms(atoms, 4.0)
        exact = EagerEngine(make_potential(architecture))(graph, stress=True)
        assert_same(engine_of(engine, make_potential(architecture, dtype=dtype))(graph, stress=True), exact, 1)

    def test_sizes_that_grow_and_shrink(self, engine, architecture, dtype, engine_of):
        exact = EagerEngine(make_potential(architecture))
        ours = engine_of(engine, make_potential(architecture, dtype=dtype))
        results = []
        for repeat in (4, 1, 3, 1, 2, 4):
            graph = graph_from_atoms(make_structure("slab") * (repeat, 1, 1), 4.0)
            reference = exact(graph)
            results.append((ours(graph), reference))
            energy_only = ours(graph, forces=False)
            assert energy_only.forces is None and energy_only.stress is None
            assert abs(energy_only.energy - reference.energy) / graph.n_atoms < ENERGY
        # Only now, so that a result that lies in a buffer of the engine and is overwritten shows.
        for result, reference in results:
            assert_same(result, reference, len(reference.energies))

    def test_energy_is_conserved_alike(self, engine, architecture, dtype, engine_of, tmp_path):
        potential = make_potential(architecture, dtype=dtype)
        energies = _dynamics(potential, engine_of(engine, potential), tmp_path)
        reference = _dynamics(make_potential(architecture), EagerEngine(make_potential(architecture)), tmp_path)
        assert np.ptp(reference) < 1e-2
        assert np.abs(energies - reference).max() < (1e-8 if dtype == FLOAT64 else 2e-4)

    def test_copies_work_on_their_own(self, engine, architecture, dtype, engine_of):
        ours = engine_of(engine, make_potential(architecture, dtype=dtype))
        graph = graph_from_atoms(make_structure("molecule"), 4.0)
        copied = copy.deepcopy(ours)
        assert type(copied) is type(ours)
        assert torch.equal(copied(graph).forces, ours(graph).forces)


def _dynamics(potential, engine, folder):
    atoms = make_structure("crystal") * (2, 1, 1)
    name = str(potential.dtype).removeprefix("torch.")
    atoms.calc = PIWSLCalculator(LoadedModel(potential, {"name": "test"}, folder / "test.pt"), dtype=name)
    atoms.calc.engine = engine
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    energies = []
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(60)
    return np.array(energies)


def test_padded_engine_moves_only_positions_while_the_list_is_the_same(monkeypatch):
    from dataclasses import replace

    from asecalc_mlip.engine import cuda_graph

    potential = make_potential("painn")
    engine, exact = CudaGraphEngine(potential, capture=False), EagerEngine(potential)
    graph = graph_from_atoms(make_structure("slab"), 4.0)
    engine(graph)
    padded = []
    monkeypatch.setattr(cuda_graph, "pad_graph", lambda *args, **options: padded.append(args))
    for step in range(3):
        graph = replace(graph, positions=graph.positions + 0.01 * step * torch.randn_like(graph.positions))
        assert_same(engine(graph), exact(graph), graph.n_atoms)
    assert not padded


def test_padded_engine_keeps_few_sizes():
    from asecalc_mlip.engine.cuda_graph import MOST_BUCKETS

    potential = make_potential("schnet")
    engine, exact = CudaGraphEngine(potential, capture=False), EagerEngine(potential)
    for repeat in (1, 2, 4, 8, 16, 1, 8):
        graph = graph_from_atoms(make_structure("slab") * (repeat, 1, 1), 4.0)
        assert_same(engine(graph), exact(graph), graph.n_atoms)
        assert len(engine._buckets) <= MOST_BUCKETS


def test_a_capture_that_fails_or_is_wrong_leaves_the_eager_engine(monkeypatch):
    from asecalc_mlip.engine import cuda_graph

    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    potential = make_potential("painn")

    def fails(evaluate, device):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    def wrong(evaluate, device):
        output = evaluate()
        return lambda: type(output)(output.energy, output.energies + 1.0, output.forces)

    for captured, reason in ((fails, "not permitted"), (wrong, "its results differ")):
        monkeypatch.setattr(cuda_graph, "_captured", captured)
        engine = CudaGraphEngine(potential)
        reference = EagerEngine(potential)(graph)
        # The first time a size is seen it runs eagerly: it may not come again.
        assert torch.equal(engine(graph).forces, reference.forces)
        with pytest.warns(UserWarning, match=reason) as warned:
            for _ in range(3):
                assert torch.equal(engine(graph).forces, reference.forces)
        assert len(warned) == 1
        assert engine.describe().startswith("eager")


@pytest.mark.parametrize(
    ("compile", "expected"),
    [("auto", NativeEngine), (False, NativeEngine), ("native", NativeEngine), ("eager", EagerEngine)],
)
def test_who_runs(compile, expected):
    potential = make_potential("painn", dtype=FLOAT32)
    if expected is NativeEngine and not NativeEngine.serves(potential):
        pytest.skip("the native library was not built")
    assert type(make_engine(potential, compile)) is expected


def test_auto_takes_a_program_that_is_there_where_native_does_not_serve(with_program, monkeypatch):
    from asecalc_mlip.kernels import library

    potential = with_program(make_potential("painn"))
    monkeypatch.setattr(library, "native_library", lambda: None)
    assert type(make_engine(potential)) is CompiledEngine
    assert type(make_engine(potential, False)) is EagerEngine
    # With native messages the eager engine is faster for large structures.
    monkeypatch.setattr(library, "native_library", lambda: "library without this kernel")
    assert type(make_engine(potential)) is EagerEngine
    monkeypatch.setattr(library, "native_library", lambda: None)
    monkeypatch.setenv("ASECALC_CACHE", "/nowhere")
    assert type(make_engine(potential)) is EagerEngine


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": "fast"}, "allowed: 'auto', True, False, 'eager', 'native', 'compiled', 'cuda-graph', 'triton'"),
        ({"compile": "cuda-graph"}, "it runs on a GPU, and the model is on cpu. Can: eager"),
        ({"precision": "bf16"}, "on cpu, where it gains nothing"),
        ({"precision": "tf32"}, "on cpu, where it gains nothing"),
        ({"precision": "half"}, "allowed: float32, tf32, bf16"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_engine(make_potential("schnet"), **options)


def test_native_says_why_it_does_not_serve():
    for options, reason in (({"dtype": FLOAT64}, "no kernel for schnet in float64"), ({"n_features": 20}, "multiple")):
        with pytest.raises(InputError, match=reason):
            make_engine(make_potential("schnet", **{"dtype": FLOAT32, **options}), "native")


def test_direct_forces_run_eagerly():
    potential = make_potential("painn", dtype=FLOAT32, direct_forces=True)
    assert type(make_engine(potential)) is EagerEngine
    for compile in (True, "native", "compiled"):
        with pytest.raises(InputError, match="Can: eager$"):
            make_engine(potential, compile)


def test_arithmetic_leaves_no_global_state():
    from asecalc_mlip.engine.precision import arithmetic

    matmul, device = torch.backends.cuda.matmul, torch.device("cpu")
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    with pytest.raises(KeyError), arithmetic("tf32", device):
        assert getattr(matmul, name) in ("tf32", True)
        raise KeyError
    assert getattr(matmul, name) == before
    with arithmetic("bf16", device):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_results_come_in_one_copy():
    from asecalc_mlip.engine.transfer import _by_one_copy

    graph = graph_from_atoms([make_structure("crystal"), make_structure("skewed")], 4.0)
    for options in ({"forces": False}, {"stress": False}, {"stress": True}):
        prediction = EagerEngine(make_potential("painn"))(graph, **options)
        fetched = _by_one_copy(prediction)
        for name, value in vars(prediction).items():
            other = getattr(fetched, name)
            assert other is None if value is None else torch.equal(other, value) and other.shape == value.shape


@gpu
@needs_gpu
@pytest.mark.parametrize("architecture", [*MODELS, "tensornet", "sum"])
def test_cuda_graphs(architecture):
    exact = EagerEngine(make_potential(architecture))
    ours = CudaGraphEngine(make_potential(architecture, dtype=FLOAT32).to("cuda"))
    for structure in STRUCTURES * 3:
        graph = graph_from_atoms(make_structure(structure), 4.0)
        result, reference = ours(graph.to("cuda"), stress=True), exact(graph, stress=True)
        assert (result.forces.cpu() - reference.forces).abs().max() < FORCES
        assert ((result.energy.cpu() - reference.energy).abs() / graph.n_atoms).max() < ENERGY
    assert ours._buckets and not ours._broken


@pytest.mark.parametrize("architecture", [*PHYSICAL, *DIRECTS])
def test_products_of_few_digits_go_through_every_model(architecture):
    """Sums take what bf16 products give, whose dtype is another; a GPU casts the same operations as the CPU here."""
    potential = make_potential(architecture, dtype=FLOAT32)
    graph = graph_from_atoms(make_structure("molecule" if architecture in DIRECTS else "crystal"), potential.cutoff)
    reference = EagerEngine(potential)(graph).forces
    with plain_kernels(), torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        forces = EagerEngine(potential.train().eval())(graph).forces
    assert (forces - reference).norm() < 0.1 * reference.norm()


@gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_fewer_digits_on_a_gpu(precision):
    potential = make_potential("painn", dtype=FLOAT32)
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    reference = EagerEngine(potential)(graph).forces
    engine = make_engine(make_potential("painn", dtype=FLOAT32).to("cuda"), precision=precision)
    for _ in range(3):
        forces = engine(graph.to("cuda")).forces.cpu()
        assert (forces - reference).abs().max() < 0.05 * reference.abs().max()
