"""Native message passing against plain torch and against finite differences, first and second derivative."""

import pytest
import torch

from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native, plain
from asecalc_mlip.models import predict
from tests.cases import make_potential, make_structure

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="the native kernels were not built")


def inputs(with_mu, dtype=torch.float64, n=5, e=14, f=3):
    torch.manual_seed(0)
    parts = 3 if with_mu else 2
    make = lambda *shape: torch.randn(*shape, dtype=dtype, requires_grad=True)  # noqa: E731
    centers, neighbors = torch.sort(torch.randint(0, n, (e,)))[0], torch.randint(0, n, (e,))
    tensors = (make(e, parts * f), make(e, 3), make(n, parts * f)) + ((make(n, 3, f),) if with_mu else ())
    return tensors, centers, neighbors


def call(module, tensors, centers, neighbors):
    mu = tensors[3] if len(tensors) == 4 else None
    return module.painn_message(*tensors[:3], mu, centers, neighbors)


@pytest.mark.parametrize("with_mu", [True, False])
def test_painn_derivatives(with_mu):
    tensors, centers, neighbors = inputs(with_mu)
    function = lambda *t: call(native, t, centers, neighbors)  # noqa: E731
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


def test_schnet_derivatives():
    (w, _, x), centers, neighbors = inputs(False)
    function = lambda w, x: native.schnet_message(w, x, centers, neighbors)  # noqa: E731
    assert torch.autograd.gradcheck(function, (w, x))
    assert torch.autograd.gradgradcheck(function, (w, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_features", [1, 7, 16, 65])
@pytest.mark.parametrize("with_mu", [True, False])
def test_same_as_plain(with_mu, n_features, dtype):
    tensors, centers, neighbors = inputs(with_mu, dtype, n=9, e=40, f=n_features)
    results = []
    for module in (native, plain):
        q, mu = call(module, tensors, centers, neighbors)
        # Weights of the force loss see the second derivative of both outputs through all inputs.
        first = torch.autograd.grad(q.square().sum() + (mu * mu.cos()).sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), tensors)
        results.append([q, mu, *first, *second])
    for ours, theirs in zip(*results):
        tolerance = 1e-5 if dtype == torch.float32 else 1e-13
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_no_edges_and_strided_inputs():
    tensors, centers, neighbors = inputs(True)
    none = torch.empty(0, dtype=torch.int64)
    empty = (tensors[0][:0], tensors[1][:0], tensors[2], tensors[3])
    q, mu = call(native, empty, none, none)
    assert not q.any() and not mu.any()
    strided = (tensors[0].T.contiguous().T, *tensors[1:])
    assert torch.equal(call(native, strided, centers, neighbors)[1], call(native, tensors, centers, neighbors)[1])


@pytest.mark.parametrize("structure", ["molecule", "crystal", "slab"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.float64, 1e-12)])
def test_fused_convolution_gives_what_training_sees(dtype, tolerance, structure, monkeypatch):
    atoms = make_structure(structure) * ((2, 2, 1) if structure != "molecule" else 1)
    graph = graph_from_atoms(atoms, 4.0)
    used = []
    original = native.painn_convolution
    monkeypatch.setattr(native, "painn_convolution", lambda *a: used.append(1) or original(*a))
    results = []
    for trainable in (False, True):
        potential = make_potential("painn", dtype=dtype, trainable=trainable, n_features=32, n_interactions=3)
        results.append(predict(potential, graph, stress=structure == "crystal"))
    # Three blocks for the structure, and three for the lone atoms of either potential; none where weights may change.
    assert len(used) == 9
    fused, stored = results
    assert abs(fused.energy.item() - stored.energy.item()) < tolerance * len(atoms)
    assert (fused.forces - stored.forces).abs().max() < tolerance * stored.forces.abs().max()
    if fused.stress is not None:
        assert (fused.stress - stored.stress).abs().max() < tolerance * stored.stress.abs().max()


def test_fused_convolution_does_not_depend_on_threads():
    atoms = make_structure("crystal") * (5, 5, 4)
    graph = graph_from_atoms(atoms, 4.0)
    assert graph.n_edges > 4000
    potential = make_potential("painn", dtype=torch.float32, n_features=32)
    forces = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        forces.append(predict(potential, graph).forces)
    torch.set_num_threads(1)
    # The matrix products between convolutions are torch's and may share their sums out differently.
    assert torch.allclose(forces[0], forces[1], atol=1e-5) and torch.allclose(forces[0], forces[2], atol=1e-5)


def test_width_that_fills_no_register_takes_the_other_path():
    graph = graph_from_atoms(make_structure("slab"), 4.0)
    pair = [make_potential("painn", dtype=torch.float32, n_features=10, trainable=t) for t in (False, True)]
    fixed, trainable = (predict(potential, graph).forces for potential in pair)
    assert torch.allclose(fixed, trainable, atol=1e-6)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("layout", ["transposed", "expanded"])
def test_derivatives_by_strided_inputs(which, layout):
    def strided(tensor):
        if layout == "transposed":
            return tensor.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        return tensor.detach()[:1].expand(tensor.shape).requires_grad_()

    tensors, centers, neighbors = inputs(True)
    tensors = tuple(strided(t) if k == which else t for k, t in enumerate(tensors))
    results = []
    for module in (native, plain):
        q, mu = call(module, tensors, centers, neighbors)
        # The gradients of plain sums arrive as expanded tensors.
        first = torch.autograd.grad(q.sum() + (mu * mu.cos()).sum(), tensors, create_graph=True)
        results.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), tensors)])
    for ours, theirs in zip(*results):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_schnet_derivatives_by_strided_inputs():
    (w, _, x), centers, neighbors = inputs(False)
    for strided in ((w.detach().T.contiguous().T.requires_grad_(), x), (w, x.detach().T.contiguous().T.requires_grad_())):
        gradients = [
            torch.autograd.grad(module.schnet_message(*strided, centers, neighbors).square().sum(), strided)
            for module in (native, plain)
        ]
        assert all(torch.allclose(a, b) for a, b in zip(*gradients))
