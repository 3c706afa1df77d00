"""silu whose second derivative costs a few passes over memory: torch's is made of sixteen, half of a training step.

    y = x σ,   y' = σ (1 + x (1 − σ)),   y'' = σ (1 − σ) (2 + x (1 − 2σ))

A conservative model is trained through the derivative of its forces, so the backward pass itself is differentiated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

__all__ = ["SiLU", "silu"]

# Numbers from which on the passes cost more than two Python functions do.
_MANY = 2**14


def silu(x: Tensor) -> Tensor:
    """x σ(x), any shape to the same."""
    plain = x.numel() < _MANY or not (x.requires_grad and torch.is_grad_enabled()) or torch.compiler.is_compiling()
    return nn.functional.silu(x) if plain else _Silu.apply(x)


class SiLU(nn.Module):
    """See `silu`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return silu(x)


class _Silu(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return nn.functional.silu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _Slope.apply(gradient, x)
        return torch.ops.aten.silu_backward(gradient, x)


class _Slope(Function):
    """gradient · y'(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, x: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(gradient, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, Tensor]:
        gradient, x = ctx.saved_tensors
        s = torch.sigmoid(x)
        if torch.is_grad_enabled():
            # Of a curvature, say: derivatives of any order.
            slope, curve = s * (1 + x * (1 - s)), s * (1 - s) * (2 + x * (1 - 2 * s))
            return direction * slope, direction * gradient * curve
        both = direction * gradient
        both *= torch.addcmul(x, x, s, value=-2.0).add_(2.0)
        return torch.ops.aten.silu_backward(direction, x), torch.ops.aten.sigmoid_backward(both, s)
