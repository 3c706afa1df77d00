"""Kernels of TensorNet's matrices on atoms in training, nine rows of F numbers each; see tensor_atoms.cpp."""

from __future__ import annotations

import triton
import triton.language as tl

from asecalc_mlip.kernels.triton.matrices import (
    inner,
    matrix,
    metric,
    numbers,
    plus,
    products,
    read,
    times,
    turned,
    unmetric,
    write,
)

__all__ = ["bound", "bound_back", "bound_second", "multiply", "multiply_back", "squares", "squares_back",
           "squares_second"]  # fmt: skip


@triton.jit
def places(size, F, BLOCK: tl.constexpr):
    """Return the first of nine numbers of each matrix of a program, the first of three, and whether it is there."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    n = at // F
    f = at % F
    return n * (9 * F) + f, n * (3 * F) + f, at < size


@triton.jit(do_not_specialize=["size"])
def multiply(a, b, c, d, out, size, F, SYMMETRIC: tl.constexpr, BOTH: tl.constexpr, BLOCK: tl.constexpr):
    """Store A B, or A B + B A if SYMMETRIC; with BOTH the same of C and D is added. All (N, 9, F)."""
    at, _, mask = places(size, F, BLOCK)
    made = products(matrix(read(a, at, F, mask)), matrix(read(b, at, F, mask)), SYMMETRIC)
    if BOTH:
        made = plus(made, products(matrix(read(c, at, F, mask)), matrix(read(d, at, F, mask)), SYMMETRIC))
    write(out, at, F, mask, numbers(made))


@triton.jit(do_not_specialize=["size"])
def multiply_back(a, b, g, ga, gb, size, F, SYMMETRIC: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients of G Bᵀ and Aᵀ G, or G Bᵀ + Bᵀ G and Aᵀ G + G Aᵀ if SYMMETRIC."""
    at, _, mask = places(size, F, BLOCK)
    back = matrix(unmetric(read(g, at, F, mask)))
    left = turned(matrix(read(a, at, F, mask)))
    right = turned(matrix(read(b, at, F, mask)))
    write(ga, at, F, mask, metric(numbers(products(back, right, SYMMETRIC))))
    write(gb, at, F, mask, metric(numbers(products(left, back, SYMMETRIC))))


@triton.jit(do_not_specialize=["size"])
def bound(x, out, size, F, BLOCK: tl.constexpr):
    """X / (‖X‖² + 1) of x (N, 9, F)."""
    at, _, mask = places(size, F, BLOCK)
    n = read(x, at, F, mask)
    write(out, at, F, mask, times(1.0 / (inner(metric(n), n) + 1.0), n))


@triton.jit(do_not_specialize=["size"])
def bound_back(x, g, out, size, F, BLOCK: tl.constexpr):
    """s g − 2 s² (x·g) J x with s = 1 / (‖X‖² + 1)."""
    at, _, mask = places(size, F, BLOCK)
    n = read(x, at, F, mask)
    h = read(g, at, F, mask)
    j = metric(n)
    s = 1.0 / (inner(j, n) + 1.0)
    write(out, at, F, mask, plus(times(s, h), times(-2.0 * s * s * inner(n, h), j)))


@triton.jit(do_not_specialize=["size"])
def bound_second(x, g, h, dg, dx, size, F, BLOCK: tl.constexpr):
    """Store the derivatives of `bound_back` along h, by g and by x."""
    at, _, mask = places(size, F, BLOCK)
    n = read(x, at, F, mask)
    gradient = read(g, at, F, mask)
    d = read(h, at, F, mask)
    j = metric(n)
    jd = metric(d)
    xg = inner(n, gradient)
    hx = inner(d, j)
    s = 1.0 / (inner(n, j) + 1.0)
    t = 2.0 * s * s
    write(dg, at, F, mask, plus(times(s, d), times(-t * hx, n)))
    along = 4.0 * s * t * xg * hx - t * inner(d, gradient)
    made = plus(times(along, j), times(-t, plus(times(hx, gradient), times(xg, jd))))
    write(dx, at, F, mask, made)


@triton.jit(do_not_specialize=["size"])
def squares(x, out, size, F, BLOCK: tl.constexpr):
    """‖I‖², ‖A‖², ‖S‖² of x (N, 9, F): out (N, 3, F)."""
    at, to, mask = places(size, F, BLOCK)
    n = read(x, at, F, mask)
    write_parts(out, to, F, mask, n, metric(n), 1.0)


@triton.jit(do_not_specialize=["size"])
def squares_back(x, g, out, size, F, BLOCK: tl.constexpr):
    """2 g J x from g (N, 3, F)."""
    at, to, mask = places(size, F, BLOCK)
    write(out, at, F, mask, by_part(g, to, F, mask, metric(read(x, at, F, mask))))


@triton.jit(do_not_specialize=["size"])
def squares_second(x, g, h, dg, dx, size, F, BLOCK: tl.constexpr):
    """Store the derivatives of `squares_back` along h: 2 h·J x by g, 2 g J h by x."""
    at, to, mask = places(size, F, BLOCK)
    j = metric(read(h, at, F, mask))
    write_parts(dg, to, F, mask, read(x, at, F, mask), j, 2.0)
    write(dx, at, F, mask, by_part(g, to, F, mask, j))


@triton.jit
def write_parts(out, to, F, mask, a, b, scale):
    """Store Σ_r a_r b_r over the rows of each part, times a number."""
    tl.store(out + to, scale * (a[0] * b[0]), mask=mask)
    tl.store(out + to + F, scale * (a[1] * b[1] + a[2] * b[2] + a[3] * b[3]), mask=mask)
    rest = a[4] * b[4] + a[5] * b[5] + a[6] * b[6] + a[7] * b[7] + a[8] * b[8]
    tl.store(out + to + 2 * F, scale * rest, mask=mask)


@triton.jit
def by_part(g, to, F, mask, n):
    """Nine numbers, each times twice that of its part."""
    a = 2.0 * tl.load(g + to, mask=mask, other=0.0)
    b = 2.0 * tl.load(g + to + F, mask=mask, other=0.0)
    c = 2.0 * tl.load(g + to + 2 * F, mask=mask, other=0.0)
    return a * n[0], b * n[1], b * n[2], b * n[3], c * n[4], c * n[5], c * n[6], c * n[7], c * n[8]
