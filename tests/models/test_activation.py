"""silu is torch's, with all its derivatives, where it is large and made of fewer passes."""

import pytest
import torch

from asecalc_mlip.models import activation


@pytest.fixture
def x(monkeypatch):
    monkeypatch.setattr(activation, "_MANY", 0)
    torch.manual_seed(0)
    return (3 * torch.randn(40, 3, dtype=torch.float64)).requires_grad_()


def test_derivatives_are_those_of_differences(x):
    assert torch.autograd.gradcheck(activation.silu, x)
    assert torch.autograd.gradgradcheck(activation.silu, x)


def test_it_is_the_fewer_passes_that_are_tested(x):
    assert activation.silu(x).grad_fn.name() == "_SiluBackward"
    # Without derivatives it is torch's.
    assert activation.silu(x.detach()).grad_fn is None


def test_third_derivatives_are_those_of_torch(x):
    def third(function):
        (slope,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        (curve,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
        return torch.autograd.grad(curve.square().sum(), x)[0]

    assert torch.allclose(third(activation.silu), third(torch.nn.functional.silu), rtol=1e-12)


def test_batches_of_directions_as_a_hessian_takes_them(x):
    """Of a small network, twice silu."""
    weights, start = torch.randn(6, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64).requires_grad_()

    def hessian(function):
        (slope,) = torch.autograd.grad(function(weights @ function(weights @ start)).sum(), start, create_graph=True)
        return torch.autograd.grad(slope, start, torch.eye(6, dtype=torch.float64), is_grads_batched=True)[0]

    assert torch.allclose(hessian(activation.silu), hessian(torch.nn.functional.silu), rtol=1e-12)
