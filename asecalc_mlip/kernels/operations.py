"""Operations of the native library in autograd: forward, first and second derivative, one call each (operations.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.kernels import library
from asecalc_mlip.kernels.library import SUFFIX
from asecalc_mlip.kernels.only_plain import only_plain

__all__ = ["Operation", "serves"]

# How a tensor is made: every number by one edge, as a sum over edges, or as a sum over the features.
Made = Literal["edges", "sum", "features"]


@dataclass(frozen=True)
class Operation:
    """An operation of the library, called with tensors; differentiable twice.

    Attributes
    ----------
    name : str
        Its three functions are NAME_forward, NAME_backward, NAME_second.
    gradients : tuple of {"edges", "sum", "features"}
        How the gradient of each input is made.
    outputs : {"edges", "sum"}
        How the outputs are made.
    """

    name: str
    gradients: tuple[Made, ...]
    outputs: Made = "sum"

    def __call__(
        self,
        inputs: Sequence[Tensor],
        shapes: Sequence[Sequence[int]],
        centers: Tensor | None = None,
        others: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return outputs of the shapes, whose last number is that of the features.

        `centers` and `others` are the ends of edges, or what stands for them; None for an operation on single atoms.
        """
        # The library writes and reads rows one after another.
        at = tuple(None if index is None else index.contiguous() for index in (centers, others))
        return _Forward.apply(self, at, tuple(map(tuple, shapes)), *inputs)


def serves(tensor: Tensor) -> bool:
    """Whether the native kernels can take this tensor: on the CPU, float32 or float64, not being traced."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype in SUFFIX
        and not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and library.native_library() is not None
        and not only_plain()
    )


class _Forward(Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, at: Any, shapes: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*inputs)
        ctx.rest = operation, at, shapes
        made = tuple(_made(operation.outputs, inputs[0], shape) for shape in shapes)
        _call(f"{operation.name}_forward", shapes, at, inputs, made)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        return None, None, None, *_Backward.apply(*ctx.rest, *ctx.saved_tensors, *gradients)


class _Backward(Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, at: Any, shapes: Any, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*given)
        ctx.rest = operation, at, shapes
        made = _gradients(operation, given)
        _call(f"{operation.name}_backward", shapes, at, given, *_sorted(operation, made))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor):
        operation, at, shapes = ctx.rest
        given = ctx.saved_tensors
        made = _gradients(operation, given)
        of_outputs = tuple(_made(operation.outputs, given[0], shape) for shape in shapes)
        outputs, sums = _sorted(operation, made)
        _call(f"{operation.name}_second", shapes, at, (*given, *directions), (*of_outputs, *outputs), sums)
        return None, None, None, *made, *of_outputs


def _gradients(operation: Operation, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(_made(kind, t, t.shape) for kind, t in zip(operation.gradients, given, strict=False))


def _made(kind: Made, like: Tensor, shape: Sequence[int]) -> Tensor:
    return like.new_zeros(shape) if kind == "sum" else like.new_empty(shape)


def _sorted(operation: Operation, made: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return the gradients, and the one that is a sum over features."""
    pairs = list(zip(operation.gradients, made, strict=True))
    sums = next((tensor for kind, tensor in pairs if kind == "features"), None)
    return tuple(tensor for kind, tensor in pairs if kind != "features"), sums


def _call(
    name: str,
    shapes: Sequence[Sequence[int]],
    at: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    sums: Tensor | None = None,
) -> None:
    # The contiguous copies must stay alive until the call returns, hence the list.
    given = [tensor.contiguous() for tensor in inputs]
    function = getattr(library.native_library(), f"{name}_{SUFFIX[outputs[0].dtype]}")
    function(
        inputs[0].shape[0],
        shapes[0][-1],
        torch.get_num_threads(),
        *(None if index is None else index.data_ptr() for index in at),
        _addresses(given),
        _addresses(outputs),
        None if sums is None else sums.data_ptr(),
    )


def _addresses(tensors: Sequence[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
