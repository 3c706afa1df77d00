"""Native message passing against plain torch and against finite differences, first and second derivative."""

from dataclasses import replace

import pytest
import torch

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native_library, painn_message, plain_kernels, schnet_message
from tests.cases import make_potential, make_structure
from tests.kernels.plain import assert_as_plain

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native kernels were not built")


def inputs(with_mu, dtype=torch.float64, n=5, e=14, f=3):
    torch.manual_seed(0)
    parts = 3 if with_mu else 2
    make = lambda *shape: torch.randn(*shape, dtype=dtype, requires_grad=True)  # noqa: E731
    centers, neighbors = torch.sort(torch.randint(0, n, (e,)))[0], torch.randint(0, n, (e,))
    tensors = (make(e, parts * f), make(e, 3), make(n, parts * f)) + ((make(n, 3, f),) if with_mu else ())
    return tensors, centers, neighbors


def call(tensors, centers, neighbors):
    mu = tensors[3] if len(tensors) == 4 else None
    return painn_message(*tensors[:3], mu, centers, neighbors)


@pytest.mark.parametrize("with_mu", [True, False])
def test_painn_derivatives(with_mu):
    tensors, centers, neighbors = inputs(with_mu)
    function = lambda *t: call(t, centers, neighbors)  # noqa: E731
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_schnet_derivatives():
    (w, _, x), centers, neighbors = inputs(False)
    function = lambda w, x: schnet_message(w, x, centers, neighbors)  # noqa: E731
    assert torch.autograd.gradcheck(function, (w, x))
    assert torch.autograd.gradgradcheck(function, (w, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("f", "threads"), [(1, 1), (7, 2), (16, 1), (65, 1), (65, 3), (128, 2)])
@pytest.mark.parametrize("kind", ["painn", "painn first", "schnet"])
def test_same_as_plain_on_any_number_of_threads(kind, f, threads, dtype):
    (w, *more), centers, neighbors = inputs(kind == "painn", dtype, n=200, e=1000, f=f)
    tensors = (w, *more) if kind != "schnet" else (w, more[1])

    def results():
        if kind == "schnet":
            outputs = (schnet_message(*tensors, centers, neighbors),)
        else:
            outputs = call(tensors, centers, neighbors)
        # Weights of the force loss see the second derivative of all outputs through all inputs.
        first = torch.autograd.grad(sum((out * out.cos()).sum() for out in outputs), tensors, create_graph=True)
        return [*outputs, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), tensors)]

    assert_as_plain(results, threads, dtype)


def test_no_edges_and_strided_inputs():
    tensors, centers, neighbors = inputs(True)
    none = torch.empty(0, dtype=torch.int64)
    empty = (tensors[0][:0], tensors[1][:0], tensors[2], tensors[3])
    q, mu = call(empty, none, none)
    assert not q.any() and not mu.any()
    strided = (tensors[0].T.contiguous().T, *tensors[1:])
    assert torch.equal(call(strided, centers, neighbors)[1], call(tensors, centers, neighbors)[1])


def test_a_third_derivative_is_refused_and_plain_torch_has_it():
    """Torch's own guard is not seen by `hvp`, which then is wrong without an error."""
    potential = make_potential("painn")
    graph = graph_from_atoms(make_structure("molecule"), 4.5)
    v = torch.rand_like(graph.positions)

    def energy(positions):
        return potential(replace(graph, positions=positions, reach=None).within(4.0)).sum()

    with pytest.raises(RuntimeError, match="plain_kernels"):
        torch.autograd.functional.hvp(energy, graph.positions, v)
    with plain_kernels():
        forward = torch.autograd.functional.hvp(energy, graph.positions, v)[1]
    assert torch.allclose(forward, torch.autograd.functional.vhp(energy, graph.positions, v)[1], atol=1e-10)
