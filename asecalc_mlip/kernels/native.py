"""The message passing operations through the native library (message.cpp), with first and second derivatives.

Each operation is linear in each of its tensors. Its backward pass is an operation of its own, whose derivative along a
direction (`painn_second`, `schnet_second`) gives the double backward in one edge loop, so that nothing of size
edges × features beyond the filters and their gradients is stored.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.kernels import library
from asecalc_mlip.kernels.library import SUFFIX

__all__ = ["painn_message", "schnet_message", "serves"]


def serves(tensor: Tensor) -> bool:
    """Whether the native kernels can take this tensor: on the CPU, float32 or float64, not being traced."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in SUFFIX
        and not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and library.native_library() is not None
    )


def painn_message(
    filters: Tensor, directions: Tensor, x: Tensor, mu: Tensor | None, centers: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    """See `asecalc_mlip.kernels.painn_message`."""
    return _PaiNNMessage.apply(filters, directions, x, mu, centers, neighbors)


def schnet_message(filters: Tensor, x: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """See `asecalc_mlip.kernels.schnet_message`."""
    return _SchNetMessage.apply(filters, x, centers, neighbors)


class _PaiNNMessage(Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, u: Tensor, x: Tensor, mu: Tensor | None, centers: Tensor, neighbors: Tensor):
        ctx.save_for_backward(w, u, x, mu, centers, neighbors)
        n_features = w.shape[1] // (2 if mu is None else 3)
        q = w.new_zeros(x.shape[0], n_features)
        m = w.new_zeros(x.shape[0], 3, n_features)
        _call("painn_forward", n_features, centers, neighbors, w, u, x, mu, outputs=(q, m))
        return q, m

    @staticmethod
    def backward(ctx: Any, gq: Tensor, gm: Tensor):
        w, u, x, mu, centers, neighbors = ctx.saved_tensors
        return *_PaiNNBackward.apply(w, u, x, mu, gq, gm, centers, neighbors), None, None


class _PaiNNBackward(Function):
    @staticmethod
    def forward(ctx: Any, w, u, x, mu, gq, gm, centers, neighbors):
        ctx.save_for_backward(w, u, x, mu, gq, gm, centers, neighbors)
        gw, gu, gx = _empty_like(w), _empty_like(u), _zeros_like(x)
        gmu = None if mu is None else _zeros_like(mu)
        _call("painn_backward", gq.shape[1], centers, neighbors, w, u, x, mu, gq, gm, outputs=(gw, gu, gx, gmu))
        return gw, gu, gx, gmu

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hw, hu, hx, hmu):
        w, u, x, mu, gq, gm, centers, neighbors = ctx.saved_tensors
        outputs = (
            *(_zeros_like(gq), _zeros_like(gm), _empty_like(w), _empty_like(u)),
            *(_zeros_like(x), None if mu is None else _zeros_like(mu)),
        )
        inputs = (w, u, x, mu, gq, gm, hw, hu, hx, None if mu is None else hmu)
        _call("painn_second", gq.shape[1], centers, neighbors, *inputs, outputs=outputs)
        dgq, dgm, dw, du, dx, dmu = outputs
        return dw, du, dx, dmu, dgq, dgm, None, None


class _SchNetMessage(Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, x: Tensor, centers: Tensor, neighbors: Tensor):
        ctx.save_for_backward(w, x, centers, neighbors)
        y = _zeros_like(x)
        _call("schnet_forward", w.shape[1], centers, neighbors, w, x, outputs=(y,))
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor):
        w, x, centers, neighbors = ctx.saved_tensors
        return *_SchNetBackward.apply(w, x, gy, centers, neighbors), None, None


class _SchNetBackward(Function):
    @staticmethod
    def forward(ctx: Any, w, x, gy, centers, neighbors):
        ctx.save_for_backward(w, x, gy, centers, neighbors)
        gw, gx = _empty_like(w), _zeros_like(x)
        _call("schnet_backward", w.shape[1], centers, neighbors, w, x, gy, outputs=(gw, gx))
        return gw, gx

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hw, hx):
        w, x, gy, centers, neighbors = ctx.saved_tensors
        dgy, dw, dx = _zeros_like(gy), _empty_like(w), _zeros_like(x)
        _call("schnet_second", w.shape[1], centers, neighbors, w, x, gy, hw, hx, outputs=(dgy, dw, dx))
        return dw, dx, dgy, None, None


def _empty_like(tensor: Tensor) -> Tensor:
    # The library writes rows one after another, whatever the strides of the input are.
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _zeros_like(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor, memory_format=torch.contiguous_format)


def _call(
    name: str, n_features: int, centers: Tensor, neighbors: Tensor, *inputs: Tensor | None, outputs: tuple
) -> None:
    # The contiguous copies must stay alive until the call returns, hence the list.
    tensors = [None if t is None else t.contiguous() for t in (centers, neighbors, *inputs)] + list(outputs)
    function = getattr(library.native_library(), f"{name}_{SUFFIX[outputs[0].dtype]}")
    function(centers.shape[0], n_features, *(None if t is None else t.data_ptr() for t in tensors))
