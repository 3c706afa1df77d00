"""The operations of trainings by Triton: which kernels make the outputs of each, and how they are launched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asecalc_mlip.kernels.backend import Backend, Call, Order
from asecalc_mlip.kernels.triton import atoms, convolutions, tables, tensors
from asecalc_mlip.kernels.triton.blocks import Blocks
from asecalc_mlip.kernels.triton.rows import rows_of

__all__ = ["BLOCKS", "TRITON", "has"]

# Of kernels that go over rows.
BLOCKS = Blocks()
# Atoms and channels of a program of the algebra.
_BLOCK = 128

Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class _Bilinear:
    """An operation that is linear in each of two inputs, a and b; the kernels of the first derivative give the second.

    Attributes
    ----------
    values : callable
        Of a call, a and b, and perhaps c and d: writes a ∘ b + c ∘ d.
    gradients : callable
        Of a call, a and b, the gradient of a ∘ b, the outputs and the sums over features.
    """

    values: Callable[[Call, Tensors, Tensor], None]
    gradients: Callable[[Call, Tensors, Tensor, Tensors, Tensor | None], None]

    def forward(self, call: Call) -> None:
        self.values(call, call.inputs, call.outputs[0])

    def backward(self, call: Call) -> None:
        a, b, gradient = call.inputs
        self.gradients(call, (a, b), gradient, call.outputs, call.sums)

    def second(self, call: Call) -> None:
        a, b, gradient, ha, hb = call.inputs
        self.values(call, (ha, b, a, hb), call.outputs[0])
        self.gradients(call, (ha, hb), gradient, call.outputs[1:], call.sums)


@dataclass(frozen=True)
class _Convolution:
    """PaiNN's messages of two or three parts, or SchNet's of one."""

    parts: int

    def forward(self, call: Call) -> None:
        out = tuple(call.outputs)
        self._values(call, self._four(call.inputs), None, out[0], out[-1])

    def backward(self, call: Call) -> None:
        *given, gq, gm = call.inputs if self.parts > 1 else (*call.inputs, call.inputs[-1])
        self._gradients(call, self._four(given), None, gq, gm, call.outputs)

    def second(self, call: Call) -> None:
        count = self.parts + 1 if self.parts > 1 else 2
        outs = 2 if self.parts > 1 else 1
        given, gradients, along = call.inputs[:count], call.inputs[count : count + outs], call.inputs[count + outs :]
        self._values(call, self._four(given), self._four(along), call.outputs[0], call.outputs[outs - 1])
        ends = (gradients[0], gradients[-1])
        self._gradients(call, self._four(given), self._four(along), *ends, call.outputs[outs:])

    def _four(self, given: Tensors) -> Tensors:
        """w, u, x, μ; in the place of one that is absent another, which nothing reads."""
        if self.parts == 1:
            return given[0], given[0], given[1], given[1]
        return (*given, *given[-1:])[:4]

    def _values(self, call: Call, given: Tensors, along: Tensors | None, q: Tensor, mu: Tensor) -> None:
        assert call.centers is not None and call.others is not None
        n = len(q)
        rows, blocks = rows_of(call.centers, n, is_sorted=True), BLOCKS
        if n:
            convolutions.convolve[blocks.grid(n, call.features)](
                rows.starts, call.others, *given, *(along or given), q, mu, call.features,
                PARTS=self.parts, TANGENT=along is not None, **blocks.options(),
            )  # fmt: skip

    def _gradients(
        self, call: Call, given: Tensors, along: Tensors | None, gq: Tensor, gm: Tensor, outputs: Tensors
    ) -> None:
        assert call.centers is not None and call.others is not None
        n, e = len(given[2]), len(given[0])
        rows, blocks = rows_of(call.others, n), BLOCKS
        sums = _Partial(call.sums, blocks.grid(n, call.features)[1])
        gw, gx = outputs[:2]
        if n:
            convolutions.convolve_back[blocks.grid(n, call.features)](
                rows.starts, rows.order, call.centers, *given, gq, gm, *(along or given), gw,
                gw if sums.parts is None else sums.parts, gx, outputs[-1], e, call.features,
                PARTS=self.parts, TANGENT=along is not None, **blocks.options(),
            )  # fmt: skip
        sums.add()


class _Partial:
    """Sums over the features, of each block of channels, which are then put together."""

    def __init__(self, sums: Tensor | None, blocks: int) -> None:
        self.sums = sums
        self.parts = sums if sums is None or blocks == 1 else sums.new_empty(blocks, *sums.shape)

    def add(self) -> None:
        """Put the parts together."""
        if self.sums is not None and self.parts is not None and self.parts is not self.sums:
            torch.sum(self.parts, 0, out=self.sums)


def _gather(call: Call, pairs: Tensors, out: Tensor) -> None:
    assert call.centers is not None and call.others is not None
    n, blocks = len(out), BLOCKS
    rows = rows_of(call.centers, n, is_sorted=True)
    if n:
        tensors.gather[blocks.grid(n, call.features)](
            rows.starts, call.others, *pairs[:2], *pairs[-2:], out, call.features,
            BOTH=len(pairs) > 2, **blocks.options(),
        )  # fmt: skip


def _gather_back(call: Call, given: Tensors, gradient: Tensor, outputs: Tensors, _: Tensor | None) -> None:
    assert call.centers is not None and call.others is not None
    n, blocks = len(given[1]), BLOCKS
    rows = rows_of(call.others, n)
    if n:
        tensors.gather_back[blocks.grid(n, call.features)](
            rows.starts, rows.order, call.centers, *given, gradient, *outputs, call.features, **blocks.options()
        )


def _look_up(call: Call, pairs: Tensors, out: Tensor) -> None:
    e, blocks = len(out), BLOCKS
    grid = blocks.grid(-(-e // blocks.edges), call.features)
    if e:
        tables.look_up[grid](
            call.others, *pairs[:2], *pairs[-2:], out, e, call.features, BOTH=len(pairs) > 2, **blocks.options()
        )


def _look_up_back(call: Call, given: Tensors, gradient: Tensor, outputs: Tensors, sums: Tensor | None) -> None:
    assert call.others is not None
    (weights, table), e, blocks = given, len(gradient), BLOCKS
    rows = rows_of(call.others, len(table))
    options, width = blocks.options(), call.features
    tables.sum_by_node[blocks.grid(len(table), width)](
        rows.starts, rows.order, call.others, weights, gradient, outputs[0], width, **options
    )
    if e:
        tables.sum_by_edge[(-(-e // blocks.edges),)](call.others, table, gradient, sums, e, width, **options)


def _multiply(symmetric: bool) -> _Bilinear:
    def values(call: Call, pairs: Tensors, out: Tensor) -> None:
        size = len(out) * call.features
        if size:
            atoms.multiply[_grid(size)](
                *pairs[:2], *pairs[-2:], out, size, call.features,
                SYMMETRIC=symmetric, BOTH=len(pairs) > 2, BLOCK=_BLOCK,
            )  # fmt: skip

    def gradients(call: Call, given: Tensors, gradient: Tensor, outputs: Tensors, _: Tensor | None) -> None:
        size = len(gradient) * call.features
        if size:
            atoms.multiply_back[_grid(size)](
                *given, gradient, *outputs, size, call.features, SYMMETRIC=symmetric, BLOCK=_BLOCK
            )

    return _Bilinear(values, gradients)


class _Spread:
    """Sums of directions, u_i = Σ_e s_e w_e (a_j + b_i)."""

    def forward(self, call: Call) -> None:
        assert call.centers is not None and call.others is not None
        n, blocks = len(call.outputs[0]), BLOCKS
        rows = rows_of(call.centers, n, is_sorted=True)
        if n:
            tensors.spread[blocks.grid(n, call.features)](
                rows.starts, call.others, *call.inputs, call.outputs[0], call.features, **blocks.options()
            )

    def backward(self, call: Call) -> None:
        given, gradient = call.inputs[:4], call.inputs[4]
        self._gradients(call, given, gradient, None, gradient, call.outputs)

    def second(self, call: Call) -> None:
        given, gradient, along = call.inputs[:4], call.inputs[4], call.inputs[5:]
        self._gradients(call, given, gradient, along, call.outputs[0], call.outputs[1:])

    def _gradients(
        self, call: Call, given: Tensors, gradient: Tensor, along: Tensors | None, du: Tensor, outputs: Tensors
    ) -> None:
        assert call.centers is not None and call.others is not None
        n, e, blocks = len(gradient), len(given[0]), BLOCKS
        grid = blocks.grid(n, call.features)
        sums, (gw, ga, gb) = _Partial(call.sums, grid[1]), outputs
        gz = gw.new_empty(e, call.features)
        rows = rows_of(call.centers, n, is_sorted=True)
        if n:
            tensors.spread_back[grid](
                rows.starts, call.others, *given, gradient, *(along or given), du, gw, sums.parts, gz, gb, e,
                call.features, TANGENT=along is not None, **blocks.options(),
            )  # fmt: skip
        sums.add()
        ends = rows_of(call.others, len(ga))
        if len(ga):
            grid = blocks.grid(len(ga), call.features)
            tensors.sum_rows[grid](ends.starts, ends.order, gz, ga, call.features, **blocks.options())


@dataclass(frozen=True)
class _OnAtoms:
    """An operation of one input on each atom and channel, by a kernel for each order."""

    values: Callable
    gradients: Callable
    seconds: Callable

    def forward(self, call: Call) -> None:
        self._launch(self.values, call)

    def backward(self, call: Call) -> None:
        self._launch(self.gradients, call)

    def second(self, call: Call) -> None:
        self._launch(self.seconds, call)

    @staticmethod
    def _launch(kernel: Callable, call: Call) -> None:
        size = len(call.inputs[0]) * call.features
        if size:
            kernel[_grid(size)](*call.inputs, *call.outputs, size, call.features, BLOCK=_BLOCK)  # type: ignore[index]


_OPERATIONS = {
    "schnet": _Convolution(1),
    "painn_first": _Convolution(2),
    "painn": _Convolution(3),
    "tensor": _Bilinear(_gather, _gather_back),
    "spread": _Spread(),
    "table": _Bilinear(_look_up, _look_up_back),
    "product": _multiply(False),
    "symmetric": _multiply(True),
    "bound": _OnAtoms(atoms.bound, atoms.bound_back, atoms.bound_second),
    "squares": _OnAtoms(atoms.squares, atoms.squares_back, atoms.squares_second),
}


def has(name: str) -> bool:
    """Whether there are kernels of an operation."""
    return name in _OPERATIONS


def _run(name: str, order: Order, call: Call) -> None:
    # On machines with several GPUs the current one may be another.
    with torch.cuda.device_of(call.inputs[0]):
        getattr(_OPERATIONS[name], order)(call)


def _grid(size: int) -> tuple[int]:
    return (-(-size // _BLOCK),)


TRITON = Backend(adds=False, run=_run)
