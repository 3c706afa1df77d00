"""Kernels of TensorNet's algebra on atoms: for each atom and channel a 3 × 3 matrix, kept as nine numbers, (9, N, F).

Gradients by the nine numbers n of X are not the nine numbers of ∂E/∂X: they are J n(∂E/∂X), with the metric J that
⟨X, Y⟩ = Σ X_ab Y_ab has in these numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["bound", "bound_backward", "interact", "interact_backward", "scale", "scale_backward", "squares",
           "squares_backward", "update", "update_backward"]  # fmt: skip


@triton.jit
def read(x, at, size, mask):
    """Nine numbers of the matrices at `at`."""
    a = tl.load(x + at, mask=mask, other=0.0)
    b = tl.load(x + size + at, mask=mask, other=0.0)
    c = tl.load(x + 2 * size + at, mask=mask, other=0.0)
    d = tl.load(x + 3 * size + at, mask=mask, other=0.0)
    e = tl.load(x + 4 * size + at, mask=mask, other=0.0)
    f = tl.load(x + 5 * size + at, mask=mask, other=0.0)
    g = tl.load(x + 6 * size + at, mask=mask, other=0.0)
    h = tl.load(x + 7 * size + at, mask=mask, other=0.0)
    i = tl.load(x + 8 * size + at, mask=mask, other=0.0)
    return a, b, c, d, e, f, g, h, i


@triton.jit
def write(x, at, size, mask, n):
    """Store nine numbers."""
    for k in tl.static_range(0, 9):
        tl.store(x + k * size + at, n[k], mask=mask)


@triton.jit
def metric(n):
    """J n."""
    a = 2.0 * n[4] + n[5]
    b = n[4] + 2.0 * n[5]
    return 3.0 * n[0], 2.0 * n[1], 2.0 * n[2], 2.0 * n[3], a, b, 2.0 * n[6], 2.0 * n[7], 2.0 * n[8]


@triton.jit
def unmetric(g):
    """Return n with J n = g."""
    a = (2.0 * g[4] - g[5]) / 3.0
    b = (2.0 * g[5] - g[4]) / 3.0
    return g[0] / 3.0, 0.5 * g[1], 0.5 * g[2], 0.5 * g[3], a, b, 0.5 * g[6], 0.5 * g[7], 0.5 * g[8]


@triton.jit
def inner(a, b):
    """Σ_k a_k b_k."""
    total = a[0] * b[0]
    for k in tl.static_range(1, 9):
        total += a[k] * b[k]
    return total


@triton.jit
def matrix(n):
    """Rows of the matrix of nine numbers, one after another."""
    a = n[0] + n[4]
    b = n[0] + n[5]
    c = n[0] - n[4] - n[5]
    return a, n[6] - n[3], n[7] + n[2], n[6] + n[3], b, n[8] - n[1], n[7] - n[2], n[8] + n[1], c


@triton.jit
def turned(m):
    """Return the transpose."""
    return m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]


@triton.jit
def numbers(m):
    """Nine numbers of I, A and S of any matrix."""
    i = (m[0] + m[4] + m[8]) / 3.0
    x = 0.5 * (m[7] - m[5])
    y = 0.5 * (m[2] - m[6])
    z = 0.5 * (m[3] - m[1])
    return i, x, y, z, m[0] - i, m[4] - i, 0.5 * (m[1] + m[3]), 0.5 * (m[2] + m[6]), 0.5 * (m[5] + m[7])


@triton.jit
def product(a, b):
    """Return the matrix A B."""
    c = a[0] * b[0] + a[1] * b[3] + a[2] * b[6]
    d = a[0] * b[1] + a[1] * b[4] + a[2] * b[7]
    e = a[0] * b[2] + a[1] * b[5] + a[2] * b[8]
    f = a[3] * b[0] + a[4] * b[3] + a[5] * b[6]
    g = a[3] * b[1] + a[4] * b[4] + a[5] * b[7]
    h = a[3] * b[2] + a[4] * b[5] + a[5] * b[8]
    i = a[6] * b[0] + a[7] * b[3] + a[8] * b[6]
    j = a[6] * b[1] + a[7] * b[4] + a[8] * b[7]
    k = a[6] * b[2] + a[7] * b[5] + a[8] * b[8]
    return c, d, e, f, g, h, i, j, k


@triton.jit
def plus(a, b):
    """Sum of nine numbers and nine numbers."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5], a[6] + b[6], a[7] + b[7],
            a[8] + b[8])  # fmt: skip


@triton.jit
def times(s, a):
    """Nine numbers times one."""
    return s * a[0], s * a[1], s * a[2], s * a[3], s * a[4], s * a[5], s * a[6], s * a[7], s * a[8]


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
