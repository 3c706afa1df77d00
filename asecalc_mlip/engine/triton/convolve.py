"""Kernels of PaiNN's and SchNet's messages: one program for each atom and block of channels, over the atom's row.

With filters w(d) of one part (SchNet), two (PaiNN's first block, whose vectors are zero) or three:

    q_i += Σ_j w₁ x₁_j,   μ_i += Σ_j w₂ x₂_j u_ij + w₃ x₃_j μ_j

Rows hold both directions of each pair, so the edges that end in atom a are those of row a turned round, and the
backward pass is a gather too: every sum has one owner, there are no atomic additions, and results do not change from
run to run. Neither pass holds numbers per edge and channel. Gradients of an edge are summed over the channels of a
program, and stored for each of the blocks of channels.
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

__all__ = ["convolve", "convolve_backward", "convolve_edges"]


@triton.jit(do_not_specialize=["n_edges"])
def convolve(
    rows, senders, place, fraction, directions, table, x, q, mu, out_q, out_m, n_edges, F,
    PARTS: tl.constexpr, BASE: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum over the rows of atoms: out_q (N, F) and out_m (N, 3, F), added to q with BASE and to μ with three parts.

    x (senders, PARTS, F), μ (senders, 3, F).
    """
    i = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    width = PARTS * F
    kind = table.dtype.element_ty
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    total = tl.zeros((EDGES, CHANNELS), dtype=kind)
    mx = tl.zeros((EDGES, CHANNELS), dtype=kind)
    my = tl.zeros((EDGES, CHANNELS), dtype=kind)
    mz = tl.zeros((EDGES, CHANNELS), dtype=kind)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        row = tl.load(place + e, mask=e < last, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        j = tl.load(senders + e, mask=near, other=0).to(tl.int64)
        c = spline_values(tl.load(fraction + e, mask=near, other=0.0))
        at = table + (row * (2 * width))[:, None] + f[None, :]
        sent = x + (j * width)[:, None] + f[None, :]
        total += interpolate(at, width, mask, c) * tl.load(sent, mask=mask, other=0.0)
        if PARTS > 1:
            ux = tl.load(directions + e, mask=near, other=0.0)
            uy = tl.load(directions + n_edges + e, mask=near, other=0.0)
            uz = tl.load(directions + 2 * n_edges + e, mask=near, other=0.0)
            along = interpolate(at + F, width, mask, c) * tl.load(sent + F, mask=mask, other=0.0)
            mx += along * ux[:, None]
            my += along * uy[:, None]
            mz += along * uz[:, None]
        if PARTS > 2:
            kept = interpolate(at + 2 * F, width, mask, c) * tl.load(sent + 2 * F, mask=mask, other=0.0)
            vector = mu + (j * width)[:, None] + f[None, :]
            mx += kept * tl.load(vector, mask=mask, other=0.0)
            my += kept * tl.load(vector + F, mask=mask, other=0.0)
            mz += kept * tl.load(vector + 2 * F, mask=mask, other=0.0)
    at = i.to(tl.int64) * F + f
    result = tl.sum(total, axis=0)
    if BASE:
        result += tl.load(q + at, mask=inside, other=0.0)
    tl.store(out_q + at, result, mask=inside)
    if PARTS > 1:
        at = i.to(tl.int64) * (3 * F) + f
        vx = tl.sum(mx, axis=0)
        vy = tl.sum(my, axis=0)
        vz = tl.sum(mz, axis=0)
        if PARTS > 2:
            vx += tl.load(mu + at, mask=inside, other=0.0)
            vy += tl.load(mu + at + F, mask=inside, other=0.0)
            vz += tl.load(mu + at + 2 * F, mask=inside, other=0.0)
        tl.store(out_m + at, vx, mask=inside)
        tl.store(out_m + at + F, vy, mask=inside)
        tl.store(out_m + at + 2 * F, vz, mask=inside)


@triton.jit(do_not_specialize=["n_edges"])
def convolve_backward(
    rows, senders, place, fraction, stretch, directions, table, x, mu, gq, gm, gx, gmu, by_edge, n_edges, F,
    PARTS: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients gx (N, PARTS, F) and gμ (N, 3, F) of what atoms sent, from those of their listeners, and by edges.

    Row a is read as the edges that end in a: the listener is the neighbour b, and the direction −u. The gradient by
    distance and direction of such an edge is written as that of the edge in row a, whose direction is u: by_edge
    (blocks of channels, 4, E), for one part (blocks of channels, 1, E).
    """
    a = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    width = PARTS * F
    kind = table.dtype.element_ty
    first = tl.load(rows + a)
    last = tl.load(rows + a + 1)
    own = x + a.to(tl.int64) * width + f
    x1 = tl.load(own, mask=inside, other=0.0)
    g1 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    edges = by_edge + tl.program_id(1).to(tl.int64) * n_edges
    if PARTS > 1:
        edges = by_edge + tl.program_id(1).to(tl.int64) * (4 * n_edges)
        x2 = tl.load(own + F, mask=inside, other=0.0)
        g2 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    if PARTS > 2:
        x3 = tl.load(own + 2 * F, mask=inside, other=0.0)
        vector = mu + a.to(tl.int64) * (3 * F) + f
        vx = tl.load(vector, mask=inside, other=0.0)
        vy = tl.load(vector + F, mask=inside, other=0.0)
        vz = tl.load(vector + 2 * F, mask=inside, other=0.0)
        g3 = tl.zeros((EDGES, CHANNELS), dtype=kind)
        hx = tl.zeros((EDGES, CHANNELS), dtype=kind)
        hy = tl.zeros((EDGES, CHANNELS), dtype=kind)
        hz = tl.zeros((EDGES, CHANNELS), dtype=kind)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        row = tl.load(place + e, mask=there, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        b = tl.load(senders + e, mask=near, other=0).to(tl.int64)
        t = tl.load(fraction + e, mask=near, other=0.0)
        c = spline_values(t)
        d = spline_slopes(t, tl.load(stretch + e, mask=near, other=0.0))
        at = table + (row * (2 * width))[:, None] + f[None, :]
        q = tl.load(gq + (b * F)[:, None] + f[None, :], mask=mask, other=0.0)
        w, s = interpolate_slopes(at, width, mask, c, d)
        g1 += w * q
        slope = s * x1[None, :] * q
        if PARTS > 1:
            ux = tl.load(directions + e, mask=near, other=0.0)
            uy = tl.load(directions + n_edges + e, mask=near, other=0.0)
            uz = tl.load(directions + 2 * n_edges + e, mask=near, other=0.0)
            heard = gm + (b * (3 * F))[:, None] + f[None, :]
            ax = tl.load(heard, mask=mask, other=0.0)
            ay = tl.load(heard + F, mask=mask, other=0.0)
            az = tl.load(heard + 2 * F, mask=mask, other=0.0)
            along = -(ux[:, None] * ax + uy[:, None] * ay + uz[:, None] * az)
            w, s = interpolate_slopes(at + F, width, mask, c, d)
            g2 += w * along
            slope += s * x2[None, :] * along
            turn = -w * x2[None, :]
            tl.store(edges + n_edges + e, tl.sum(turn * ax, axis=1), mask=there)
            tl.store(edges + 2 * n_edges + e, tl.sum(turn * ay, axis=1), mask=there)
            tl.store(edges + 3 * n_edges + e, tl.sum(turn * az, axis=1), mask=there)
            if PARTS > 2:
                inner = vx[None, :] * ax + vy[None, :] * ay + vz[None, :] * az
                w, s = interpolate_slopes(at + 2 * F, width, mask, c, d)
                g3 += w * inner
                slope += s * x3[None, :] * inner
                kept = w * x3[None, :]
                hx += kept * ax
                hy += kept * ay
                hz += kept * az
        tl.store(edges + e, tl.sum(slope, axis=1), mask=there)
    out = gx + a.to(tl.int64) * width + f
    tl.store(out, tl.sum(g1, axis=0), mask=inside)
    if PARTS > 1:
        tl.store(out + F, tl.sum(g2, axis=0), mask=inside)
    if PARTS > 2:
        tl.store(out + 2 * F, tl.sum(g3, axis=0), mask=inside)
        # What comes after has μ itself too.
        passed = gm + a.to(tl.int64) * (3 * F) + f
        out = gmu + a.to(tl.int64) * (3 * F) + f
        tl.store(out, tl.sum(hx, axis=0) + tl.load(passed, mask=inside, other=0.0), mask=inside)
        tl.store(out + F, tl.sum(hy, axis=0) + tl.load(passed + F, mask=inside, other=0.0), mask=inside)
        tl.store(out + 2 * F, tl.sum(hz, axis=0) + tl.load(passed + 2 * F, mask=inside, other=0.0), mask=inside)


@triton.jit(do_not_specialize=["n_edges"])
def convolve_edges(
    rows, senders, place, fraction, stretch, directions, table, x, gq, gm, by_edge, n_edges, F,
    PARTS: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients by edges alone, where what is sent is constant: of one or two parts, from the side of the listener."""
    i = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    width = PARTS * F
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    q = tl.load(gq + i.to(tl.int64) * F + f, mask=inside, other=0.0)
    edges = by_edge + tl.program_id(1).to(tl.int64) * n_edges
    if PARTS > 1:
        edges = by_edge + tl.program_id(1).to(tl.int64) * (4 * n_edges)
        own = gm + i.to(tl.int64) * (3 * F) + f
        ax = tl.load(own, mask=inside, other=0.0)
        ay = tl.load(own + F, mask=inside, other=0.0)
        az = tl.load(own + 2 * F, mask=inside, other=0.0)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        row = tl.load(place + e, mask=there, other=-1)
        near = row >= 0
        mask = near[:, None] & inside[None, :]
        j = tl.load(senders + e, mask=near, other=0).to(tl.int64)
        t = tl.load(fraction + e, mask=near, other=0.0)
        c = spline_values(t)
        d = spline_slopes(t, tl.load(stretch + e, mask=near, other=0.0))
        at = table + (row * (2 * width))[:, None] + f[None, :]
        sent = x + (j * width)[:, None] + f[None, :]
        slope = slopes_alone(at, width, mask, d) * tl.load(sent, mask=mask, other=0.0) * q[None, :]
        if PARTS > 1:
            ux = tl.load(directions + e, mask=near, other=0.0)
            uy = tl.load(directions + n_edges + e, mask=near, other=0.0)
            uz = tl.load(directions + 2 * n_edges + e, mask=near, other=0.0)
            x2 = tl.load(sent + F, mask=mask, other=0.0)
            w, s = interpolate_slopes(at + F, width, mask, c, d)
            along = ux[:, None] * ax[None, :] + uy[:, None] * ay[None, :] + uz[:, None] * az[None, :]
            slope += s * x2 * along
            turn = w * x2
            tl.store(edges + n_edges + e, tl.sum(turn * ax[None, :], axis=1), mask=there)
            tl.store(edges + 2 * n_edges + e, tl.sum(turn * ay[None, :], axis=1), mask=there)
            tl.store(edges + 3 * n_edges + e, tl.sum(turn * az[None, :], axis=1), mask=there)
        tl.store(edges + e, tl.sum(slope, axis=1), mask=there)
