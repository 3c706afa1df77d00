"""Networks through the fused kernels against the native engine and float64 eager: energies, forces, stress."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase import Atoms
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode

from asecalc_mlip.engine import CudaGraphEngine, EagerEngine, NativeEngine, TritonEngine, make_engine
from asecalc_mlip.engine.padding import pad_graph
from asecalc_mlip.engine.triton.engine import _SERVED, FusedEngine
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels.triton.blocks import Blocks
from benchmarks.speed.gpu_floor import MODELS
from tests.cases import E0, make_potential
from tests.engine.test_capture import WAITS
from tests.triton_interpreter import ON_GPU

FLOAT64, FLOAT32 = torch.float64, torch.float32
ARCHITECTURES = ["painn", "schnet", "tensornet"]
# Forces in float32 from those of the native engine, which itself is up to 2.2e-6 from float64: a number of its tables
# is off by 6e-8, and its slope by as much times the number of nodes within 1 Å.
CLOSE = {FLOAT32: 3e-6, FLOAT64: 1e-10}
ROOT = Path(__file__).resolve().parents[3]
# On a GPU those of the engine, as compiling takes longer than running: of 512 edges, minutes.
SMALL = Blocks() if ON_GPU else Blocks(edges=4, channels=16)
LARGE = Blocks() if ON_GPU else Blocks(edges=512, channels=16)
CUTOFF = 4.0


@pytest.fixture(scope="module")
def fused(device):
    """Function that makes the fused engine of a potential, each once, with small programs so that rows need several."""
    made = {}

    def make(architecture, dtype, blocks=SMALL, **changes):
        key = (architecture, dtype, blocks, *changes.items())
        if key not in made:
            potential = make_potential(architecture, dtype=dtype, **changes).to(device)
            made[key] = FusedEngine(potential, blocks=blocks)
        return made[key]

    return make


@pytest.fixture(scope="module")
def graph():
    """Three atoms within reach, one of them twice, one far away, and one alone: rows of 3, 2, 2, 1, 0 and 0 edges."""
    near = Atoms("OCHH", [[0.0, 0.0, 0.0], [1.1, 0.3, 0.2], [-0.4, 0.9, -0.5], [4.2, 1.5, 0.8]])
    return batch_graphs([graph_from_atoms(atoms, CUTOFF) for atoms in (near, Atoms("Si"))])


def difference(ours, reference, graph):
    """Largest of the error of the energy in eV per atom, and the relative ones of forces and stress."""
    found = [((ours.energy.cpu() - reference.energy).abs() / graph.counts()).max().item()]
    for name in ("forces", "stress"):
        expected = getattr(reference, name)
        if expected is not None:
            expected = expected.nan_to_num()
            assert expected.norm() > 1e-3
            found.append(((getattr(ours, name).cpu().nan_to_num() - expected).norm() / expected.norm()).item())
    return max(found)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestEveryArchitecture:
    def test_as_the_native_engine(self, architecture, dtype, fused, graph, device):
        native = NativeEngine if NativeEngine.serves(make_potential(architecture, dtype=dtype)) else EagerEngine
        reference = native(make_potential(architecture, dtype=dtype))(graph)
        assert difference(fused(architecture, dtype)(graph.to(device)), reference, graph) < CLOSE[dtype]

    def test_an_atom_without_neighbours_has_its_reference_energy(self, architecture, dtype, fused, device):
        for symbol, number in (("H", 1), ("Si", 14)):
            result = fused(architecture, dtype)(graph_from_atoms(Atoms(symbol), CUTOFF).to(device))
            assert result.energy.item() == pytest.approx(E0[number], abs=1e-9 if dtype == FLOAT64 else 1e-6)
            assert not result.forces.any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestInFloat32:
    def test_as_close_to_float64_as_rounding_lets(self, architecture, fused, graph, device):
        """Plain torch in float32 is 0.2e-6 to 1.5e-6 away; slopes from differences of a table lose nothing more."""
        exact = EagerEngine(make_potential(architecture, dtype=FLOAT32).double())(graph)
        assert difference(fused(architecture, FLOAT32)(graph.to(device)), exact, graph) < 1e-6

    def test_odd_widths(self, architecture, fused, graph, device):
        """Seventeen channels are two blocks of sixteen, the second nearly empty."""
        reference = EagerEngine(make_potential(architecture, n_features=17))(graph)
        assert difference(fused(architecture, FLOAT32, n_features=17)(graph.to(device)), reference, graph) < 8e-6

    def test_forces_and_stress_of_a_cell_smaller_than_the_cutoff(self, architecture, fused, device):
        atoms = Atoms(
            "SiO", [[0.1, 0.0, 0.2], [2.0, 2.3, 1.9]], cell=[[3.9, 0.3, 0], [0, 4.1, 0.4], [0, 0, 4.2]], pbc=True
        )
        graph = graph_from_atoms(atoms, CUTOFF)
        reference = EagerEngine(make_potential(architecture))(graph, stress=True)
        ours = fused(architecture, FLOAT32, Blocks())(graph.to(device), stress=True)
        assert difference(ours, reference, graph) < 8e-6

    def test_edges_in_the_skin_change_nothing(self, architecture, fused, device):
        atoms = Atoms("OCH", [[0.0, 0.0, 0.0], [1.1, 0.3, 0.2], [4.2, 1.5, 0.8]])
        near, far = (graph_from_atoms(atoms, cutoff) for cutoff in (CUTOFF, CUTOFF + 1.0))
        assert far.n_edges > near.n_edges
        engine = fused(architecture, FLOAT32)
        assert torch.allclose(engine(far.to(device)).forces, engine(near.to(device)).forces, rtol=0.0, atol=1e-7)


def test_energies_alone(fused, graph, device):
    engine = fused("schnet", FLOAT32)
    alone = engine(graph.to(device), forces=False)
    whole = engine(graph.to(device))
    assert alone.forces is None and torch.allclose(alone.energies, whole.energies, rtol=0.0, atol=1e-6)


def test_padding_changes_nothing(fused, graph, device):
    engine = fused("painn", FLOAT32)
    padded = pad_graph(graph, graph.n_atoms + 2, graph.n_edges + 5, far=2.0 * CUTOFF)
    ours, reference = engine(padded.to(device)).forces, engine(graph.to(device)).forces
    assert torch.allclose(ours[: graph.n_atoms], reference, rtol=0.0, atol=1e-6)
    assert not ours[graph.n_atoms :].any()


def test_a_cuda_graph_has_the_fused_network_inside(graph):
    class Twice(torch.nn.Module):
        def forward(self, graph):
            return 2.0 * plain.potential.network(graph)

    plain = EagerEngine(make_potential("schnet"))
    engine = CudaGraphEngine(plain.potential, capture=False, network=Twice(), plain=plain)
    found = engine._evaluate(pad_graph(graph, graph.n_atoms + 2, graph.n_edges + 5, far=2.0 * CUTOFF), True, False)
    assert torch.allclose(found.forces[: graph.n_atoms], 2.0 * plain(graph).forces)
    # Its results are compared with those of the engine that it stands for.
    with pytest.warns(UserWarning, match="its results differ"):
        assert torch.equal(engine(graph).forces, plain(graph).forces)


@pytest.mark.parametrize("changes", [{"messages": "own"}, {"group": "SO3"}])
def test_variants_of_tensornet(changes, fused, device):
    graph = graph_from_atoms(Atoms("OC", [[0.0, 0.0, 0.0], [1.1, 0.3, 0.2]]), CUTOFF)
    reference = EagerEngine(make_potential("tensornet", **changes))(graph)
    assert difference(fused("tensornet", FLOAT64, **changes)(graph.to(device)), reference, graph) < 1e-10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_thousands_of_edges_in_a_row(architecture, device):
    """One atom, and all its images within 8 Å, of which a program takes a few hundred at a time."""
    graph = graph_from_atoms(Atoms("Si", cell=[[1.0, 0.1, 0.0], [0.0, 1.1, 0.1], [0.1, 0.0, 0.9]], pbc=True), 8.0)
    assert graph.n_edges > 2000
    potential = make_potential(architecture, cutoff=8.0, n_features=4)
    engine = FusedEngine(potential.to(device), blocks=LARGE)
    ours = engine(graph.to(device), stress=True)
    reference = EagerEngine(make_potential(architecture, cutoff=8.0, n_features=4))(graph, stress=True)
    assert (ours.energy.cpu() - reference.energy).abs() < 1e-7 * (reference.energy - E0[14]).abs()
    assert (ours.stress.cpu() - reference.stress).norm() < 1e-7 * reference.stress.norm()


def test_a_sum_in_one_piece(fused, device):
    """A PaiNN, an EAM and a core of unlike cutoffs, of which the EAM has no kernels; two atoms feel the core."""
    graph = graph_from_atoms(Atoms("OCSi", [[0.0, 0.0, 0.0], [0.8, 0.3, 0.2], [0.0, 2.1, 0.0]]), 4.5)
    assert make_potential("sum").network.networks[2](graph).abs().max() > 0.1
    reference = EagerEngine(make_potential("sum"))(graph)
    assert difference(fused("sum", FLOAT64)(graph.to(device)), reference, graph) < 1e-10


def test_the_engine_serves_what_has_kernels():
    from asecalc_mlip.engine.triton.network import FUSED

    assert set(FUSED) == set(_SERVED)


def test_by_name_and_as_a_copy(graph, device):
    import copy

    engine = make_engine(make_potential("schnet", dtype=FLOAT32).to(device), "triton")
    assert type(engine) is TritonEngine and "fused schnet (Triton)" in engine.describe()
    assert engine.bytes_needed(100, 4000) > 1000 and not engine.holds_edges
    copied = copy.deepcopy(engine)(graph.to(device)).forces
    # On a GPU the last sum, of float64 forces over edges, is in no fixed order.
    assert torch.allclose(copied, engine(graph.to(device)).forces, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("fails", ["when it is made", "when it is called"])
def test_a_kernel_that_fails_leaves_the_eager_engine_and_one_warning(fails, graph, device, monkeypatch):
    def raises(*args, **options):
        raise RuntimeError("Failed to find C compiler.\nmore")

    reference = EagerEngine(make_potential("schnet", dtype=FLOAT32).to(device))(graph.to(device))
    monkeypatch.setattr(FusedEngine, "__init__" if fails == "when it is made" else "__call__", raises)
    with pytest.warns(UserWarning, match=r"\(Failed to find C compiler.\). Runs instead: ") as warned:
        engine = make_engine(make_potential("schnet", dtype=FLOAT32).to(device), "triton")
        for _ in range(2):
            assert torch.allclose(engine(graph.to(device)).forces, reference.forces, rtol=0.0, atol=1e-5)
    assert len(warned) == 1
    assert engine.describe().startswith("eager" if device.type == "cpu" else "CUDA graphs")
    assert engine.bytes_needed(10, 100) > 0 and engine.holds_edges


def test_the_comparison_with_plain_torch_finds_a_wrong_kernel(device):
    from asecalc_mlip.engine.triton.engine import _compare

    engine = FusedEngine(make_potential("schnet", dtype=FLOAT32).to(device), blocks=Blocks())
    _compare(engine)
    engine.network.tables[1].mul_(1.1)
    with pytest.raises(RuntimeError, match="differ from those of plain torch"):
        _compare(engine)


@pytest.mark.parametrize(("architecture", "name"), [("painn", "triton"), ("sum", "triton"), ("cgcnn", "cuda-graph")])
def test_a_gpu_takes_the_fused_kernels(architecture, name):
    """No GPU is needed to choose."""
    from types import SimpleNamespace

    from asecalc_mlip.engine.choose import _fastest

    network = make_potential(architecture).network
    device = torch.device("cuda", 0)
    facts = {"network": network, "architecture": architecture, "direct_forces": False, "dtype": FLOAT32}
    model = SimpleNamespace(e0=SimpleNamespace(device=device), **facts)
    assert _fastest(model) == name


def test_without_an_interpreter_the_cpu_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert TritonEngine.why_not(make_potential("painn")) == "it runs on a GPU, and the model is on cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "force head" in TritonEngine.why_not(make_potential("painn-direct"))
    assert "no kernel for cgcnn" in TritonEngine.why_not(make_potential("cgcnn"))


@pytest.mark.skipif(ON_GPU, reason="here the other tests compile them")
def test_every_kernel_compiles_for_an_h100():
    """Without a GPU, as engine and trainings call it: no atomic additions, and all numbers in registers."""
    from asecalc_mlip.engine.triton import algebra, convolve, core, mixing, splines, tensors
    from asecalc_mlip.kernels.triton import atoms, convolutions, tables
    from asecalc_mlip.kernels.triton import tensors as training_tensors

    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.engine.triton.compile_all", "float32", "128"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
    assert found.returncode == 0, found.stderr
    lines = [line.split() for line in found.stdout.splitlines()]
    files = (algebra, convolve, core, mixing, splines, tensors, atoms, convolutions, tables, training_tensors)
    kernels = {name for file in files for name in file.__all__}
    helpers = {"interpolate", "interpolate_slopes", "slopes_alone", "spline_slopes", "spline_values"}
    assert {name for _, name, *_ in lines} == kernels - helpers
    for *name, registers, spilled, _, _, _ in lines:
        assert int(registers) <= 232 and int(spilled) == 0, name
    # What the table of least times takes of each kernel.
    seen = {}
    for owner, name, *constants, work, read, streamed in lines:
        if owner == "engine":
            of = constants[:1] if name.startswith(("convolve", "combine")) else []
            seen.setdefault(" ".join([name, *of]), set()).add((int(work), int(read), int(streamed)))
    kernels = [kernel for model in MODELS.values() for kernel in (*model.kernels, *model.on_atoms)]
    for kernel in kernels:
        if not kernel.name.startswith(("locate", "sum")):
            counts = (kernel.work, kernel.table + kernel.gathered, kernel.streamed if kernel.work == 0 else 0)
            assert counts in seen[kernel.name], f"{kernel.name}: {counts} in the table, {seen[kernel.name]} compiled"


class _Waits(TorchDispatchMode):
    """Refuses what the host waits for on a GPU, and tensors that are made of its numbers."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not any(name in str(function) for name in WAITS), f"the host waits for {function}"
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(ON_GPU, reason="the engine looks at it there")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_waits_between_the_kernels(fused, graph, architecture, monkeypatch):
    """As a capture asks for; what the interpreter does in a kernel is not seen."""
    from triton.runtime.interpreter import GridExecutor

    launch, engine = GridExecutor.__call__, fused(architecture, FLOAT32)

    def unseen(*given, **options):
        with _disable_current_modes():
            return launch(*given, **options)

    monkeypatch.setattr(GridExecutor, "__call__", unseen)
    with _Waits():
        found = engine(graph)
    assert found.forces is not None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_are_those_of_the_table_of_least_times(fused, graph, architecture):
    engine = fused(architecture, FLOAT32, **({} if architecture == "tensornet" else {"n_interactions": 3}))
    F, there = engine.potential.network.n_features, graph.to(next(engine.network.buffers()).device)
    with FlopCounterMode(display=False) as counter:
        engine(there)
    found = counter.get_total_flops() / (2 * graph.n_atoms * F**2)
    # What makes or takes single numbers is a small multiple of 1/F.
    expected = next(model.products for title, model in MODELS.items() if title.lower().startswith(architecture))
    assert expected < found <= expected + 4 / F
