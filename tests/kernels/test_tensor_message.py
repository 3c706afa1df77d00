"""TensorNet's operations against plain torch and finite differences; its filters on knots against those on edges."""

import pytest
import torch

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native_library
from asecalc_mlip.kernels.tensor import bounded, interpolate, spread_message, squares, tensor_message, tensor_product
from asecalc_mlip.models import predict, tensornet
from asecalc_mlip.models.knots import knots_for
from tests.cases import make_potential, make_structure
from tests.kernels.plain import assert_as_plain

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native kernels were not built")

NAMES = ["tensor", "own", "spread", "table", "bound", "squares", "symmetric", "product"]


def operations(dtype=torch.float64, n=5, e=14, f=3, nodes=11):
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=dtype, requires_grad=True)  # noqa: E731
    centers, neighbors = torch.sort(torch.randint(0, n, (e,)))[0], torch.randint(0, n, (e,))
    start = torch.randint(0, nodes - 5, (e,))
    return {
        "tensor": (lambda w, y: tensor_message(w, y, centers, neighbors), (make(e, 3 * f), make(n, 9, f))),
        "own": (lambda w, y: tensor_message(w, y, centers, centers), (make(e, 3 * f), make(n, 9, f))),
        "spread": (
            lambda *tensors: spread_message(*tensors, centers, neighbors),
            (make(e, 3 * f), make(e, 9), make(n, f), make(n, f)),
        ),
        "bound": (bounded, (make(n, 9, f),)),
        "squares": (squares, (make(n, 9, f),)),
        "symmetric": (lambda a, b: tensor_product(a, b, symmetric=True), (make(n, 9, f), make(n, 9, f))),
        "product": (lambda a, b: tensor_product(a, b, symmetric=False), (make(n, 9, f), make(n, 9, f))),
        "table": (lambda c, t: interpolate(c, t, start), (make(e, 6), make(nodes, f))),
    }


@pytest.mark.parametrize("name", NAMES)
def test_derivatives(name):
    function, tensors = operations()[name]
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("f", "threads"), [(1, 1), (7, 2), (65, 1), (65, 3), (128, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_same_as_plain_on_any_number_of_threads(name, f, threads, dtype):
    function, tensors = operations(dtype, n=40, e=1000, f=f)[name]

    def results():
        out = function(*tensors)
        first = torch.autograd.grad((out * out.cos()).sum(), tensors, create_graph=True)
        return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), tensors)]

    assert_as_plain(results, threads, dtype)


@pytest.mark.parametrize("basis", ["expnorm", "gaussian", "bessel", "smooth_bessel"])
def test_knots_say_what_the_edges_say(basis, monkeypatch):
    """A training evaluates filters on knots where there are edges enough; energies, forces and their gradients stay."""
    potential = make_potential("tensornet", cutoff=4.5, n_rbf=16, radial_basis=basis, trainable=True).train()
    graph = graph_from_atoms(make_structure("slab") * (3, 3, 1), 4.5)
    assert knots_for(graph.vectors().norm(dim=1), 4.5) is not None

    def results():
        result = predict(potential, graph, create_graph=True)
        loss = result.forces.square().sum() + result.energy.sum()
        return [result.energies, result.forces, *torch.autograd.grad(loss, list(potential.parameters()))]

    knots = results()
    monkeypatch.setattr(tensornet, "knots_for", lambda distances, cutoff: None)
    for exact, found in zip(results(), knots, strict=True):
        # Some gradients are zero but for rounding.
        assert (exact - found).abs().max() <= 1e-6 * exact.abs().max() + 1e-9


def test_edges_in_the_skin_read_nothing_from_knots():
    distances = torch.linspace(1.0, 5.5, 1000, dtype=torch.float64).requires_grad_()
    knots = knots_for(distances, 5.0)
    values = knots.values((5.0 - knots.distances)[:, None] ** 3)
    assert (values[distances > 5.0].abs() < 1e-12).all()
    (slopes,) = torch.autograd.grad(values.sum(), distances)
    assert not slopes[distances > 5.0].any() and slopes[distances < 4.9].all()


def test_where_knots_are_not_used():
    few, close = torch.full((100,), 2.0), torch.full((5000,), 2.0)
    close[7] = 0.1
    assert knots_for(few, 5.0) is None and knots_for(close, 5.0) is None
    assert knots_for(torch.linspace(0.3, 5.0, 5000), 5.0) is not None


def test_polynomials_of_the_fifth_degree_are_exact():
    distances = torch.linspace(0.2, 5.0, 3000, dtype=torch.float64)
    knots = knots_for(distances, 5.0)
    powers = lambda r: r[:, None] ** torch.arange(6, dtype=r.dtype)  # noqa: E731
    assert torch.allclose(knots.values(powers(knots.distances)), powers(distances), rtol=1e-11)
