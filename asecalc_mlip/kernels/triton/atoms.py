"""Kernels of TensorNet's matrices on atoms in training, nine rows of F numbers each; see tensor_atoms.cpp."""

from __future__ import annotations

import triton
import triton.language as tl

from asecalc_mlip.kernels.triton.matrices import (
    bounded,
    bounded_back,
    filtered,
    inner,
    inner_by_part,
    matrix,
    metric,
    numbers,
    parts,
    plus,
    products,
    read,
    scaled,
    times,
    turned,
    unmetric,
    write,
    write_parts,
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
    write(out, at, F, mask, bounded(read(x, at, F, mask)))


@triton.jit(do_not_specialize=["size"])
def bound_back(x, g, out, size, F, BLOCK: tl.constexpr):
    """Gradient of `bound`."""
    at, _, mask = places(size, F, BLOCK)
    write(out, at, F, mask, bounded_back(read(x, at, F, mask), read(g, at, F, mask)))


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
    write_parts(out + to, F, mask, inner_by_part(n, metric(n)))


@triton.jit(do_not_specialize=["size"])
def squares_back(x, g, out, size, F, BLOCK: tl.constexpr):
    """2 g J x from g (N, 3, F)."""
    at, to, mask = places(size, F, BLOCK)
    twice = scaled(parts(g + to, F, mask), 2.0)
    write(out, at, F, mask, filtered(twice, metric(read(x, at, F, mask))))


@triton.jit(do_not_specialize=["size"])
def squares_second(x, g, h, dg, dx, size, F, BLOCK: tl.constexpr):
    """Store the derivatives of `squares_back` along h: 2 h·J x by g, 2 g J h by x."""
    at, to, mask = places(size, F, BLOCK)
    j = metric(read(h, at, F, mask))
    write_parts(dg + to, F, mask, scaled(inner_by_part(read(x, at, F, mask), j), 2.0))
    write(dx, at, F, mask, filtered(scaled(parts(g + to, F, mask), 2.0), j))
