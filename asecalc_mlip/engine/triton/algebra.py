"""Kernels of TensorNet's algebra on atoms: for each atom and channel a 3 × 3 matrix, kept as nine numbers, (9, N, F).

What the nine numbers are, and their gradients, is in kernels/triton/matrices.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asecalc_mlip.kernels.triton.matrices import (
    inner,
    matrix,
    metric,
    numbers,
    plus,
    product,
    read,
    times,
    turned,
    unmetric,
    write,
)

__all__ = ["bound", "bound_backward", "interact", "interact_backward", "scale", "scale_backward", "squares",
           "squares_backward", "update", "update_backward"]  # fmt: skip


@triton.jit
def pair(a, b, SYMMETRIC: tl.constexpr):
    """Return A B + B A, or 2 A B."""
    first = product(a, b)
    if SYMMETRIC:
        second = product(b, a)
    else:
        second = first
    return plus(first, second)


@triton.jit
def bounded(n):
    """X / (‖X‖² + 1)."""
    return times(1.0 / (inner(metric(n), n) + 1.0), n)


@triton.jit
def bounded_back(n, g):
    """Gradient by X from g, that by X / (‖X‖² + 1)."""
    j = metric(n)
    s = 1.0 / (inner(j, n) + 1.0)
    return plus(times(s, g), times(-2.0 * s * s * inner(n, g), j))


@triton.jit(do_not_specialize=["size"])
def bound(x, out, size, BLOCK: tl.constexpr):
    """X / (‖X‖² + 1) of x (9, size)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    write(out, at, n, mask, bounded(read(x, at, n, mask)))


@triton.jit(do_not_specialize=["size"])
def bound_backward(x, g, out, size, BLOCK: tl.constexpr):
    """Gradient of `bound`."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    write(out, at, n, mask, bounded_back(read(x, at, n, mask), read(g, at, n, mask)))


@triton.jit(do_not_specialize=["size"])
def interact(a, b, out, size, SYMMETRIC: tl.constexpr, BLOCK: tl.constexpr):
    """P / (‖P‖² + 1) with P = A B + B A, or 2 A B."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    left = matrix(read(a, at, n, mask))
    right = matrix(read(b, at, n, mask))
    write(out, at, n, mask, bounded(numbers(pair(left, right, SYMMETRIC))))


@triton.jit(do_not_specialize=["size"])
def interact_backward(a, b, g, ga, gb, size, SYMMETRIC: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients of `interact`: of A, G Bᵀ + Bᵀ G or 2 G Bᵀ, and of B, Aᵀ G + G Aᵀ or 2 Aᵀ G."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    left = matrix(read(a, at, n, mask))
    right = matrix(read(b, at, n, mask))
    made = numbers(pair(left, right, SYMMETRIC))
    back = matrix(unmetric(bounded_back(made, read(g, at, n, mask))))
    write(ga, at, n, mask, metric(numbers(pair(back, turned(right), SYMMETRIC))))
    write(gb, at, n, mask, metric(numbers(pair(turned(left), back, SYMMETRIC))))


@triton.jit(do_not_specialize=["size"])
def update(x, d, out, size, BLOCK: tl.constexpr):
    """X + D + D D."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    change = read(d, at, n, mask)
    full = matrix(change)
    change = plus(change, numbers(product(full, full)))
    write(out, at, n, mask, plus(read(x, at, n, mask), change))


@triton.jit(do_not_specialize=["size"])
def update_backward(d, g, gd, size, BLOCK: tl.constexpr):
    """Gradient of `update` by D; that by X is g."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    full = turned(matrix(read(d, at, n, mask)))
    given = read(g, at, n, mask)
    back = matrix(unmetric(given))
    made = numbers(plus(product(back, full), product(full, back)))
    write(gd, at, n, mask, plus(given, metric(made)))


@triton.jit(do_not_specialize=["size"])
def scale(x, q, out, size, BLOCK: tl.constexpr):
    """Each part of x (9, size) times its factor, q (3, size)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    a = tl.load(q + at, mask=mask, other=0.0)
    b = tl.load(q + n + at, mask=mask, other=0.0)
    c = tl.load(q + 2 * n + at, mask=mask, other=0.0)
    v = read(x, at, n, mask)
    made = (a * v[0], b * v[1], b * v[2], b * v[3], c * v[4], c * v[5], c * v[6], c * v[7], c * v[8])
    write(out, at, n, mask, made)


@triton.jit(do_not_specialize=["size"])
def scale_backward(x, q, g, gx, gq, size, BLOCK: tl.constexpr):
    """Gradients of `scale`."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    a = tl.load(q + at, mask=mask, other=0.0)
    b = tl.load(q + n + at, mask=mask, other=0.0)
    c = tl.load(q + 2 * n + at, mask=mask, other=0.0)
    v = read(x, at, n, mask)
    h = read(g, at, n, mask)
    made = (a * h[0], b * h[1], b * h[2], b * h[3], c * h[4], c * h[5], c * h[6], c * h[7], c * h[8])
    write(gx, at, n, mask, made)
    tl.store(gq + at, v[0] * h[0], mask=mask)
    tl.store(gq + n + at, v[1] * h[1] + v[2] * h[2] + v[3] * h[3], mask=mask)
    last = v[4] * h[4] + v[5] * h[5] + v[6] * h[6] + v[7] * h[7] + v[8] * h[8]
    tl.store(gq + 2 * n + at, last, mask=mask)


@triton.jit(do_not_specialize=["size"])
def squares(x, out, size, F, BLOCK: tl.constexpr):
    """‖I‖², ‖A‖², ‖S‖² of x (9, N, F): out (N, 3, F)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    v = read(x, at, n, mask)
    j = metric(v)
    to = out + (at // F) * (3 * F) + at % F
    tl.store(to, j[0] * v[0], mask=mask)
    tl.store(to + F, j[1] * v[1] + j[2] * v[2] + j[3] * v[3], mask=mask)
    last = j[4] * v[4] + j[5] * v[5] + j[6] * v[6] + j[7] * v[7] + j[8] * v[8]
    tl.store(to + 2 * F, last, mask=mask)


@triton.jit(do_not_specialize=["size"])
def squares_backward(x, g, out, size, F, BLOCK: tl.constexpr):
    """Gradient of `squares` from g (N, 3, F)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    j = metric(read(x, at, n, mask))
    given = g + (at // F) * (3 * F) + at % F
    a = 2.0 * tl.load(given, mask=mask, other=0.0)
    b = 2.0 * tl.load(given + F, mask=mask, other=0.0)
    c = 2.0 * tl.load(given + 2 * F, mask=mask, other=0.0)
    made = (a * j[0], b * j[1], b * j[2], b * j[3], c * j[4], c * j[5], c * j[6], c * j[7], c * j[8])
    write(out, at, n, mask, made)
