"""Channels of the parts of TensorNet's matrices, mixed by a weight each in the native library; differentiable again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from asecalc_mlip.kernels import library
from asecalc_mlip.kernels.library import SUFFIX
from asecalc_mlip.kernels.native import addresses
from asecalc_mlip.kernels.operations import asked_for
from asecalc_mlip.kernels.packing import LANES

__all__ = ["native_mix", "whole_registers"]


def whole_registers(*widths: int, dtype: torch.dtype) -> bool:
    """Whether the library mixes channels of these numbers."""
    return all(width % LANES[dtype] == 0 for width in widths)


def native_mix(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Mix the channels of (N, 9, in) by three weights (out, in), those of I, of A and of S: (N, 9, out)."""
    return _Mix.apply(x, *weights, False)


class _Mix(Function):
    """y_r = W x_r, or Wᵀ x_r where `turned`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, i: Tensor, a: Tensor, s: Tensor, turned: bool) -> Tensor:
        ctx.save_for_backward(x, i, a, s)
        ctx.turned = turned
        outputs, inputs = i.shape[::-1] if turned else i.shape
        made = x.new_empty((len(x), 9, outputs))
        given = [tensor.contiguous() for tensor in (x, i, a, s)]
        function = getattr(library.native_library(), f"tensor_mix_{SUFFIX[x.dtype]}")
        sizes = (len(x), inputs, outputs, torch.get_num_threads(), int(turned))
        function(*sizes, given[0].data_ptr(), addresses(given[1:]), made.data_ptr())
        return made

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        x, *weights = ctx.saved_tensors
        of_x, *of_weights = (asked_for(node) for node, _ in ctx.next_functions)
        gx = _Mix.apply(g, *weights, not ctx.turned) if of_x else None
        gw = _Outer.apply(*((x, g) if ctx.turned else (g, x))) if any(of_weights) else (None, None, None)
        return gx, *gw, None


class _Outer(Function):
    """G = Σ a_r b_rᵀ over atoms and the rows of a part, three of them."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(a, b)
        made = tuple(a.new_empty((a.shape[2], b.shape[2])) for _ in range(3))
        given = [tensor.contiguous() for tensor in (a, b)]
        function = getattr(library.native_library(), f"tensor_outer_{SUFFIX[a.dtype]}")
        sizes = (len(a), a.shape[2], b.shape[2], torch.get_num_threads())
        function(*sizes, *(tensor.data_ptr() for tensor in given), addresses(made))
        return made

    @staticmethod
    def backward(ctx: Any, *h: Tensor):
        a, b = ctx.saved_tensors
        return _Mix.apply(b, *h, False), _Mix.apply(a, *h, True)
