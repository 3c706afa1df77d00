"""Kernels of TensorNet's messages in training; see tensor_message.cpp.

A tensor of an atom is nine rows of F numbers, one of the part I, three of A, five of S; filters have a row a part.
`h…` is a direction: with TANGENT a kernel gives the derivative along it of what it gives without. What is linear in two
inputs needs no kernel of its own for that: its derivative is the sum of two of the kind, and its gradients along a
direction are those with the direction in the place of the inputs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asecalc_mlip.kernels.triton.matrices import (
    filtered,
    inner_by_part,
    parts,
    plus,
    read,
    scaled,
    write_parts,
    write_sums,
    zeros,
)

__all__ = ["gather", "gather_back", "spread", "spread_back", "sum_rows"]


@triton.jit
def gather(
    rows, others, w, y, v, x, out, F, BOTH: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """m_i = Σ_e w_e y_j, and + v_e x_j with BOTH, over the rows of centres: w (E, 3F), y and out (N, 9, F)."""
    i = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    total = zeros(EDGES, CHANNELS, w.dtype.element_ty)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        mask = there[:, None] & inside[None, :]
        j = tl.load(others + e, mask=there, other=0)
        k = (e.to(tl.int64) * (3 * F))[:, None] + f[None, :]
        n = (j * (9 * F))[:, None] + f[None, :]
        total = plus(total, filtered(parts(w + k, F, mask), read(y, n, F, mask)))
        if BOTH:
            total = plus(total, filtered(parts(v + k, F, mask), read(x, n, F, mask)))
    write_sums(out + i * (9 * F) + f, F, total, inside)


@triton.jit
def gather_back(
    rows, order, centers, w, y, gm, gw, gy, F, EDGES: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Gradients gw (E, 3F) and gy (N, 9, F) from gm (N, 9, F); a row holds the edges that end in an atom."""
    a = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + a)
    last = tl.load(rows + a + 1)
    own = read(y, (a * (9 * F) + f)[None, :], F, inside[None, :])
    total = zeros(EDGES, CHANNELS, w.dtype.element_ty)
    for e0 in range(first, last, EDGES):
        place = e0 + tl.arange(0, EDGES)
        there = place < last
        mask = there[:, None] & inside[None, :]
        e = tl.load(order + place, mask=there, other=0).to(tl.int64)
        i = tl.load(centers + e, mask=there, other=0)
        k = (e * (3 * F))[:, None] + f[None, :]
        g = read(gm, (i * (9 * F))[:, None] + f[None, :], F, mask)
        total = plus(total, filtered(parts(w + k, F, mask), g))
        write_parts(gw + k, F, mask, inner_by_part(own, g))
    write_sums(gy + a * (9 * F) + f, F, total, inside)


@triton.jit
def spread(
    rows, others, w, s, a, b, out, F, EDGES: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """u_i = Σ_e s_e w_e (a_j + b_i) over the rows of centres: s (E, 9), w (E, 3F), a and b (N, F), out (N, 9, F)."""
    i = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    own = tl.load(b + i * F + f, mask=inside, other=0.0)[None, :]
    total = zeros(EDGES, CHANNELS, w.dtype.element_ty)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        mask = there[:, None] & inside[None, :]
        j = tl.load(others + e, mask=there, other=0)
        k = (e.to(tl.int64) * (3 * F))[:, None] + f[None, :]
        z = tl.load(a + (j * F)[:, None] + f[None, :], mask=mask, other=0.0) + own
        total = plus(total, filtered(scaled(parts(w + k, F, mask), z), numbers(s, e, there)))
    write_sums(out + i * (9 * F) + f, F, total, inside)


@triton.jit(do_not_specialize=["n_edges"])
def spread_back(
    rows, others, w, s, a, b, gu, hw, hs, ha, hb, du, gw, gs, gz, gb, n_edges, F,
    TANGENT: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients of edges, gw (E, 3F) and gs (blocks of channels, E, 9), and of z = a_j + b_i: gz (E, F), gb (N, F).

    All from gu (N, 9, F); with TANGENT also du, the derivative of u along the direction.
    """
    i = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    kind = w.dtype.element_ty
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    own = tl.load(b + i * F + f, mask=inside, other=0.0)[None, :]
    g = read(gu, (i * (9 * F) + f)[None, :], F, inside[None, :])
    by_edge = gs + tl.program_id(1).to(tl.int64) * (9 * n_edges)
    of_center = tl.zeros((EDGES, CHANNELS), dtype=kind)
    if TANGENT:
        h_own = tl.load(hb + i * F + f, mask=inside, other=0.0)[None, :]
        total = zeros(EDGES, CHANNELS, kind)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES).to(tl.int64)
        there = e < last
        mask = there[:, None] & inside[None, :]
        j = tl.load(others + e, mask=there, other=0)
        k = (e * (3 * F))[:, None] + f[None, :]
        n = (j * F)[:, None] + f[None, :]
        z = tl.load(a + n, mask=mask, other=0.0) + own
        v = parts(w + k, F, mask)
        row = numbers(s, e, there)
        along = inner_by_part(row, g)
        amounts = scaled(v, z)
        if TANGENT:
            hz = tl.load(ha + n, mask=mask, other=0.0) + h_own
            hv = parts(hw + k, F, mask)
            h_row = numbers(hs, e, there)
            turned = inner_by_part(h_row, g)
            changes = added(scaled(hv, z), scaled(v, hz))
            total = plus(total, plus(filtered(changes, row), filtered(amounts, h_row)))
            of_filter = added(scaled(turned, z), scaled(along, hz))
            of_z = hv[0] * along[0] + hv[1] * along[1] + hv[2] * along[2]
            of_z += v[0] * turned[0] + v[1] * turned[1] + v[2] * turned[2]
            amounts = changes
        else:
            of_filter = scaled(along, z)
            of_z = v[0] * along[0] + v[1] * along[1] + v[2] * along[2]
        write_parts(gw + k, F, mask, of_filter)
        of_row = filtered(amounts, g)
        for r in tl.static_range(0, 9):
            tl.store(by_edge + 9 * e + r, tl.sum(of_row[r], axis=1), mask=there)
        tl.store(gz + (e * F)[:, None] + f[None, :], of_z, mask=mask)
        of_center += of_z
    tl.store(gb + i * F + f, tl.sum(of_center, axis=0), mask=inside)
    if TANGENT:
        write_sums(du + i * (9 * F) + f, F, total, inside)


@triton.jit
def sum_rows(rows, order, values, out, F, EDGES: tl.constexpr, CHANNELS: tl.constexpr):
    """Sum values (E, F) of the edges that end in an atom: out (N, F)."""
    a = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + a)
    last = tl.load(rows + a + 1)
    total = tl.zeros((EDGES, CHANNELS), dtype=values.dtype.element_ty)
    for e0 in range(first, last, EDGES):
        place = e0 + tl.arange(0, EDGES)
        there = place < last
        e = tl.load(order + place, mask=there, other=0).to(tl.int64)
        at = values + (e * F)[:, None] + f[None, :]
        total += tl.load(at, mask=there[:, None] & inside[None, :], other=0.0)
    tl.store(out + a * F + f, tl.sum(total, axis=0), mask=inside)


@triton.jit
def numbers(s, e, there):
    """Nine numbers of edges, (EDGES, 1)."""
    return read(s, (9 * e)[:, None], 1, there[:, None])


@triton.jit
def added(a, b):
    """Sum of three numbers and three numbers."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
