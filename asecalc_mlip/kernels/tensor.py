"""Message passing of TensorNet in training: native on the CPU, plain torch everywhere else, twice differentiable.

Every operation is linear in each of two tensors, out = B(a, b). Its gradients are an operation of their own, whose
derivative along a direction gives the double backward in one pass over the edges (tensor_message.cpp).
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.kernels import library, native
from asecalc_mlip.kernels.library import SUFFIX
from asecalc_mlip.kernels.only_plain import only_plain

__all__ = [
    "PARTS",
    "bounded",
    "from_matrices",
    "interpolate",
    "spread_message",
    "squares",
    "tensor_message",
    "tensor_product",
    "to_matrices",
]

# Which of the three parts, I, A and S, each of the nine rows of a tensor belongs to.
PARTS = [0, 1, 1, 1, 2, 2, 2, 2, 2]
TERMS = 6


def tensor_message(filters: Tensor, y: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """Sum the tensors of neighbours, m_i = Σ_j W_ij Y_j, with a filter for each part.

    Parameters
    ----------
    filters : (E, 3F)
        Those of I, of A and of S, one after another.
    y : (N, 9, F)
    centers, neighbors : (E,) int64

    Returns
    -------
    (N, 9, F)
    """
    if _native(filters):
        return _Tensor.apply(filters, y, centers, neighbors)
    values = filters.unflatten(-1, (3, -1))[:, PARTS] * y.index_select(0, neighbors)
    return values.new_zeros(y.shape).index_add(0, centers, values)


def spread_message(amounts: Tensor, rows: Tensor, centers: Tensor, n_atoms: int) -> Tensor:
    """Sum directions, u_i = Σ_j s_ij a_ij: amounts a (E, 3F) for each part, rows s (E, 9) → (N, 9, F)."""
    if _native(amounts):
        return _Spread.apply(amounts, rows, centers, n_atoms)
    values = amounts.unflatten(-1, (3, -1))[:, PARTS] * rows[:, :, None]
    return values.new_zeros(n_atoms, *values.shape[1:]).index_add(0, centers, values)


def interpolate(weights: Tensor, table: Tensor, start: Tensor) -> Tensor:
    """Read a table between its nodes, w_e = Σ_k c_ek t_(start + k).

    Parameters
    ----------
    weights : (E, 6)
    table : (nodes, W)
    start : (E,) int64

    Returns
    -------
    (E, W)
    """
    if _native(weights):
        return _Table.apply(weights, table, start)
    rows = table[start[:, None] + torch.arange(TERMS, device=start.device)]
    return (weights[:, :, None] * rows).sum(1)


def tensor_product(a: Tensor, b: Tensor, *, symmetric: bool) -> Tensor:
    """Multiply matrices of each atom and channel, (N, 9, F): A B + B A, or A B."""
    if _native(a):
        return _Product.apply(a, b, SYMMETRIC if symmetric else 0)
    a, b = to_matrices(a), to_matrices(b)
    return from_matrices(_matrix_product(a, b) + _matrix_product(b, a) if symmetric else _matrix_product(a, b))


def bounded(x: Tensor) -> Tensor:
    """Divide matrices of each atom and channel by their size: X / (‖X‖² + 1), (N, 9, F)."""
    if _native(x):
        return _Bound.apply(x)
    i, a, s = squares(x)
    return x / (i + a + s + 1.0)[:, None]


def squares(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ‖I‖², ‖A‖², ‖S‖² of (N, 9, F), each (N, F)."""
    xx, yy, xy, xz, yz = x[:, 4:].unbind(1)
    diagonal = xx.square() + yy.square() + (xx + yy).square()
    symmetric = diagonal + 2.0 * (xy.square() + xz.square() + yz.square())
    return 3.0 * x[:, 0].square(), 2.0 * x[:, 1:4].square().sum(1), symmetric


def to_matrices(x: Tensor) -> Tensor:
    """Return (N, 9, F) as matrices (N, 3, 3, F)."""
    i, ax, ay, az, xx, yy, xy, xz, yz = x.unbind(1)
    rows = (i + xx, xy - az, xz + ay, xy + az, i + yy, yz - ax, xz - ay, yz + ax, i - xx - yy)
    return torch.stack(rows, dim=1).unflatten(1, (3, 3))


def from_matrices(m: Tensor) -> Tensor:
    """Return (N, 3, 3, F) as nine numbers of I, A and S each, (N, 9, F)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(1) for row in m.unbind(1))
    i = (xx + yy + zz) / 3.0
    skew = (0.5 * (zy - yz), 0.5 * (xz - zx), 0.5 * (yx - xy))
    return torch.stack((i, *skew, xx - i, yy - i, 0.5 * (xy + yx), 0.5 * (xz + zx), 0.5 * (yz + zy)), dim=1)


def _matrix_product(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, :, :, None] * b[:, None]).sum(2)


# What a product says of a, b and its result; see Kind of tensor_message.cpp.
DUAL_A, DUAL_B, DUAL_OUT, TURN_A, TURN_B, SYMMETRIC = 1, 2, 4, 8, 16, 32


def _native(tensor: Tensor) -> bool:
    return native.serves(tensor) and not only_plain()


class _Tensor(Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, y: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
        ctx.save_for_backward(w, y, centers, neighbors)
        out = w.new_zeros(y.shape)
        _call("tensor_forward", y.shape[-1], centers, neighbors, (w, y), (out,))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        return *_TensorBackward.apply(*ctx.saved_tensors, g), None, None


class _TensorBackward(Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, y: Tensor, centers: Tensor, neighbors: Tensor, g: Tensor):
        ctx.save_for_backward(w, y, centers, neighbors, g)
        gw, gy = _empty(w), _zeros(y)
        _call("tensor_backward", y.shape[-1], centers, neighbors, (w, y, g), (gw, gy))
        return gw, gy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hw: Tensor, hy: Tensor):
        w, y, centers, neighbors, g = ctx.saved_tensors
        dg, dw, dy = _zeros(g), _empty(w), _zeros(y)
        _call("tensor_second", y.shape[-1], centers, neighbors, (w, y, g, hw, hy), (dg, dw, dy))
        return dw, dy, None, None, dg


class _Spread(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, s: Tensor, centers: Tensor, n_atoms: int) -> Tensor:
        ctx.save_for_backward(a, s, centers)
        out = a.new_zeros(n_atoms, len(PARTS), a.shape[1] // 3)
        _call("spread_forward", out.shape[-1], centers, centers, (a, s), (out,))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        return *_SpreadBackward.apply(*ctx.saved_tensors, g), None, None


class _SpreadBackward(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, s: Tensor, centers: Tensor, g: Tensor):
        ctx.save_for_backward(a, s, centers, g)
        ga, gs = _empty(a), _empty(s)
        _call("spread_backward", g.shape[-1], centers, centers, (a, s, g), (ga,), gs)
        return ga, gs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ha: Tensor, hs: Tensor):
        a, s, centers, g = ctx.saved_tensors
        dg, da, ds = _zeros(g), _empty(a), _empty(s)
        _call("spread_second", g.shape[-1], centers, centers, (a, s, g, ha, hs), (dg, da), ds)
        return da, ds, None, dg


class _Table(Function):
    @staticmethod
    def forward(ctx: Any, c: Tensor, t: Tensor, start: Tensor) -> Tensor:
        ctx.save_for_backward(c, t, start)
        out = c.new_empty(c.shape[0], t.shape[1])
        _call("table_forward", t.shape[1], start, start, (c, t), (out,))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        return *_TableBackward.apply(*ctx.saved_tensors, g), None


class _TableBackward(Function):
    @staticmethod
    def forward(ctx: Any, c: Tensor, t: Tensor, start: Tensor, g: Tensor):
        ctx.save_for_backward(c, t, start, g)
        gc, gt = _empty(c), _zeros(t)
        _call("table_backward", t.shape[1], start, start, (c, t, g), (gt,), gc)
        return gc, gt

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, hc: Tensor, ht: Tensor):
        c, t, start, g = ctx.saved_tensors
        dg, dt, dc = _empty(g), _zeros(t), _empty(c)
        _call("table_second", t.shape[1], start, start, (c, t, g, hc, ht), (dg, dt), dc)
        return dc, dt, None, dg


class _Product(Function):
    """A B + B A or A B; its gradients are products with the other factor turned over, to any order.

    A gradient by the nine numbers of a matrix is not the nine numbers of the gradient by the matrix, hence "dual".
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, kind: int) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.kind = kind
        out = _empty(a)
        flags = torch.tensor([kind])
        _call("product_forward", a.shape[-1], flags, flags, (a, b), (out,), n=a.shape[0])
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        (a, b), kind = ctx.saved_tensors, ctx.kind
        turn_a, turn_b, dual_g = bool(kind & TURN_A), bool(kind & TURN_B), not kind & DUAL_OUT
        dual_a, dual_b = bool(kind & DUAL_A), bool(kind & DUAL_B)
        sym = kind & SYMMETRIC
        # ∂/∂A of ⟨G, A B⟩ is G Bᵀ, by B it is Aᵀ G, and those turned over where A or B were.
        if turn_a:
            ga = _Product.apply(b, g, sym | _kind(dual_b, dual_g, not dual_a, turn_b, True))
        else:
            ga = _Product.apply(g, b, sym | _kind(dual_g, dual_b, not dual_a, False, not turn_b))
        if turn_b:
            gb = _Product.apply(g, a, sym | _kind(dual_g, dual_a, not dual_b, True, turn_a))
        else:
            gb = _Product.apply(a, g, sym | _kind(dual_a, dual_g, not dual_b, not turn_a, False))
        return ga, gb, None


def _kind(dual_a: bool, dual_b: bool, dual_out: bool, turn_a: bool, turn_b: bool) -> int:
    flags = (DUAL_A, dual_a), (DUAL_B, dual_b), (DUAL_OUT, dual_out), (TURN_A, turn_a), (TURN_B, turn_b)
    return sum(flag for flag, said in flags if said)


class _Bound(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out = _empty(x)
        none = torch.zeros(1, dtype=torch.int64)
        _call("bound_forward", x.shape[-1], none, none, (x,), (out,), n=x.shape[0])
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        return _BoundBackward.apply(*ctx.saved_tensors, g)


class _BoundBackward(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(x, g)
        out = _empty(x)
        none = torch.zeros(1, dtype=torch.int64)
        _call("bound_backward", x.shape[-1], none, none, (x, g), (out,), n=x.shape[0])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, h: Tensor):
        x, g = ctx.saved_tensors
        dx, dg = _empty(x), _empty(g)
        none = torch.zeros(1, dtype=torch.int64)
        _call("bound_second", x.shape[-1], none, none, (x, g, h), (dx, dg), n=x.shape[0])
        return dx, dg


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor, memory_format=torch.contiguous_format)


def _call(
    name: str,
    n_features: int,
    centers: Tensor,
    others: Tensor,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    sums: Tensor | None = None,
    *,
    n: int | None = None,
) -> None:
    # The contiguous copies must stay alive until the call returns, hence the lists.
    indices, given = [t.contiguous() for t in (centers, others)], [t.contiguous() for t in inputs]
    function = getattr(library.native_library(), f"{name}_{SUFFIX[outputs[0].dtype]}")
    addresses = [_addresses(given), _addresses(outputs)]
    function(
        centers.shape[0] if n is None else n,
        n_features,
        torch.get_num_threads(),
        *(index.data_ptr() for index in indices),
        *addresses,
        None if sums is None else sums.data_ptr(),
    )


def _addresses(tensors: Any) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))
