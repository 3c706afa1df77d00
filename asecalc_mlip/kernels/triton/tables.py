"""Kernels that read a table between its nodes in training, w_e = Σ_k c_ek t_(start + k); see tensor_knots.cpp."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["look_up", "sum_by_edge", "sum_by_node"]


@triton.jit(do_not_specialize=["n_edges"])
def look_up(
    start, c, t, b, s, out, n_edges, F, BOTH: tl.constexpr, EDGES: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Σ_k c_ek t_(start + k), and + b_ek s_(start + k) with BOTH: c (E, 6), t (nodes, F), out (E, F)."""
    e = tl.program_id(0).to(tl.int64) * EDGES + tl.arange(0, EDGES)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = e < n_edges
    mask = there[:, None] & (f < F)[None, :]
    node = (tl.load(start + e, mask=there, other=0) * F)[:, None] + f[None, :]
    total = tl.zeros((EDGES, CHANNELS), dtype=t.dtype.element_ty)
    for k in tl.static_range(0, 6):
        weight = tl.load(c + 6 * e + k, mask=there, other=0.0)[:, None]
        total += weight * tl.load(t + node + k * F, mask=mask, other=0.0)
        if BOTH:
            weight = tl.load(b + 6 * e + k, mask=there, other=0.0)[:, None]
            total += weight * tl.load(s + node + k * F, mask=mask, other=0.0)
    tl.store(out + (e * F)[:, None] + f[None, :], total, mask=mask)


@triton.jit(do_not_specialize=["n_edges"])
def sum_by_edge(start, t, g, out, n_edges, F, EDGES: tl.constexpr, CHANNELS: tl.constexpr):
    """Σ_f t_(start + k) g_e over the features: g (E, F), out (E, 6)."""
    e = tl.program_id(0).to(tl.int64) * EDGES + tl.arange(0, EDGES)
    there = e < n_edges
    node = (tl.load(start + e, mask=there, other=0) * F)[:, None]
    kind = t.dtype.element_ty
    none = tl.zeros((EDGES,), dtype=kind)
    total = none, none, none, none, none, none
    for f0 in range(0, F, CHANNELS):
        f = f0 + tl.arange(0, CHANNELS)
        mask = there[:, None] & (f < F)[None, :]
        at = t + node + f[None, :]
        found = tl.load(g + (e * F)[:, None] + f[None, :], mask=mask, other=0.0)
        total = (
            total[0] + tl.sum(found * tl.load(at, mask=mask, other=0.0), axis=1),
            total[1] + tl.sum(found * tl.load(at + F, mask=mask, other=0.0), axis=1),
            total[2] + tl.sum(found * tl.load(at + 2 * F, mask=mask, other=0.0), axis=1),
            total[3] + tl.sum(found * tl.load(at + 3 * F, mask=mask, other=0.0), axis=1),
            total[4] + tl.sum(found * tl.load(at + 4 * F, mask=mask, other=0.0), axis=1),
            total[5] + tl.sum(found * tl.load(at + 5 * F, mask=mask, other=0.0), axis=1),
        )
    for k in tl.static_range(0, 6):
        tl.store(out + 6 * e + k, total[k], mask=there)


@triton.jit
def sum_by_node(rows, order, start, c, g, out, F, EDGES: tl.constexpr, CHANNELS: tl.constexpr):
    """Σ_e c_ek g_e over the edges that read a node, as their k-th: g (E, F), out (nodes, F).

    Edges are ordered by their first node, so those that read a node follow one another.
    """
    node = tl.program_id(0)
    f = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = f < F
    first = tl.load(rows + tl.maximum(node - 5, 0))
    last = tl.load(rows + node + 1)
    total = tl.zeros((EDGES, CHANNELS), dtype=g.dtype.element_ty)
    for e0 in range(first, last, EDGES):
        place = e0 + tl.arange(0, EDGES)
        there = place < last
        e = tl.load(order + place, mask=there, other=0).to(tl.int64)
        k = node - tl.load(start + e, mask=there, other=0)
        weight = tl.load(c + 6 * e + k, mask=there, other=0.0)[:, None]
        at = g + (e * F)[:, None] + f[None, :]
        total += weight * tl.load(at, mask=there[:, None] & inside[None, :], other=0.0)
    tl.store(out + node.to(tl.int64) * F + f, tl.sum(total, axis=0), mask=inside)
