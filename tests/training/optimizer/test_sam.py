"""Sharpness-aware minimisation: its steps on a function that is known."""

import pytest
import torch

from training.optimizer.sam import ETA, SAM


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_step_on_a_quadratic(adaptive):
    """L = ½ Σ h w², whose gradient at any weights is known; AdamW's first step is lr·sign(g), its second knows g²."""
    h = [torch.tensor([1.0, 4.0]).double(), torch.tensor([[9.0]]).double()]
    w = [torch.tensor([3.0, -0.5]).double().requires_grad_(), torch.tensor([[0.25]]).double().requires_grad_()]
    rho, lr, beta1, beta2 = 0.3, 0.01, 0.9, 0.999
    optimizer = SAM(w, rho=rho, adaptive=adaptive, lr=lr, weight_decay=0.0)
    flat, curvature = torch.cat([p.detach().flatten() for p in w]), torch.cat([x.flatten() for x in h])
    m, v, calls = torch.zeros(3).double(), torch.zeros(3).double(), []

    def closure():
        optimizer.zero_grad()
        loss = sum((0.5 * c * p.square()).sum() for c, p in zip(h, w, strict=True))
        loss.backward()
        calls.append(loss.item())
        return loss

    for k in (1, 2, 3):
        scale = flat.abs() + ETA if adaptive else torch.ones(3).double()
        g = curvature * flat
        worst = flat + rho * scale**2 * g / (scale * g).norm()
        g = curvature * worst
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        expected_loss = (0.5 * curvature * flat**2).sum().item()
        flat = flat - lr * (m / (1 - beta1**k)) / ((v / (1 - beta2**k)).sqrt() + 1e-8)
        assert optimizer.step(closure).item() == pytest.approx(expected_loss)
        assert torch.allclose(torch.cat([p.detach().flatten() for p in w]), flat, rtol=1e-12)
    assert len(calls) == 6 and calls[1] > calls[0]


def test_sam_without_a_gradient_and_without_a_closure():
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = SAM([used, unused], rho=0.1, lr=0.1)
    with pytest.raises(TypeError, match="needs a closure"):
        optimizer.step()

    def closure():
        optimizer.zero_grad()
        loss = used.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(unused, torch.ones(2)) and not torch.equal(used, torch.ones(2))
