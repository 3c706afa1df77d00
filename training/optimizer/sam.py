r"""Sharpness-aware minimisation around AdamW, a rival of weak supervision: two gradients a step.

    SAM   ŵ = w + ρ g / |g|                Foret et al., ICLR 2021, arXiv 2010.01412
    ASAM  ŵ = w + ρ T² g / |T g|,  T = |w| + η   Kwon et al., ICML 2021, arXiv 2102.11600

g is the gradient at the weights w; AdamW then steps from w along the gradient at ŵ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["SAM"]

# η of the adaptive form: weights near zero are moved a little, too (Kwon et al.).
ETA = 0.01


class SAM(torch.optim.AdamW):
    """AdamW whose gradient is taken at the worst weights nearby.

    Parameters
    ----------
    params
        As for AdamW.
    rho : float
        Radius ρ.
    adaptive : bool
        Relative to the size of each weight (ASAM).
    **options
        Of AdamW.
    """

    def __init__(self, params: Any, *, rho: float = 0.05, adaptive: bool = False, **options: Any):
        super().__init__(params, **options)
        self.rho, self.adaptive = rho, adaptive

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure` computes the loss and its gradients, and is called twice."""
        if closure is None:
            raise TypeError("SAM.step needs a closure that computes loss and gradients")
        with torch.enable_grad():
            loss = closure()
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        before = [p.detach().clone() for p in weights]
        with torch.no_grad():
            for weight, move in zip(weights, self._moves(weights), strict=True):
                weight.add_(move)
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
        super().step()
        return loss

    def _moves(self, weights: list[Tensor]) -> list[Tensor]:
        scales = [p.abs() + ETA if self.adaptive else torch.ones_like(p) for p in weights]
        scaled = [t * p.grad for t, p in zip(scales, weights, strict=True) if p.grad is not None]
        norm = torch.stack([g.norm() for g in scaled]).norm().clamp(min=1e-12)
        return [self.rho * t * g / norm for t, g in zip(scales, scaled, strict=True)]
