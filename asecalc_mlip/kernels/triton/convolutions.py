"""Kernels of PaiNN's and SchNet's messages in training; see message.cpp.

    q_i = Σ_e w₁ x₁_j,   μ_i = Σ_e w₂ x₂_j u_e + w₃ x₃_j μ_j

with filters w (E, PARTS F) of one part (SchNet), two (PaiNN's first block, whose vectors are zero) or three. `h…` is a
direction: with TANGENT a kernel gives the derivative along it of what it gives without.
"""

from __future__ import annotations

import triton
import triton.language as tl

from asecalc_mlip.kernels.triton.matrices import parts

__all__ = ["convolve", "convolve_back"]


@triton.jit
def convolve(
    rows, others, w, u, x, mu, hw, hu, hx, hmu, out_q, out_m, F,
    PARTS: tl.constexpr, TANGENT: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum over the rows of centres: out_q (N, F) and out_m (N, 3, F)."""
    i = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    width = PARTS * F
    kind = w.dtype.element_ty
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    total = tl.zeros((EDGES, CHANNELS), dtype=kind)
    mx = tl.zeros((EDGES, CHANNELS), dtype=kind)
    my = tl.zeros((EDGES, CHANNELS), dtype=kind)
    mz = tl.zeros((EDGES, CHANNELS), dtype=kind)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        mask = there[:, None] & inside[None, :]
        j = tl.load(others + e, mask=there, other=0)
        k = (e.to(tl.int64) * width)[:, None] + f[None, :]
        n = (j * width)[:, None] + f[None, :]
        a = tl.load(w + k, mask=mask, other=0.0)
        b = tl.load(x + n, mask=mask, other=0.0)
        if TANGENT:
            total += tl.load(hw + k, mask=mask, other=0.0) * b + a * tl.load(hx + n, mask=mask, other=0.0)
        else:
            total += a * b
        if PARTS > 1:
            ux, uy, uz = direction(u, e, there)
            a = tl.load(w + k + F, mask=mask, other=0.0)
            b = tl.load(x + n + F, mask=mask, other=0.0)
            along = a * b
            if TANGENT:
                turned = tl.load(hw + k + F, mask=mask, other=0.0) * b
                turned += a * tl.load(hx + n + F, mask=mask, other=0.0)
                vx, vy, vz = direction(hu, e, there)
                mx += turned * ux + along * vx
                my += turned * uy + along * vy
                mz += turned * uz + along * vz
            else:
                mx += along * ux
                my += along * uy
                mz += along * uz
        if PARTS > 2:
            a = tl.load(w + k + 2 * F, mask=mask, other=0.0)
            b = tl.load(x + n + 2 * F, mask=mask, other=0.0)
            kept = a * b
            vx, vy, vz = parts(mu + n, F, mask)
            if TANGENT:
                change = tl.load(hw + k + 2 * F, mask=mask, other=0.0) * b
                change += a * tl.load(hx + n + 2 * F, mask=mask, other=0.0)
                gx, gy, gz = parts(hmu + n, F, mask)
                mx += change * vx + kept * gx
                my += change * vy + kept * gy
                mz += change * vz + kept * gz
            else:
                mx += kept * vx
                my += kept * vy
                mz += kept * vz
    tl.store(out_q + i * F + f, tl.sum(total, axis=0), mask=inside)
    if PARTS > 1:
        at = out_m + i * (3 * F) + f
        tl.store(at, tl.sum(mx, axis=0), mask=inside)
        tl.store(at + F, tl.sum(my, axis=0), mask=inside)
        tl.store(at + 2 * F, tl.sum(mz, axis=0), mask=inside)


@triton.jit(do_not_specialize=["n_edges"])
def convolve_back(
    rows, order, centers, w, u, x, mu, gq, gm, hw, hu, hx, hmu, gw, gu, gx, gmu, n_edges, F,
    PARTS: tl.constexpr, TANGENT: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients of what atoms sent, gx (N, PARTS F) and gμ (N, 3, F), and of edges, from those of centres.

    A row holds the edges that end in an atom: `order` says which. gw (E, PARTS F); gu (blocks of channels, E, 3).
    """
    a = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    width = PARTS * F
    kind = w.dtype.element_ty
    first = tl.load(rows + a)
    last = tl.load(rows + a + 1)
    own = a * width + f
    x1 = tl.load(x + own, mask=inside, other=0.0)[None, :]
    if TANGENT:
        h1 = tl.load(hx + own, mask=inside, other=0.0)[None, :]
    sum1 = tl.zeros((EDGES, CHANNELS), dtype=kind)
    if PARTS > 1:
        x2 = tl.load(x + own + F, mask=inside, other=0.0)[None, :]
        if TANGENT:
            h2 = tl.load(hx + own + F, mask=inside, other=0.0)[None, :]
        sum2 = tl.zeros((EDGES, CHANNELS), dtype=kind)
        by_edge = gu + tl.program_id(1).to(tl.int64) * (3 * n_edges)
    if PARTS > 2:
        x3 = tl.load(x + own + 2 * F, mask=inside, other=0.0)[None, :]
        mx, my, mz = parts(mu + own, F, inside)
        if TANGENT:
            h3 = tl.load(hx + own + 2 * F, mask=inside, other=0.0)[None, :]
            nx, ny, nz = parts(hmu + own, F, inside)
        sum3 = tl.zeros((EDGES, CHANNELS), dtype=kind)
        sx = tl.zeros((EDGES, CHANNELS), dtype=kind)
        sy = tl.zeros((EDGES, CHANNELS), dtype=kind)
        sz = tl.zeros((EDGES, CHANNELS), dtype=kind)
    for e0 in range(first, last, EDGES):
        place = e0 + tl.arange(0, EDGES)
        there = place < last
        mask = there[:, None] & inside[None, :]
        e = tl.load(order + place, mask=there, other=0).to(tl.int64)
        i = tl.load(centers + e, mask=there, other=0)
        k = (e * width)[:, None] + f[None, :]
        q = tl.load(gq + (i * F)[:, None] + f[None, :], mask=mask, other=0.0)
        if TANGENT:
            tl.store(gw + k, h1 * q, mask=mask)
            sum1 += tl.load(hw + k, mask=mask, other=0.0) * q
        else:
            tl.store(gw + k, x1 * q, mask=mask)
            sum1 += tl.load(w + k, mask=mask, other=0.0) * q
        if PARTS > 1:
            gx_, gy_, gz_ = parts(gm + (i * (3 * F))[:, None] + f[None, :], F, mask)
            ux, uy, uz = direction(u, e, there)
            along = ux * gx_ + uy * gy_ + uz * gz_
            w2 = tl.load(w + k + F, mask=mask, other=0.0)
            if TANGENT:
                vx, vy, vz = direction(hu, e, there)
                turned = vx * gx_ + vy * gy_ + vz * gz_
                hw2 = tl.load(hw + k + F, mask=mask, other=0.0)
                tl.store(gw + k + F, h2 * along + x2 * turned, mask=mask)
                sum2 += hw2 * along + w2 * turned
                amount = hw2 * x2 + w2 * h2
            else:
                tl.store(gw + k + F, x2 * along, mask=mask)
                sum2 += w2 * along
                amount = w2 * x2
            tl.store(by_edge + 3 * e, tl.sum(amount * gx_, axis=1), mask=there)
            tl.store(by_edge + 3 * e + 1, tl.sum(amount * gy_, axis=1), mask=there)
            tl.store(by_edge + 3 * e + 2, tl.sum(amount * gz_, axis=1), mask=there)
        if PARTS > 2:
            inner = mx[None, :] * gx_ + my[None, :] * gy_ + mz[None, :] * gz_
            w3 = tl.load(w + k + 2 * F, mask=mask, other=0.0)
            if TANGENT:
                turned = nx[None, :] * gx_ + ny[None, :] * gy_ + nz[None, :] * gz_
                hw3 = tl.load(hw + k + 2 * F, mask=mask, other=0.0)
                tl.store(gw + k + 2 * F, h3 * inner + x3 * turned, mask=mask)
                sum3 += hw3 * inner + w3 * turned
                amount = hw3 * x3 + w3 * h3
            else:
                tl.store(gw + k + 2 * F, x3 * inner, mask=mask)
                sum3 += w3 * inner
                amount = w3 * x3
            sx += amount * gx_
            sy += amount * gy_
            sz += amount * gz_
    tl.store(gx + own, tl.sum(sum1, axis=0), mask=inside)
    if PARTS > 1:
        tl.store(gx + own + F, tl.sum(sum2, axis=0), mask=inside)
    if PARTS > 2:
        tl.store(gx + own + 2 * F, tl.sum(sum3, axis=0), mask=inside)
        tl.store(gmu + own, tl.sum(sx, axis=0), mask=inside)
        tl.store(gmu + own + F, tl.sum(sy, axis=0), mask=inside)
        tl.store(gmu + own + 2 * F, tl.sum(sz, axis=0), mask=inside)


@triton.jit
def direction(u, e, there):
    """Three numbers of edges, (EDGES, 1)."""
    x = tl.load(u + 3 * e, mask=there, other=0.0)[:, None]
    y = tl.load(u + 3 * e + 1, mask=there, other=0.0)[:, None]
    z = tl.load(u + 3 * e + 2, mask=there, other=0.0)[:, None]
    return x, y, z
