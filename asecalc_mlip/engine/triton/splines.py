"""Parts of the Triton kernels that every architecture uses: places of edges in a table, and reading it there.

A quintic B-spline has a number a_k for each node. Read as Σ a_k B_k its value loses little in float32, but its slope
is made of differences of neighbours, which lose as many digits as they are smaller than the numbers themselves. A table
therefore holds the differences, formed in float64, beside the numbers: (nodes + 4, 2, width), of which an edge reads
one number and five differences,

    w = a_0 + Σ_m C_m (a_(m+1) − a_m) / 120,   w' = Σ_m C_m' (a_(m+1) − a_m) / 120,   C_m = 120 Σ_(k>m) B_k,

the differences already divided by 120. `spline_tables` of models/tabulated.py makes the numbers. An edge within the
cutoff has a place, the first of its six rows, and the fraction t of the way to the next node; one beyond it has the
place −1, and reads and adds nothing.

These functions run on a GPU only, or under TRITON_INTERPRET=1; this file and those beside it that import triton are
therefore imported by the engine when it is made.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["interpolate", "interpolate_slopes", "locate", "locate_backward", "slopes_alone", "spline_slopes",
           "spline_values"]  # fmt: skip


@triton.jit
def spline_values(t):
    """Weights C of five differences for the value, times 120."""
    t2 = t * t
    a = 119.0 + t * (5.0 + t * (-10.0 + t * (10.0 + t * (-5.0 + t))))
    b = 93.0 + t * (55.0 + t * (-30.0 + t * (-10.0 + t * (15.0 - 4.0 * t))))
    c = 27.0 + t * (55.0 + t * (30.0 + t * (-10.0 + t * (-15.0 + 6.0 * t))))
    d = 1.0 + t * (5.0 + t * (10.0 + t * (10.0 + t * (5.0 - 4.0 * t))))
    e = t2 * t2 * t
    return a, b, c, d, e


@triton.jit
def spline_slopes(t, stretch):
    """Weights of five differences for the derivative by the distance, times 120; `stretch` is that of the place."""
    s = 1.0 - t
    t2 = t * t
    s2 = s * s
    a = 5.0 * s2 * s2 * stretch
    b = (55.0 + t * (-60.0 + t * (-30.0 + t * (60.0 - 20.0 * t)))) * stretch
    c = (55.0 + t * (60.0 + t * (-30.0 + t * (-60.0 + 30.0 * t)))) * stretch
    d = (5.0 + t * (20.0 + t * (30.0 + t * (20.0 - 20.0 * t)))) * stretch
    e = 5.0 * t2 * t2 * stretch
    return a, b, c, d, e


@triton.jit
def interpolate(at, width, mask, c):
    """Read functions at pointers (edges, channels) of the first rows, with weights (edges,) of five differences."""
    w = tl.load(at, mask=mask, other=0.0)
    for n in tl.static_range(0, 5):
        w += c[n][:, None] * tl.load(at + (2 * n + 1) * width, mask=mask, other=0.0)
    return w


@triton.jit
def slopes_alone(at, width, mask, d):
    """Read derivatives, as `interpolate` does values."""
    s = d[0][:, None] * tl.load(at + width, mask=mask, other=0.0)
    for n in tl.static_range(1, 5):
        s += d[n][:, None] * tl.load(at + (2 * n + 1) * width, mask=mask, other=0.0)
    return s


@triton.jit
def interpolate_slopes(at, width, mask, c, d):
    """As `interpolate`, values by the weights c and derivatives by the weights d."""
    number = tl.load(at + width, mask=mask, other=0.0)
    w = tl.load(at, mask=mask, other=0.0) + c[0][:, None] * number
    s = d[0][:, None] * number
    for n in tl.static_range(1, 5):
        number = tl.load(at + (2 * n + 1) * width, mask=mask, other=0.0)
        w += c[n][:, None] * number
        s += d[n][:, None] * number
    return w, s


@triton.jit(do_not_specialize=["n_edges"])
def locate(vectors, spline, distances, directions, place, fraction, stretch, n_edges, EDGES: tl.constexpr):
    """Distances, directions (3, E) and places of edges from vectors (E, 3), all in float64 until it is stored.

    `spline` holds in float64 the cutoff, the bend, the scale of the coordinate, and the number of nodes less one.
    """
    e = tl.program_id(0) * EDGES + tl.arange(0, EDGES)
    there = e < n_edges
    cutoff = tl.load(spline)
    bend = tl.load(spline + 1)
    scale = tl.load(spline + 2)
    last = tl.load(spline + 3)
    x = tl.load(vectors + 3 * e, mask=there, other=1.0)
    y = tl.load(vectors + 3 * e + 1, mask=there, other=1.0)
    z = tl.load(vectors + 3 * e + 2, mask=there, other=1.0)
    d = tl.sqrt(x * x + y * y + z * z)
    over = 1.0 / (d + bend)
    at = scale * d * over
    # Also where it is no number, so that the result is none either.
    node = tl.where(at < last - 1.0, at, last - 1.0).to(tl.int32)
    kind = distances.dtype.element_ty
    tl.store(distances + e, d.to(kind), mask=there)
    tl.store(directions + e, (x / d).to(kind), mask=there)
    tl.store(directions + n_edges + e, (y / d).to(kind), mask=there)
    tl.store(directions + 2 * n_edges + e, (z / d).to(kind), mask=there)
    tl.store(place + e, tl.where(d >= cutoff, -1, node), mask=there)
    tl.store(fraction + e, (at - node).to(kind), mask=there)
    tl.store(stretch + e, (scale * bend * over * over).to(kind), mask=there)


@triton.jit(do_not_specialize=["n_edges"])
def locate_backward(vectors, place, by_distance, by_direction, gradient, n_edges, EDGES: tl.constexpr):
    """Gradient by vectors (E, 3), float64, from those by distances and directions; zero beyond the cutoff."""
    e = tl.program_id(0) * EDGES + tl.arange(0, EDGES)
    there = e < n_edges
    near = tl.load(place + e, mask=there, other=-1) >= 0
    x = tl.load(vectors + 3 * e, mask=near, other=1.0)
    y = tl.load(vectors + 3 * e + 1, mask=near, other=1.0)
    z = tl.load(vectors + 3 * e + 2, mask=near, other=1.0)
    over = 1.0 / tl.sqrt(x * x + y * y + z * z)
    x = x * over
    y = y * over
    z = z * over
    gx = tl.load(by_direction + e, mask=near, other=0.0).to(tl.float64)
    gy = tl.load(by_direction + n_edges + e, mask=near, other=0.0).to(tl.float64)
    gz = tl.load(by_direction + 2 * n_edges + e, mask=near, other=0.0).to(tl.float64)
    radial = tl.load(by_distance + e, mask=near, other=0.0).to(tl.float64) - (gx * x + gy * y + gz * z) * over
    tl.store(gradient + 3 * e, radial * x + gx * over, mask=there)
    tl.store(gradient + 3 * e + 1, radial * y + gy * over, mask=there)
    tl.store(gradient + 3 * e + 2, radial * z + gz * over, mask=there)
