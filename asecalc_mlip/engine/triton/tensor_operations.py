"""TensorNet's kernels in autograd. Tensors are (9, N, F) here; see tensors.py and algebra.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.engine.triton import algebra, tensors
from asecalc_mlip.engine.triton.edges import Edges
from asecalc_mlip.kernels.plain_tensor import ROWS
from asecalc_mlip.kernels.triton.blocks import Blocks

__all__ = ["bounded", "interaction", "mixed", "scaled", "squares_of", "tensor_messages", "tensor_spread", "updated"]

# Atoms and channels of a program of the algebra.
_BLOCK = 128


def tensor_spread(
    edges: Edges, table: Tensor, numbers: Tensor, of_neighbor: Tensor, of_center: Tensor, blocks: Blocks
) -> Tensor:
    """Sum directions, u_i = Σ_j s_ij w(d_ij) (a_j + b_i).

    Parameters
    ----------
    edges : Edges
    table : (rows, 2, 3F)
    numbers : (N,) int32
        Elements of the atoms.
    of_neighbor, of_center : (elements, F)
        a and b, constants.
    blocks : Blocks

    Returns
    -------
    (9, N, F)
    """
    given = (numbers, of_neighbor, of_center)
    return _Spread.apply(edges, table, given, blocks, edges.distances, edges.directions)


def tensor_messages(edges: Edges, table: Tensor, y: Tensor, blocks: Blocks) -> Tensor:
    """Sum the tensors (9, N, F) of neighbours, with a table (rows, 2, 3F) of filters."""
    return _Gather.apply(edges, table, blocks, edges.distances, y)


def mixed(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Mix the channels of each part by a matrix of its own, constants (F, F) that are multiplied from the left."""
    return _Mix.apply(tuple(weights), x)


def bounded(x: Tensor) -> Tensor:
    """X / (‖X‖² + 1)."""
    return _Bound.apply(x)


def interaction(y: Tensor, m: Tensor, *, symmetric: bool) -> Tensor:
    """P / (‖P‖² + 1) with P = Y M + M Y, or 2 Y M."""
    return _Interact.apply(y, m, symmetric)


def updated(x: Tensor, d: Tensor) -> Tensor:
    """X + D + D D."""
    return _Update.apply(x, d)


def scaled(x: Tensor, q: Tensor) -> Tensor:
    """Each part of x times its factor, q (3, N, F)."""
    return _Scale.apply(x, q)


def squares_of(x: Tensor) -> Tensor:
    """‖I‖², ‖A‖², ‖S‖² of each atom and channel, (N, 3, F)."""
    return _Squares.apply(x)


class _Spread(Function):
    @staticmethod
    def forward(
        ctx: Any, edges: Edges, table: Tensor, given: tuple, blocks: Blocks, distances: Tensor, directions: Tensor
    ) -> Tensor:
        width, n = table.shape[-1] // 3, edges.n_atoms
        out = table.new_empty(9, n, width)
        tensors.spread[blocks.grid(n, width)](
            edges.rows, edges.elements, edges.place, edges.fraction, directions, table, *given, out, edges.n_edges, n,
            width, **blocks.options(),
        )  # fmt: skip
        ctx.save_for_backward(table, directions)
        ctx.rest = edges, given, blocks
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        table, directions = ctx.saved_tensors
        edges, given, blocks = ctx.rest
        width, n = table.shape[-1] // 3, edges.n_atoms
        grid = blocks.grid(n, width)
        by_edge = table.new_empty(grid[1], 4, edges.n_edges)
        tensors.spread_edges[grid](
            edges.rows, edges.elements, edges.place, edges.fraction, edges.stretch, directions, table, *given,
            gradient.contiguous(), by_edge, edges.n_edges, n, width, **blocks.options(),
        )  # fmt: skip
        found = by_edge[0] if grid[1] == 1 else by_edge.sum(0)
        return None, None, None, None, found[0], found[1:]


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, edges: Edges, table: Tensor, blocks: Blocks, distances: Tensor, y: Tensor) -> Tensor:
        width, n = table.shape[-1] // 3, edges.n_atoms
        y = y.contiguous()
        out = torch.empty_like(y)
        tensors.gather[blocks.grid(n, width)](
            edges.rows, edges.neighbors, edges.place, edges.fraction, table, y, out, n, width, **blocks.options()
        )
        ctx.save_for_backward(table, y)
        ctx.rest = edges, blocks
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        table, y = ctx.saved_tensors
        edges, blocks = ctx.rest
        width, n = table.shape[-1] // 3, edges.n_atoms
        grid = blocks.grid(n, width)
        by_edge = table.new_empty(grid[1], edges.n_edges)
        made = torch.empty_like(y)
        tensors.gather_backward[grid](
            edges.rows, edges.neighbors, edges.place, edges.fraction, edges.stretch, table, y, gradient.contiguous(),
            made, by_edge, edges.n_edges, n, width, **blocks.options(),
        )  # fmt: skip
        return None, None, None, by_edge[0] if grid[1] == 1 else by_edge.sum(0), made


class _Mix(Function):
    @staticmethod
    def forward(ctx: Any, weights: tuple[Tensor, ...], x: Tensor) -> Tensor:
        ctx.weights = weights
        return _by_part([weight.t() for weight in weights], x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _by_part(ctx.weights, gradient)


def _by_part(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    x = x.to(weights[0].dtype).contiguous()
    out = torch.empty_like(x)
    for rows, weight in zip(ROWS, weights, strict=True):
        torch.mm(x[rows].flatten(0, 1), weight, out=out[rows].flatten(0, 1))
    return out


class _Bound(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        size = x[0].numel()
        algebra.bound[_grid(size)](x, out, size, BLOCK=_BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        size = x[0].numel()
        algebra.bound_backward[_grid(size)](x, gradient.contiguous(), out, size, BLOCK=_BLOCK)
        return out


class _Interact(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, symmetric: bool) -> Tensor:
        a, b = a.contiguous(), b.contiguous()
        ctx.save_for_backward(a, b)
        ctx.symmetric = symmetric
        out = torch.empty_like(a)
        size = a[0].numel()
        algebra.interact[_grid(size)](a, b, out, size, SYMMETRIC=symmetric, BLOCK=_BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        made = torch.empty_like(a), torch.empty_like(b)
        size, symmetric = a[0].numel(), ctx.symmetric
        algebra.interact_backward[_grid(size)](
            a, b, gradient.contiguous(), *made, size, SYMMETRIC=symmetric, BLOCK=_BLOCK
        )
        return *made, None


class _Update(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, d: Tensor) -> Tensor:
        d = d.contiguous()
        ctx.save_for_backward(d)
        out = torch.empty_like(d)
        size = d[0].numel()
        algebra.update[_grid(size)](x.contiguous(), d, out, size, BLOCK=_BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (d,) = ctx.saved_tensors
        made = torch.empty_like(d)
        size = d[0].numel()
        gradient = gradient.contiguous()
        algebra.update_backward[_grid(size)](d, gradient, made, size, BLOCK=_BLOCK)
        return gradient, made


class _Scale(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor) -> Tensor:
        x, q = x.contiguous(), q.to(x.dtype).contiguous()
        ctx.save_for_backward(x, q)
        out = torch.empty_like(x)
        size = x[0].numel()
        algebra.scale[_grid(size)](x, q, out, size, BLOCK=_BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, q = ctx.saved_tensors
        made = torch.empty_like(x), torch.empty_like(q)
        size = x[0].numel()
        algebra.scale_backward[_grid(size)](x, q, gradient.contiguous(), *made, size, BLOCK=_BLOCK)
        return made


class _Squares(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        _, n, width = x.shape
        out = x.new_empty(n, 3, width)
        algebra.squares[_grid(n * width)](x, out, n * width, width, BLOCK=_BLOCK)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        _, n, width = x.shape
        out = torch.empty_like(x)
        given = gradient.to(x.dtype).contiguous()
        algebra.squares_backward[_grid(n * width)](x, given, out, n * width, width, BLOCK=_BLOCK)
        return out


def _grid(size: int) -> tuple[int]:
    return (-(-size // _BLOCK),)
