"""Operations of trainings by Triton: outputs, first and second derivatives, against the native kernels and autograd."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from ase import Atoms

from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import gpu, native, painn_message, plain_kernels, schnet_message, triton_kernels
from asecalc_mlip.kernels.backend import Backend
from asecalc_mlip.kernels.tensor import knots_message
from asecalc_mlip.kernels.triton.blocks import Blocks
from asecalc_mlip.kernels.triton.examples import EXAMPLES, compare, derivatives, example
from asecalc_mlip.models import predict, tensornet
from asecalc_mlip.models.knots import knots_for
from tests.cases import make_potential
from tests.kernels.triton.operations import OPERATIONS
from tests.triton_interpreter import ON_GPU

FLOAT64, FLOAT32 = torch.float64, torch.float32
# What a sum over some edges loses, relative to the largest number.
CLOSE = {FLOAT32: 3e-5, FLOAT64: 1e-10}
ON_EDGES = [name for name, (inputs, _) in EXAMPLES.items() if "E" in inputs]


@pytest.fixture
def launch():
    from asecalc_mlip.kernels.triton import launch

    return launch


@pytest.fixture
def blocks(launch, monkeypatch):
    """Function that sets the size of programs; on a GPU it stays, where compiling takes longer than running."""

    def set_to(edges, channels, block=128):
        if not ON_GPU:
            monkeypatch.setattr(launch, "BLOCKS", Blocks(edges=edges, channels=channels))
            monkeypatch.setattr(launch, "_BLOCK", block)

    return set_to


def assert_as_native(launch, name, dtype, device, **sizes):
    """As plain torch, where the native library has no such operation."""
    operation = OPERATIONS[name]
    inputs, shapes, ends = example(name, dtype=dtype, device=device, **sizes)
    on_cpu = [tensor.detach().cpu().requires_grad_() for tensor in inputs]
    ours = derivatives(inputs, operation.by(launch.TRITON, inputs, shapes, *ends))
    if not native.has(name):
        outputs = operation.plain(*on_cpu, *(end.cpu() for end in ends))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    else:
        outputs = operation.by(native.NATIVE, on_cpu, shapes, *(end.cpu() for end in ends))
    for found, right in zip(ours, derivatives(on_cpu, outputs), strict=True):
        assert found.shape == right.shape
        if right.numel():
            assert (found.cpu() - right).abs().max() <= CLOSE[dtype] * right.abs().max()


def test_every_operation_is_there(launch):
    assert set(OPERATIONS) == set(EXAMPLES) == set(launch._OPERATIONS)
    assert launch.has("painn") and not launch.has("nothing")


@pytest.mark.parametrize("name", EXAMPLES)
def test_odd_widths_and_empty_rows_as_native(name, launch, blocks, device):
    """Seventeen channels are two blocks; atom 3 is no centre, and nobody hears it; other rows have five edges or so."""
    blocks(edges=4, channels=16)
    assert_as_native(launch, name, FLOAT64, device, atoms=4, edges=15, features=17)


@pytest.mark.parametrize("name", ["painn", "spread", "bound"])
def test_float32(name, launch, device):
    assert_as_native(launch, name, FLOAT32, device, atoms=3, edges=15, features=32)


@pytest.mark.parametrize("name", ON_EDGES)
@pytest.mark.parametrize(("atoms", "edges"), [(1, 3), (2, 0)])
def test_one_atom_and_no_edges(name, atoms, edges, launch, device):
    assert_as_native(launch, name, FLOAT64, device, atoms=atoms, edges=edges, features=5)


@pytest.mark.parametrize("name", ON_EDGES)
def test_thousands_of_edges_in_a_row(name, launch, blocks, device):
    """A program of the interpreter takes a thousand at a time."""
    blocks(edges=1024, channels=16)
    assert_as_native(launch, name, FLOAT64, device, atoms=1, edges=2500, features=3, nodes=6)


@pytest.mark.parametrize("name", EXAMPLES)
def test_derivatives_by_finite_differences(name, launch, device):
    operation = OPERATIONS[name]
    inputs, shapes, ends = example(name, dtype=FLOAT64, device=device, atoms=2, edges=3, features=2, nodes=6)
    function = lambda *tensors: operation.by(launch.TRITON, tensors, shapes, *ends)  # noqa: E731
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_strided_inputs(launch, device):
    inputs, shapes, ends = example("schnet", dtype=FLOAT64, device=device, atoms=2, edges=3, features=2)
    strided = [tensor.T.contiguous().T for tensor in inputs]
    assert not strided[0].is_contiguous()
    (found,) = OPERATIONS["schnet"].by(launch.TRITON, strided, shapes, *ends)
    assert torch.equal(found, OPERATIONS["schnet"].by(launch.TRITON, inputs, shapes, *ends)[0])


@pytest.mark.parametrize("architecture", ["painn", "schnet", "tensornet"])
def test_a_training_step_as_with_native_kernels(architecture, launch, blocks, monkeypatch, device):
    """Loss of energies and forces of a batch, and its gradient by all weights; TensorNet's filters from knots."""
    blocks(edges=64, channels=64, block=1024)
    monkeypatch.setattr(tensornet, "knots_for", lambda distances, cutoff, *_: knots_for(distances, cutoff, 6))
    sizes = {"n_features": 17, "n_interactions": 2 if architecture == "painn" else 1}
    potential = make_potential(architecture, trainable=True, **sizes).train()
    structures = (
        Atoms("OCH", [[0.0, 0.0, 0.0], [1.1, 0.3, 0.2], [-0.4, 0.9, -0.5]]),
        Atoms("OH", [[0, 0, 0], [0, 0, 1]]),
    )
    graph = batch_graphs([graph_from_atoms(atoms, 4.0) for atoms in structures])

    def step(potential, graph):
        result = predict(potential, graph, create_graph=True)
        loss = result.energy.square().mean() + result.forces.square().mean()
        return [loss, *torch.autograd.grad(loss, list(potential.parameters()), allow_unused=True)]

    expected = step(potential, graph)
    monkeypatch.setattr(gpu, "_compared", lambda operation, *_: launch.TRITON if launch.has(operation.name) else None)
    with triton_kernels():
        found = step(copy.deepcopy(potential).to(device), graph.to(device))
    for ours, right in zip(found, expected, strict=True):
        assert (ours is None) == (right is None)
        if right is not None:
            assert (ours.cpu() - right).abs().max() <= 1e-10 * right.abs().max() + 1e-14


class TestOnAGpu:
    """Which kernels a tensor on a GPU takes; the interpreter stands for it."""

    @pytest.fixture(autouse=True)
    def anew(self, monkeypatch):
        monkeypatch.setattr(gpu, "_failed", [])
        gpu._compared.cache_clear()
        yield
        gpu._compared.cache_clear()

    def test_they_are_compared_once_and_taken(self, launch, device, monkeypatch):
        from asecalc_mlip.kernels.triton import examples

        calls = []
        monkeypatch.setattr(examples, "compare", lambda operation, *more: calls.append(operation.name))
        inputs, _, ends = example("schnet", dtype=FLOAT64, device=device, atoms=2, edges=3, features=2)
        with triton_kernels():
            for _ in range(2):
                made = schnet_message(*inputs, *ends)
        assert calls == ["schnet"] and "Backward" in type(made.grad_fn).__name__
        with plain_kernels():
            assert torch.allclose(schnet_message(*inputs, *ends), made)

    @pytest.mark.parametrize("fails", ["a wrong kernel", "no compiler", "no triton"])
    def test_else_plain_torch_and_one_warning(self, fails, launch, device, monkeypatch):
        def run(name, order, call):
            if fails == "no compiler":
                raise RuntimeError("Failed to find C compiler.\nmore")
            for tensor in (*call.outputs, call.sums):
                if tensor is not None:
                    tensor.fill_(1.0)

        if fails == "no triton":
            monkeypatch.setitem(__import__("sys").modules, "asecalc_mlip.kernels.triton.launch", None)
        monkeypatch.setattr(launch, "TRITON", Backend(adds=False, run=run))
        inputs, _, ends = example("painn", dtype=FLOAT32, device=device, atoms=2, edges=3, features=2)
        reason = {"a wrong kernel": "painn differs", "no compiler": "C compiler.\\)", "no triton": "import of"}[fails]
        with triton_kernels(), pytest.warns(UserWarning, match=f"cannot be used .*{reason}.*plain torch") as warned:
            found = [painn_message(*inputs, *ends) for _ in range(2)]
            others, _, _ = example("schnet", dtype=FLOAT64, device=device, atoms=2, edges=3, features=2)
            schnet_message(*others, *ends)
        assert len(warned) == 1
        with plain_kernels():
            assert torch.equal(found[1][0], painn_message(*inputs, *ends)[0])

    def test_mixed_and_half_precision_go_by_plain_torch(self, device):
        inputs, _, ends = example("schnet", dtype=FLOAT32, device=device, atoms=2, edges=3, features=2)
        with triton_kernels(), warnings.catch_warnings():
            warnings.simplefilter("error")
            for given in ([inputs[0].bfloat16(), inputs[1].bfloat16()], [inputs[0], inputs[1].double()]):
                assert "_Forward" not in type(schnet_message(*given, *ends).grad_fn).__name__


def test_the_comparison_sees_a_wrong_second_derivative(launch, device):
    def run(name, order, call):
        launch.TRITON.run(name, order, call)
        if order == "second":
            call.outputs[-1].mul_(1.01)

    compare(OPERATIONS["squares"], launch.TRITON, device, FLOAT32)
    with pytest.raises(RuntimeError, match=r"squares differs from plain torch by \d\.\de-0"):
        compare(OPERATIONS["squares"], Backend(adds=False, run=run), device, FLOAT32)


def test_rows_are_found_once_and_anew_where_the_list_changes(device):
    from asecalc_mlip.kernels.triton.rows import rows_of

    ends = torch.tensor([2, 0, 2, 0, 2], device=device)
    rows = rows_of(ends, 4)
    assert rows.starts.tolist() == [0, 2, 2, 5, 5] and rows.order.tolist() == [1, 3, 0, 2, 4]
    assert rows_of(ends, 4) is rows and rows_of(ends, 3) is not rows
    ends[0] = 1
    assert rows_of(ends, 4).starts.tolist() == [0, 2, 3, 5, 5]


@pytest.mark.parametrize("is_sorted", [False, True])
def test_rows_do_not_keep_their_list_alive(is_sorted, device):
    from asecalc_mlip.kernels.triton.rows import rows_of

    ends = torch.tensor([0, 0, 1], device=device)
    rows_of(ends, 2, is_sorted=is_sorted)
    alive = weakref.ref(ends)
    del ends
    gc.collect()
    assert alive() is None


def test_rows_of_an_inference_tensor_are_always_of_what_it_holds(device):
    from asecalc_mlip.kernels.triton.rows import rows_of

    with torch.inference_mode():
        ends = torch.tensor([2, 0, 2], device=device)
        assert rows_of(ends, 3).starts.tolist() == [0, 1, 1, 3]
        ends[0] = 1
        assert rows_of(ends, 3).starts.tolist() == [0, 1, 2, 3]


def test_messages_by_knots_find_rows_once(launch, device, monkeypatch):
    """Those of centres, neighbours and first knots, for all blocks of a network."""
    from asecalc_mlip.kernels.triton import rows

    found, find = [], rows._found
    monkeypatch.setattr(rows, "_found", lambda *given: (found.append(given), find(*given))[1])
    monkeypatch.setattr(gpu, "_compared", lambda operation, *_: launch.TRITON if launch.has(operation.name) else None)
    make = lambda *shape: torch.rand(*shape, dtype=FLOAT64, device=device, requires_grad=True)  # noqa: E731
    place, table, y = make(3), make(7, 6), make(2, 9, 2)
    centers, neighbors, start = (torch.tensor(ends, device=device) for ends in ([0, 0, 1], [1, 0, 0], [1, 0, 1]))
    with triton_kernels():
        for _ in range(2):
            knots_message(place, start, table, y, centers, neighbors).sum().backward()
    assert len(found) == 3
