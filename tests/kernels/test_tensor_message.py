"""TensorNet's operations against plain torch and finite differences; its filters on knots against those on edges."""

import pytest
import torch

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native_library, plain_kernels
from asecalc_mlip.kernels import operations as operations_module
from asecalc_mlip.kernels.plain_tensor import lagrange
from asecalc_mlip.kernels.tensor import (
    combined,
    interpolate,
    knots_message,
    mixed,
    scaled,
    spread_knots_message,
    spread_message,
    squares,
    tensor_message,
    updated,
)
from asecalc_mlip.models import predict, tensornet
from asecalc_mlip.models.knots import knots_for
from asecalc_mlip.models.radial import ExpNormalBasis
from tests.cases import make_potential, make_structure
from tests.kernels.plain import assert_as_plain

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native kernels were not built")

NAMES = ["tensor", "own", "spread", "knots", "spread_knots", "squares", "mix"]
NAMES += ["scale", "scale_bound", "combine", "combine_turned", "update", "update_bound"]


def operations(dtype=torch.float64, n=5, e=14, f=3, nodes=11):
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=dtype, requires_grad=True)  # noqa: E731
    some = lambda: torch.randint(0, max(n, 1), (e,))  # noqa: E731
    centers, neighbors = torch.sort(some())[0], some()
    start = torch.randint(0, nodes - 5, (e,))
    make_directions = lambda: torch.nn.functional.normalize(make(e, 3).detach()).requires_grad_()  # noqa: E731
    make_place = lambda: (2 + torch.rand(e, dtype=dtype)).requires_grad_()  # noqa: E731
    return {
        "tensor": (lambda w, y: tensor_message(w, y, centers, neighbors), (make(e, 3 * f), make(n, 9, f))),
        "own": (lambda w, y: tensor_message(w, y, centers, centers), (make(e, 3 * f), make(n, 9, f))),
        "spread": (
            lambda *tensors: spread_message(*tensors, centers, neighbors),
            (make(e, 3 * f), make(e, 9), make(n, f), make(n, f)),
        ),
        "squares": (squares, (make(n, 9, f),)),
        "mix": (lambda x, *weights: mixed(x, weights), (make(n, 9, f), *(make(f + 2, f) for _ in range(3)))),
        "scale": (lambda v, q: scaled(v, q, bound=False), (make(n, 9, f), make(n, 3 * f))),
        "scale_bound": (lambda v, q: scaled(v, q, bound=True), (make(n, 9, f), make(n, 3 * f))),
        "combine": (lambda y, m: combined(y, m, symmetric=True), (make(n, 9, f), make(n, 9, f))),
        "combine_turned": (lambda y, m: combined(y, m, symmetric=False), (make(n, 9, f), make(n, 9, f))),
        "update": (lambda x, d: updated(x, d, bound=False), (make(n, 9, f), make(n, 9, f))),
        "update_bound": (lambda x, d: updated(x, d, bound=True), (make(n, 9, f), make(n, 9, f))),
        "knots": (
            lambda place, table, y: knots_message(place, start, table, y, centers, neighbors),
            (make_place(), make(nodes, 3 * f), make(n, 9, f)),
        ),
        "spread_knots": (
            lambda place, *tensors: spread_knots_message(place, start, *tensors, centers, neighbors),
            (make_place(), make(nodes, 3 * f), make_directions(), make(n, f), make(n, f)),
        ),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "sizes", "threads"), [(1, (16, 48), 1), (40, (128, 128), 3), (21, (48, 16), 2), (0, (16, 16), 2)]
)
def test_channels_are_mixed_as_plain(n, sizes, threads, dtype):
    """Whole registers go through the library, also an odd number of them, one atom and none."""
    torch.manual_seed(0)
    inputs, outputs = sizes
    x = torch.randn(n, 9, inputs, dtype=dtype, requires_grad=True)
    weights = [torch.randn(outputs, inputs, dtype=dtype, requires_grad=True) for _ in range(3)]

    def results():
        out = mixed(x, weights)
        first = torch.autograd.grad((out * out.cos()).sum(), [x, *weights], create_graph=True)
        return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), [x, *weights])]

    if n:
        assert_as_plain(results, threads, dtype)
    else:
        assert all(not result.any() for result in results())


@pytest.mark.parametrize("sizes", [((16, 16), (16, 16), (32, 16)), ((16, 8), (16, 8), (16, 8))])
def test_weights_that_do_not_fit_do_not_reach_the_library(sizes):
    """It would read past their end."""
    with pytest.raises(RuntimeError):
        mixed(torch.ones(2, 9, 16), [torch.ones(size) for size in sizes])


def test_the_library_takes_tensors_of_one_device():
    x = torch.ones(2)
    assert operations_module.native_takes((x, x)) and not operations_module.native_takes((x, x.to("meta")))


def test_derivatives_of_mixing_in_the_library():
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64, requires_grad=True)  # noqa: E731
    tensors = make(2, 9, 8), *(make(16, 8) for _ in range(3))
    assert torch.autograd.gradcheck(lambda x, *weights: mixed(x, weights), tensors)
    assert torch.autograd.gradgradcheck(lambda x, *weights: mixed(x, weights), tensors)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_atoms_without_neighbors_and_no_atoms(name, n):
    function, tensors = operations(n=n, e=0, f=16)[name]

    def results():
        out = function(*tensors)
        first = torch.autograd.grad(out.square().sum(), tensors, create_graph=True)
        return [out, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), tensors)]

    ours = results()
    with plain_kernels():
        theirs = results()
    for found, right in zip(ours, theirs, strict=True):
        assert found.shape == right.shape and torch.isfinite(found).all()
        assert torch.allclose(found, right, rtol=1e-12, atol=1e-12)


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
    monkeypatch.setattr(tensornet, "knots_for", lambda *given: None)
    for exact, found in zip(results(), knots, strict=True):
        # Some gradients are zero but for rounding.
        assert (exact - found).abs().max() <= 1e-6 * exact.abs().max() + 1e-9


@pytest.mark.parametrize("more", [(), (80, 192)])
def test_edges_in_the_skin_read_nothing_from_knots(more):
    distances = torch.linspace(1.0, 5.5, 1000, dtype=torch.float64).requires_grad_()
    knots = knots_for(distances, 5.0, *more)
    table = (5.0 - knots.distances)[:, None] ** 3
    values = interpolate(lagrange(knots.place), table, knots.start)
    assert (values[distances > 5.0].abs() < 1e-12).all()
    (slopes,) = torch.autograd.grad(values.sum(), distances)
    assert not slopes[distances > 5.0].any() and slopes[distances < 4.9].all()


@pytest.mark.parametrize(("n_rbf", "cutoff"), [(16, 4.5), (32, 5.0), (64, 6.0)])
def test_knots_are_as_many_as_the_functions_need(n_rbf, cutoff):
    """Values to 1e-6 and slopes to 1e-5 of the largest: with 384 even ones 64 functions had slopes to 2e-3."""
    basis = ExpNormalBasis(n_rbf, cutoff)
    distances = torch.linspace(0.5, cutoff, 3000, dtype=torch.float64, requires_grad=True)
    knots = knots_for(distances, cutoff, *basis.knots)
    assert len(knots.distances) <= sum(basis.knots)
    assert abs(float(knots.distances[-1]) - cutoff) < 1e-12
    exact, found = basis(distances), interpolate(lagrange(knots.place), basis(knots.distances), knots.start)
    torch.manual_seed(0)
    weights = torch.randn(n_rbf, dtype=torch.float64)
    slope = lambda values: torch.autograd.grad((values @ weights).sum(), distances, retain_graph=True)[0]  # noqa: E731
    assert (exact - found).abs().max() < 1e-6
    assert (slope(exact) - slope(found)).abs().max() < 1e-5 * slope(exact).abs().max()


def test_where_knots_are_not_used():
    few, close = torch.full((100,), 2.0), torch.full((5000,), 2.0)
    close[7] = 0.1
    assert knots_for(few, 5.0) is None and knots_for(close, 5.0) is None
    assert knots_for(torch.linspace(0.3, 5.0, 5000), 5.0) is not None


def test_polynomials_of_the_fifth_degree_are_exact():
    distances = torch.linspace(0.2, 5.0, 3000, dtype=torch.float64)
    knots = knots_for(distances, 5.0)
    powers = lambda r: r[:, None] ** torch.arange(6, dtype=r.dtype)  # noqa: E731
    found = interpolate(lagrange(knots.place), powers(knots.distances), knots.start)
    assert torch.allclose(found, powers(distances), rtol=1e-11)


def test_forces_do_without_the_gradient_of_a_table(monkeypatch):
    """The way to the positions does not pass the weights; that of a loss does."""
    (function, tensors), made = operations(n=4)["knots"], []
    place, table, y = tensors
    run = operations_module._run
    monkeypatch.setattr(operations_module, "_run", lambda *given: (made.append(given), run(*given)))
    (slope,) = torch.autograd.grad(function(place, table * 1.0, y).sum(), place, create_graph=True)
    assert [given[3][0] is None for given in made if given[1] == "backward"] == [True]
    slope.square().sum().backward()
    assert table.grad is not None and table.grad.abs().max() > 0
