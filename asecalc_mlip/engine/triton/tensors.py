"""Kernels of TensorNet's messages, one program for each atom and block of channels; see convolve.py.

A tensor is nine rows of F channels: one of I, three of A, five of S. Here they are kept as (9, N, F), so that the rows
of a part lie together and its mixing of channels is one matrix product.

The embedding sums directions, u_i = Σ_j s_ij w_p(d_ij) (a_j + b_i), where a and b depend on the elements alone, so that
only edges take a gradient. A block sums the tensors of neighbours, m_i = Σ_j w_p(d_ij) y_j.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asecalc_mlip.engine.triton.splines import (
    interpolate,
    interpolate_slopes,
    slopes_alone,
    spline_slopes,
    spline_values,
)
from asecalc_mlip.kernels.triton.matrices import filtered, inner_by_part, plus, read, scaled, write_sums, zeros

__all__ = ["gather", "gather_backward", "spread", "spread_edges"]


@triton.jit
def filters(at, F, mask, c):
    """Read the filters of the three parts at pointers (edges, channels) of their first rows."""
    return interpolate(at, 3 * F, mask, c), interpolate(at + F, 3 * F, mask, c), interpolate(at + 2 * F, 3 * F, mask, c)


@triton.jit(do_not_specialize=["n_edges", "n_atoms"])
def spread(
    rows, elements, place, fraction, directions, table, numbers, of_neighbor, of_center, out, n_edges, n_atoms, F,
    EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum the nine numbers of 1 + [û]× + (ûûᵀ − 1/3) with û from the neighbour to the atom: out (9, N, F).

    `numbers` (N,) of the atoms and `elements` (E,) of their neighbours are rows of `of_center` and `of_neighbor`.
    """
    i = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    own = tl.load(of_center + tl.load(numbers + i) * F + f, mask=inside, other=0.0)
    total = zeros(EDGES, CHANNELS, table.dtype.element_ty)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        row = tl.load(place + e, mask=e < last, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        c = spline_values(tl.load(fraction + e, mask=near, other=0.0))
        at = table + (row * (6 * F))[:, None] + f[None, :]
        element = tl.load(elements + e, mask=near, other=0)
        z = tl.load(of_neighbor + (element * F)[:, None] + f[None, :], mask=mask, other=0.0) + own[None, :]
        x = -tl.load(directions + e, mask=near, other=0.0)[:, None]
        y = -tl.load(directions + n_edges + e, mask=near, other=0.0)[:, None]
        r = -tl.load(directions + 2 * n_edges + e, mask=near, other=0.0)[:, None]
        # A third of the trace, which is one, in the arithmetic at hand.
        third = (x * x + y * y + r * r) / 3.0
        shape = tl.full((EDGES, 1), 1.0, z.dtype), x, y, r, x * x - third, y * y - third, x * y, x * r, y * r
        total = plus(total, filtered(scaled(filters(at, F, mask, c), z), shape))
    write_sums(out + i.to(tl.int64) * F + f, n_atoms.to(tl.int64) * F, total, inside)


@triton.jit(do_not_specialize=["n_edges", "n_atoms"])
def spread_edges(
    rows, elements, place, fraction, stretch, directions, table, numbers, of_neighbor, of_center, gradient, by_edge,
    n_edges, n_atoms, F, EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients by distance and direction of edges, by_edge (blocks of channels, 4, E), from those of u (9, N, F)."""
    i = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    own = tl.load(of_center + tl.load(numbers + i) * F + f, mask=inside, other=0.0)
    size = n_atoms.to(tl.int64) * F
    first_of_nine = (i.to(tl.int64) * F + f)[None, :]
    g0, g1, g2, g3, g4, g5, g6, g7, g8 = read(gradient, first_of_nine, size, inside[None, :])
    third = (g4 + g5) / 3.0
    edges = by_edge + tl.program_id(1).to(tl.int64) * (4 * n_edges)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        row = tl.load(place + e, mask=there, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        t = tl.load(fraction + e, mask=near, other=0.0)
        c = spline_values(t)
        d = spline_slopes(t, tl.load(stretch + e, mask=near, other=0.0))
        at = table + (row * (6 * F))[:, None] + f[None, :]
        element = tl.load(elements + e, mask=near, other=0)
        z = tl.load(of_neighbor + (element * F)[:, None] + f[None, :], mask=mask, other=0.0) + own[None, :]
        x = -tl.load(directions + e, mask=near, other=0.0)[:, None]
        y = -tl.load(directions + n_edges + e, mask=near, other=0.0)[:, None]
        r = -tl.load(directions + 2 * n_edges + e, mask=near, other=0.0)[:, None]
        slope = slopes_alone(at, 3 * F, mask, d) * g0
        w, s = interpolate_slopes(at + F, 3 * F, mask, c, d)
        slope += s * (x * g1 + y * g2 + r * g3)
        tx = w * g1
        ty = w * g2
        tr = w * g3
        # Of x² − ⅓ and so on.
        hx = x * g4 + y * g6 + r * g7
        hy = y * g5 + x * g6 + r * g8
        hr = x * g7 + y * g8
        w, s = interpolate_slopes(at + 2 * F, 3 * F, mask, c, d)
        slope += s * (x * x * g4 + y * y * g5 + x * y * g6 + x * r * g7 + y * r * g8 - third)
        tx += w * (hx + x * g4)
        ty += w * (hy + y * g5)
        tr += w * hr
        tl.store(edges + e, tl.sum(slope * z, axis=1), mask=there)
        tl.store(edges + n_edges + e, -tl.sum(tx * z, axis=1), mask=there)
        tl.store(edges + 2 * n_edges + e, -tl.sum(ty * z, axis=1), mask=there)
        tl.store(edges + 3 * n_edges + e, -tl.sum(tr * z, axis=1), mask=there)


@triton.jit(do_not_specialize=["n_atoms"])
def gather(
    rows, neighbors, place, fraction, table, y, out, n_atoms, F, EDGES: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Sum the tensors of neighbours, y and out (9, N, F)."""
    i = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    size = n_atoms.to(tl.int64) * F
    total = zeros(EDGES, CHANNELS, table.dtype.element_ty)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        row = tl.load(place + e, mask=e < last, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        j = tl.load(neighbors + e, mask=near, other=0).to(tl.int64)
        c = spline_values(tl.load(fraction + e, mask=near, other=0.0))
        at = table + (row * (6 * F))[:, None] + f[None, :]
        sent = read(y, (j * F)[:, None] + f[None, :], size, mask)
        total = plus(total, filtered(filters(at, F, mask, c), sent))
    write_sums(out + i.to(tl.int64) * F + f, size, total, inside)


@triton.jit(do_not_specialize=["n_edges", "n_atoms"])
def gather_backward(
    rows, neighbors, place, fraction, stretch, table, y, gm, gy, by_edge, n_edges, n_atoms, F,
    EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient gy of the tensors that were sent from gm of the sums, (9, N, F), and by_edge (blocks of channels, 1, E).

    Row a is read as the edges that end in a.
    """
    a = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + a)
    last = tl.load(rows + a + 1)
    size = n_atoms.to(tl.int64) * F
    own = read(y, (a.to(tl.int64) * F + f)[None, :], size, inside[None, :])
    total = zeros(EDGES, CHANNELS, table.dtype.element_ty)
    edges = by_edge + tl.program_id(1).to(tl.int64) * n_edges
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        row = tl.load(place + e, mask=there, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        b = tl.load(neighbors + e, mask=near, other=0).to(tl.int64)
        t = tl.load(fraction + e, mask=near, other=0.0)
        c = spline_values(t)
        d = spline_slopes(t, tl.load(stretch + e, mask=near, other=0.0))
        at = table + (row * (6 * F))[:, None] + f[None, :]
        heard = read(gm, (b * F)[:, None] + f[None, :], size, mask)
        w0, s0 = interpolate_slopes(at, 3 * F, mask, c, d)
        w1, s1 = interpolate_slopes(at + F, 3 * F, mask, c, d)
        w2, s2 = interpolate_slopes(at + 2 * F, 3 * F, mask, c, d)
        total = plus(total, filtered((w0, w1, w2), heard))
        along = inner_by_part(heard, own)
        slope = s0 * along[0] + s1 * along[1] + s2 * along[2]
        tl.store(edges + e, tl.sum(slope, axis=1), mask=there)
    write_sums(gy + a.to(tl.int64) * F + f, size, total, inside)
