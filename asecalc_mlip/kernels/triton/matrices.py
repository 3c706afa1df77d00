"""Functions of 3 × 3 matrices in Triton: nine numbers each, one of I, three of A, five of S (xx, yy, xy, xz, yz).

Gradients by the nine numbers n of X are not the nine numbers of ∂E/∂X: they are J n(∂E/∂X), with the metric J that
⟨X, Y⟩ = Σ X_ab Y_ab has in these numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["bounded", "bounded_back", "filtered", "inner", "inner_by_part", "matrix", "metric", "numbers", "parts",
           "plus", "product", "products", "read", "scaled", "times", "turned", "unmetric", "write", "write_parts",
           "write_sums", "zeros"]  # fmt: skip


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
def products(a, b, SYMMETRIC: tl.constexpr):
    """Return A B + B A, or A B."""
    made = product(a, b)
    if SYMMETRIC:
        made = plus(made, product(b, a))
    return made


@triton.jit
def zeros(EDGES: tl.constexpr, CHANNELS: tl.constexpr, kind: tl.constexpr):
    """Nine sums over edges, before the first."""
    none = tl.zeros((EDGES, CHANNELS), dtype=kind)
    return none, none, none, none, none, none, none, none, none


@triton.jit
def write_sums(at, size, total, mask):
    """Store nine sums over edges."""
    for k in tl.static_range(0, 9):
        tl.store(at + k * size, tl.sum(total[k], axis=0), mask=mask)


@triton.jit
def bounded(n):
    """X / (‖X‖² + 1)."""
    return times(1.0 / (inner(metric(n), n) + 1.0), n)


@triton.jit
def bounded_back(n, g):
    """Gradient by X from g, that by X / (‖X‖² + 1): s g − 2 s² (x·g) J x with s = 1 / (‖X‖² + 1)."""
    j = metric(n)
    s = 1.0 / (inner(j, n) + 1.0)
    return plus(times(s, g), times(-2.0 * s * s * inner(n, g), j))


@triton.jit
def parts(at, size, mask):
    """Load three numbers, as of the parts I, A and S."""
    x = tl.load(at, mask=mask, other=0.0)
    y = tl.load(at + size, mask=mask, other=0.0)
    z = tl.load(at + 2 * size, mask=mask, other=0.0)
    return x, y, z


@triton.jit
def write_parts(at, size, mask, v):
    """Store three numbers."""
    for p in tl.static_range(0, 3):
        tl.store(at + p * size, v[p], mask=mask)


@triton.jit
def scaled(v, z):
    """Three numbers times one."""
    return v[0] * z, v[1] * z, v[2] * z


@triton.jit
def filtered(v, n):
    """Nine numbers, each times that of its part."""
    return (v[0] * n[0], v[1] * n[1], v[1] * n[2], v[1] * n[3], v[2] * n[4], v[2] * n[5], v[2] * n[6], v[2] * n[7],
            v[2] * n[8])  # fmt: skip


@triton.jit
def inner_by_part(a, b):
    """Σ_r a_r b_r over the rows of each part."""
    skew = a[1] * b[1] + a[2] * b[2] + a[3] * b[3]
    rest = a[4] * b[4] + a[5] * b[5] + a[6] * b[6] + a[7] * b[7] + a[8] * b[8]
    return a[0] * b[0], skew, rest
