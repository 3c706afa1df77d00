"""Operations of a training in autograd: forward, first and second derivative, one call each (operations.h)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function

from asecalc_mlip.kernels import gpu, library, native
from asecalc_mlip.kernels.backend import Backend, Call, Order
from asecalc_mlip.kernels.chosen import chosen
from asecalc_mlip.kernels.library import SUFFIX

__all__ = ["Made", "Operation", "asked_for", "native_takes"]

# How a tensor is made: "edges", every number by one edge, or by a kernel that clears its sums; as a sum over edges that
# starts from zeros; as a sum over the features; or as "weights", a sum over edges that is left out where nobody asks
# for it, as forces do without the gradients of weights.
Made = Literal["edges", "sum", "features", "weights"]


@dataclass(frozen=True)
class Operation:
    """An operation with kernels, called with tensors; differentiable twice by kernels, to any order without.

    Attributes
    ----------
    name : str
        Its functions in the native library, if there are any, are NAME_forward, NAME_backward, NAME_second.
    gradients : tuple of {"edges", "sum", "features", "weights"}
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

        `ends` are the centres and neighbours of edges, and perhaps their first knots, or what stands for them; nothing
        for one on single atoms.
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
        # First knots stand behind the neighbours.
        ends = ends if len(ends) < 3 else (ends[0], torch.stack(ends[1:]))
        # Kernels write and read rows one after another.
        at = tuple(index.contiguous() for index in ends)
        return _Forward.apply((self, backend, at, tuple(map(tuple, shapes))), *inputs)

    def _backend(self, inputs: Sequence[Tensor]) -> Backend | None:
        """Fastest that serves these inputs."""
        first = inputs[0]
        if not _kernels_take(inputs):
            return None
        if first.device.type == "cuda" or chosen() == "triton":
            return gpu.backend_for(self, first)
        return native.NATIVE if native_takes(inputs) and native.has(self.name) else None


def native_takes(inputs: Sequence[Tensor]) -> bool:
    """Whether inputs are such that the native library computes with them, and it is there."""
    on_cpu = inputs[0].device.type == "cpu" and chosen() is None
    return on_cpu and _kernels_take(inputs) and library.native_library() is not None


def _kernels_take(inputs: Sequence[Tensor]) -> bool:
    """Whether they are of one dtype, float32 or float64, on one device, not traced, and nobody asks for plain torch."""
    dtype, device = inputs[0].dtype, inputs[0].device
    return (
        chosen() != "plain"
        and dtype in SUFFIX
        and not torch.compiler.is_compiling()
        and all(t.dtype == dtype and t.device == device and type(t) in (Tensor, torch.nn.Parameter) for t in inputs)
    )


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
        kinds, nodes = ctx.what[0].gradients, ctx.next_functions
        wanted = tuple(kind != "weights" or asked_for(node) for kind, (node, _) in zip(kinds, nodes, strict=True))
        return None, *_Backward.apply(ctx.what, wanted, *ctx.saved_tensors, *gradients)


class _Backward(Function):
    @staticmethod
    def forward(ctx: Any, what: Any, wanted: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(*given)
        ctx.set_materialize_grads(False)
        ctx.what = what
        made = _gradients(what, given, wanted)
        _run(what, "backward", given, *_sorted(what, made))
        return made

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None):
        return None, None, *_Second.apply(ctx.what, ctx.needs_input_grad[2:], *ctx.saved_tensors, *directions)


class _Second(Function):
    """The last derivative by kernels.

    Torch's `once_differentiable` would not do: where `torch.autograd.grad` takes a derivative with respect to the
    directions, as `torch.autograd.functional.hvp` does, it gives a wrong one without an error.
    """

    @staticmethod
    def forward(ctx: Any, what: Any, wanted: Sequence[bool], *tensors: Any) -> tuple[Tensor | None, ...]:
        operation, backend, _, shapes = what
        n = len(operation.gradients) + len(shapes)
        given, directions = tensors[:n], tensors[n:]
        made = _gradients(what, given, wanted)
        of_outputs = tuple(_made(backend, operation.outputs, given[0], shape) for shape in shapes)
        outputs, sums = _sorted(what, made)
        along = _directions(operation, given, directions)
        _run(what, "second", (*given, *along), (*of_outputs, *outputs), sums)
        return *made, *of_outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor):
        raise RuntimeError(
            "the kernels have derivatives up to the second, and a third one was asked for; compute the "
            "energy within `asecalc_mlip.kernels.plain_kernels()`, where plain torch has derivatives of any order"
        )


def asked_for(node: Any) -> bool:
    """Whether the backward pass that runs now goes on to this node."""
    if node is None:
        return False
    try:
        return torch._C._will_engine_execute_node(node)
    except (AttributeError, RuntimeError):  # no such function of torch; a leaf whose gradient autograd.grad takes
        return True  # it is always right, and costs time at most


def _gradients(what: Any, given: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Return room for the gradients of the inputs, which come first among what is given."""
    operation, backend, _, _ = what
    return tuple(
        None if kind == "weights" and not asked else _made(backend, kind, t, t.shape)
        for kind, t, asked in zip(operation.gradients, given, wanted, strict=False)
    )


def _directions(
    operation: Operation, given: Sequence[Tensor], directions: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return directions of the gradients, zero for those that have none, but nothing for those of weights."""
    return tuple(
        torch.zeros_like(t) if direction is None and kind != "weights" else direction
        for kind, t, direction in zip(operation.gradients, given, directions, strict=False)
    )


def _made(backend: Backend, kind: Made, like: Tensor, shape: Sequence[int]) -> Tensor:
    return like.new_zeros(shape) if kind in ("sum", "weights") and backend.adds else like.new_empty(shape)


def _sorted(what: Any, made: Sequence[Tensor | None]) -> tuple[tuple[Tensor | None, ...], Tensor | None]:
    """Return the gradients, and the one that is a sum over features."""
    pairs = list(zip(what[0].gradients, made, strict=True))
    sums = next((tensor for kind, tensor in pairs if kind == "features"), None)
    return tuple(tensor for kind, tensor in pairs if kind != "features"), sums


def _run(
    what: Any,
    order: Order,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor | None],
    sums: Tensor | None = None,
) -> None:
    operation, backend, at, shapes = what
    centers, others = at or (None, None)
    given = [None if tensor is None else tensor.contiguous() for tensor in inputs]
    backend.run(operation.name, order, Call(shapes[0][0], shapes[0][-1], centers, others, given, outputs, sums))
