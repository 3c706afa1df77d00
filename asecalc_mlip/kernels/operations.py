"""Operations of a training in autograd: forward, first and second derivative, one call each (operations.h)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.kernels import gpu, native
from asecalc_mlip.kernels.backend import Backend, Call, Order
from asecalc_mlip.kernels.chosen import chosen
from asecalc_mlip.kernels.library import SUFFIX

__all__ = ["Operation"]

# How a tensor is made: every number by one edge, as a sum over edges, or as a sum over the features.
Made = Literal["edges", "sum", "features"]


@dataclass(frozen=True)
class Operation:
    """An operation with kernels, called with tensors; differentiable twice by kernels, to any order without.

    Attributes
    ----------
    name : str
        Its functions in the native library, if there are any, are NAME_forward, NAME_backward, NAME_second.
    gradients : tuple of {"edges", "sum", "features"}
        How the gradient of each input is made.
    plain : callable
        The same in plain torch, or by other operations: inputs, and ends of edges if it has them.
    outputs : {"edges", "sum"}
        How the outputs are made.
    """

    name: str
    gradients: tuple[Made, ...]
    plain: Callable[..., Tensor | tuple[Tensor, ...]]
    outputs: Made = "sum"

    def __call__(self, inputs: Sequence[Tensor], shapes: Sequence[Sequence[int]], *ends: Tensor) -> tuple[Tensor, ...]:
        """Return outputs of the shapes, whose last number is that of the features.

        `ends` are the centres and neighbours of edges, or what stands for them; nothing for one on single atoms.
        """
        backend = self._backend(inputs)
        if backend is not None:
            return self.by(backend, inputs, shapes, *ends)
        made = self.plain(*inputs, *ends)
        return (made,) if isinstance(made, Tensor) else made

    def by(
        self, backend: Backend, inputs: Sequence[Tensor], shapes: Sequence[Sequence[int]], *ends: Tensor
    ) -> tuple[Tensor, ...]:
        """Return outputs as `__call__` does, of a backend, which then computes their derivatives too."""
        # Kernels write and read rows one after another.
        at = tuple(index.contiguous() for index in ends)
        return _Forward.apply((self, backend, at, tuple(map(tuple, shapes))), *inputs)

    def _backend(self, inputs: Sequence[Tensor]) -> Backend | None:
        """Fastest that serves these inputs: of one device and of float32 or float64, not being traced."""
        first = inputs[0]
        if (
            chosen() == "plain"
            or first.dtype not in SUFFIX
            or torch.compiler.is_compiling()
            or any(t.dtype != first.dtype or type(t) not in (Tensor, torch.nn.Parameter) for t in inputs)
        ):
            return None
        if first.device.type == "cuda" or chosen() == "triton":
            return gpu.backend_for(self, first)
        return native.NATIVE if first.device.type == "cpu" and native.has(self.name) else None


class _Forward(Function):
    @staticmethod
    def forward(ctx: Any, what: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        operation, backend, _, shapes = what
        ctx.save_for_backward(*inputs)
        ctx.what = what
        made = tuple(_made(backend, operation.outputs, inputs[0], shape) for shape in shapes)
        _run(what, "forward", inputs, made)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        return None, *_Backward.apply(ctx.what, *ctx.saved_tensors, *gradients)


class _Backward(Function):
    @staticmethod
    def forward(ctx: Any, what: Any, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*given)
        ctx.what = what
        made = _gradients(what, given)
        _run(what, "backward", given, *_sorted(what, made))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor):
        operation, backend, _, shapes = ctx.what
        given = ctx.saved_tensors
        made = _gradients(ctx.what, given)
        of_outputs = tuple(_made(backend, operation.outputs, given[0], shape) for shape in shapes)
        outputs, sums = _sorted(ctx.what, made)
        _run(ctx.what, "second", (*given, *directions), (*of_outputs, *outputs), sums)
        return None, *made, *of_outputs


def _gradients(what: Any, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    operation, backend, _, _ = what
    return tuple(_made(backend, kind, t, t.shape) for kind, t in zip(operation.gradients, given, strict=False))


def _made(backend: Backend, kind: Made, like: Tensor, shape: Sequence[int]) -> Tensor:
    return like.new_zeros(shape) if kind == "sum" and backend.adds else like.new_empty(shape)


def _sorted(what: Any, made: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return the gradients, and the one that is a sum over features."""
    pairs = list(zip(what[0].gradients, made, strict=True))
    sums = next((tensor for kind, tensor in pairs if kind == "features"), None)
    return tuple(tensor for kind, tensor in pairs if kind != "features"), sums


def _run(
    what: Any, order: Order, inputs: Sequence[Tensor], outputs: Sequence[Tensor], sums: Tensor | None = None
) -> None:
    operation, backend, at, shapes = what
    centers, others = at or (None, None)
    given = [tensor.contiguous() for tensor in inputs]
    backend.run(operation.name, order, Call(shapes[0][-1], centers, others, given, outputs, sums))
