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

__all__ = ["gather", "gather_backward", "spread", "spread_edges"]


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
    kind = table.dtype.element_ty
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    own = tl.load(of_center + tl.load(numbers + i) * F + f, mask=inside, other=0.0)
    s0 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s1 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s2 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s3 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s4 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s5 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s6 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s7 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s8 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        row = tl.load(place + e, mask=e < last, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        c = spline_values(tl.load(fraction + e, mask=near, other=0.0))
        at = table + (row * (6 * F))[:, None] + f[None, :]
        element = tl.load(elements + e, mask=near, other=0)
        z = tl.load(of_neighbor + (element * F)[:, None] + f[None, :], mask=mask, other=0.0) + own[None, :]
        x = -tl.load(directions + e, mask=near, other=0.0)
        y = -tl.load(directions + n_edges + e, mask=near, other=0.0)
        r = -tl.load(directions + 2 * n_edges + e, mask=near, other=0.0)
        s0 += interpolate(at, 3 * F, mask, c) * z
        skew = interpolate(at + F, 3 * F, mask, c) * z
        s1 += skew * x[:, None]
        s2 += skew * y[:, None]
        s3 += skew * r[:, None]
        rest = interpolate(at + 2 * F, 3 * F, mask, c) * z
        # A third of the trace, which is one, in the arithmetic at hand.
        third = (x * x + y * y + r * r) / 3.0
        s4 += rest * (x * x - third)[:, None]
        s5 += rest * (y * y - third)[:, None]
        s6 += rest * (x * y)[:, None]
        s7 += rest * (x * r)[:, None]
        s8 += rest * (y * r)[:, None]
    size = n_atoms.to(tl.int64) * F
    at = out + i.to(tl.int64) * F + f
    tl.store(at, tl.sum(s0, axis=0), mask=inside)
    tl.store(at + size, tl.sum(s1, axis=0), mask=inside)
    tl.store(at + 2 * size, tl.sum(s2, axis=0), mask=inside)
    tl.store(at + 3 * size, tl.sum(s3, axis=0), mask=inside)
    tl.store(at + 4 * size, tl.sum(s4, axis=0), mask=inside)
    tl.store(at + 5 * size, tl.sum(s5, axis=0), mask=inside)
    tl.store(at + 6 * size, tl.sum(s6, axis=0), mask=inside)
    tl.store(at + 7 * size, tl.sum(s7, axis=0), mask=inside)
    tl.store(at + 8 * size, tl.sum(s8, axis=0), mask=inside)


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
    g = gradient + i.to(tl.int64) * F + f
    g0 = tl.load(g, mask=inside, other=0.0)[None, :]
    g1 = tl.load(g + size, mask=inside, other=0.0)[None, :]
    g2 = tl.load(g + 2 * size, mask=inside, other=0.0)[None, :]
    g3 = tl.load(g + 3 * size, mask=inside, other=0.0)[None, :]
    g4 = tl.load(g + 4 * size, mask=inside, other=0.0)[None, :]
    g5 = tl.load(g + 5 * size, mask=inside, other=0.0)[None, :]
    g6 = tl.load(g + 6 * size, mask=inside, other=0.0)[None, :]
    g7 = tl.load(g + 7 * size, mask=inside, other=0.0)[None, :]
    g8 = tl.load(g + 8 * size, mask=inside, other=0.0)[None, :]
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
    kind = table.dtype.element_ty
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    size = n_atoms.to(tl.int64) * F
    s0 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s1 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s2 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s3 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s4 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s5 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s6 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s7 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s8 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        row = tl.load(place + e, mask=e < last, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        j = tl.load(neighbors + e, mask=near, other=0).to(tl.int64)
        c = spline_values(tl.load(fraction + e, mask=near, other=0.0))
        at = table + (row * (6 * F))[:, None] + f[None, :]
        sent = y + (j * F)[:, None] + f[None, :]
        w = interpolate(at, 3 * F, mask, c)
        s0 += w * tl.load(sent, mask=mask, other=0.0)
        w = interpolate(at + F, 3 * F, mask, c)
        s1 += w * tl.load(sent + size, mask=mask, other=0.0)
        s2 += w * tl.load(sent + 2 * size, mask=mask, other=0.0)
        s3 += w * tl.load(sent + 3 * size, mask=mask, other=0.0)
        w = interpolate(at + 2 * F, 3 * F, mask, c)
        s4 += w * tl.load(sent + 4 * size, mask=mask, other=0.0)
        s5 += w * tl.load(sent + 5 * size, mask=mask, other=0.0)
        s6 += w * tl.load(sent + 6 * size, mask=mask, other=0.0)
        s7 += w * tl.load(sent + 7 * size, mask=mask, other=0.0)
        s8 += w * tl.load(sent + 8 * size, mask=mask, other=0.0)
    at = out + i.to(tl.int64) * F + f
    tl.store(at, tl.sum(s0, axis=0), mask=inside)
    tl.store(at + size, tl.sum(s1, axis=0), mask=inside)
    tl.store(at + 2 * size, tl.sum(s2, axis=0), mask=inside)
    tl.store(at + 3 * size, tl.sum(s3, axis=0), mask=inside)
    tl.store(at + 4 * size, tl.sum(s4, axis=0), mask=inside)
    tl.store(at + 5 * size, tl.sum(s5, axis=0), mask=inside)
    tl.store(at + 6 * size, tl.sum(s6, axis=0), mask=inside)
    tl.store(at + 7 * size, tl.sum(s7, axis=0), mask=inside)
    tl.store(at + 8 * size, tl.sum(s8, axis=0), mask=inside)


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
    kind = table.dtype.element_ty
    first = tl.load(rows + a)
    last = tl.load(rows + a + 1)
    size = n_atoms.to(tl.int64) * F
    own = y + a.to(tl.int64) * F + f
    y0 = tl.load(own, mask=inside, other=0.0)[None, :]
    y1 = tl.load(own + size, mask=inside, other=0.0)[None, :]
    y2 = tl.load(own + 2 * size, mask=inside, other=0.0)[None, :]
    y3 = tl.load(own + 3 * size, mask=inside, other=0.0)[None, :]
    y4 = tl.load(own + 4 * size, mask=inside, other=0.0)[None, :]
    y5 = tl.load(own + 5 * size, mask=inside, other=0.0)[None, :]
    y6 = tl.load(own + 6 * size, mask=inside, other=0.0)[None, :]
    y7 = tl.load(own + 7 * size, mask=inside, other=0.0)[None, :]
    y8 = tl.load(own + 8 * size, mask=inside, other=0.0)[None, :]
    s0 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s1 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s2 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s3 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s4 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s5 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s6 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s7 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    s8 = tl.zeros((EDGES, CHANNELS), dtype=kind)
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
        heard = gm + (b * F)[:, None] + f[None, :]
        w, s = interpolate_slopes(at, 3 * F, mask, c, d)
        g = tl.load(heard, mask=mask, other=0.0)
        s0 += w * g
        slope = s * g * y0
        w, s = interpolate_slopes(at + F, 3 * F, mask, c, d)
        g = tl.load(heard + size, mask=mask, other=0.0)
        s1 += w * g
        along = g * y1
        g = tl.load(heard + 2 * size, mask=mask, other=0.0)
        s2 += w * g
        along += g * y2
        g = tl.load(heard + 3 * size, mask=mask, other=0.0)
        s3 += w * g
        along += g * y3
        slope += s * along
        w, s = interpolate_slopes(at + 2 * F, 3 * F, mask, c, d)
        g = tl.load(heard + 4 * size, mask=mask, other=0.0)
        s4 += w * g
        along = g * y4
        g = tl.load(heard + 5 * size, mask=mask, other=0.0)
        s5 += w * g
        along += g * y5
        g = tl.load(heard + 6 * size, mask=mask, other=0.0)
        s6 += w * g
        along += g * y6
        g = tl.load(heard + 7 * size, mask=mask, other=0.0)
        s7 += w * g
        along += g * y7
        g = tl.load(heard + 8 * size, mask=mask, other=0.0)
        s8 += w * g
        along += g * y8
        slope += s * along
        tl.store(edges + e, tl.sum(slope, axis=1), mask=there)
    out = gy + a.to(tl.int64) * F + f
    tl.store(out, tl.sum(s0, axis=0), mask=inside)
    tl.store(out + size, tl.sum(s1, axis=0), mask=inside)
    tl.store(out + 2 * size, tl.sum(s2, axis=0), mask=inside)
    tl.store(out + 3 * size, tl.sum(s3, axis=0), mask=inside)
    tl.store(out + 4 * size, tl.sum(s4, axis=0), mask=inside)
    tl.store(out + 5 * size, tl.sum(s5, axis=0), mask=inside)
    tl.store(out + 6 * size, tl.sum(s6, axis=0), mask=inside)
    tl.store(out + 7 * size, tl.sum(s7, axis=0), mask=inside)
    tl.store(out + 8 * size, tl.sum(s8, axis=0), mask=inside)
