"""PaiNN's mixing of constant weights in autograd: five kernels forward and six backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.engine.triton import mixing
from asecalc_mlip.models.painn import PaiNNMixing

__all__ = ["Mixing"]

# Atoms and channels of a program.
_BLOCK = 256


@dataclass(frozen=True)
class Mixing:
    """Weights of one mixing, detached.

    Attributes
    ----------
    channels : (2F, F)
    first, first_bias : (F, 2F), (F,)
    second, second_bias : (3F, F), (3F,)
        Of the context; after the last block without the rows of b, (2F, F), (2F,).
    last : bool
        Whether nobody reads the vectors after it.
    """

    channels: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    last: bool

    @classmethod
    def of(cls, mixing: PaiNNMixing, *, last: bool) -> Mixing:
        """Weights of a module."""
        layers: Any = mixing.context
        second, bias = layers[2].weight.detach(), layers[2].bias.detach()
        if last:
            second, bias = (torch.cat(tensor.chunk(3)[::2]) for tensor in (second, bias))
        first, first_bias = layers[0].weight.detach(), layers[0].bias.detach()
        return cls(mixing.channels.weight.detach(), first, first_bias, second, bias, last)

    def __call__(self, q: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        """(N, F) scalars and (N, 3, F) vectors, mixed; after the last block the vectors come back unchanged."""
        if self.last:
            return _Mixing.apply(self, q, mu)[0], mu
        return _Mixing.apply(self, q, mu)


class _Mixing(Function):
    @staticmethod
    def forward(ctx: Any, weights: Mixing, q: Tensor, mu: Tensor) -> tuple[Tensor, ...]:
        q, mu = q.contiguous(), mu.contiguous()
        n, width = q.shape
        grid, sizes = (-(-q.numel() // _BLOCK),), (q.numel(), width)
        kind = q.dtype
        # Products under autocast have fewer digits than the kernels.
        vu = torch.mm(mu.view(-1, width), weights.channels.t()).to(kind)
        both = q.new_empty(n, 2 * width)
        mixing.lengths[grid](q, vu, both, *sizes, BLOCK=_BLOCK)
        hidden = torch.addmm(weights.first_bias, both, weights.first.t()).to(kind)
        active = torch.nn.functional.silu(hidden)
        context = torch.addmm(weights.second_bias, active, weights.second.t()).to(kind)
        out_q = torch.empty_like(q)
        out_mu = out_q if weights.last else torch.empty_like(mu)
        mixing.combine[grid](q, mu, vu, context, out_q, out_mu, *sizes, LAST=weights.last, BLOCK=_BLOCK)
        ctx.save_for_backward(vu, both, hidden, context)
        ctx.weights = weights
        return (out_q,) if weights.last else (out_q, out_mu)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gq: Tensor, gmu: Tensor | None = None) -> tuple[Tensor | None, ...]:
        vu, both, hidden, context = ctx.saved_tensors
        weights: Mixing = ctx.weights
        gq = gq.contiguous()
        given = gq if gmu is None else gmu.contiguous()
        kind, width = gq.dtype, gq.shape[1]
        grid, sizes = (-(-gq.numel() // _BLOCK),), (gq.numel(), width)
        by_context, by_vu = torch.empty_like(context), torch.empty_like(vu)
        mixing.combine_backward[grid](
            vu, context, gq, given, by_context, by_vu, *sizes, LAST=weights.last, BLOCK=_BLOCK
        )
        by_hidden = torch.ops.aten.silu_backward(torch.mm(by_context, weights.second).to(kind), hidden)
        by_both = torch.mm(by_hidden, weights.first).to(kind)
        by_q = torch.empty_like(gq)
        mixing.lengths_backward[grid](gq, by_q, vu, both, by_both, by_vu, *sizes, BLOCK=_BLOCK)
        if gmu is None:
            by_mu = torch.mm(by_vu, weights.channels)
        else:
            by_mu = torch.addmm(given.view(-1, width), by_vu, weights.channels)
        return None, by_q, by_mu.to(kind).view(-1, 3, width)
