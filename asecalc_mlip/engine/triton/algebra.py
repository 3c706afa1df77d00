"""Kernels of TensorNet's algebra on atoms: for each atom and channel a 3 × 3 matrix, kept as nine numbers, (9, N, F).

What the nine numbers are, and their gradients, is in kernels/triton/matrices.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asecalc_mlip.kernels.triton.matrices import (
    bounded,
    bounded_back,
    filtered,
    inner_by_part,
    matrix,
    metric,
    numbers,
    parts,
    plus,
    product,
    read,
    scaled,
    turned,
    unmetric,
    write,
    write_parts,
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
    write(out, at, n, mask, filtered(parts(q + at, n, mask), read(x, at, n, mask)))


@triton.jit(do_not_specialize=["size"])
def scale_backward(x, q, g, gx, gq, size, BLOCK: tl.constexpr):
    """Gradients of `scale`."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    h = read(g, at, n, mask)
    write(gx, at, n, mask, filtered(parts(q + at, n, mask), h))
    write_parts(gq + at, n, mask, inner_by_part(read(x, at, n, mask), h))


@triton.jit(do_not_specialize=["size"])
def squares(x, out, size, F, BLOCK: tl.constexpr):
    """‖I‖², ‖A‖², ‖S‖² of x (9, N, F): out (N, 3, F)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    v = read(x, at, n, mask)
    write_parts(out + (at // F) * (3 * F) + at % F, F, mask, inner_by_part(metric(v), v))


@triton.jit(do_not_specialize=["size"])
def squares_backward(x, g, out, size, F, BLOCK: tl.constexpr):
    """Gradient of `squares` from g (N, 3, F)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = size.to(tl.int64)
    j = metric(read(x, at, n, mask))
    twice = scaled(parts(g + (at // F) * (3 * F) + at % F, F, mask), 2.0)
    write(out, at, n, mask, filtered(twice, j))
