"""Kernels of the numbers that PaiNN's mixing multiplies on each atom and channel, between its matrix products.

With (v, u) = μ C of an atom, side by side as vu (N, 3, 2F), and (a, b, c) = M(q, |v|):

    q ← q + a + c ⟨v, u⟩,   μ ← μ + b u

After the last block nobody reads μ, so there is no b: the context has (a, c) then.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["combine", "combine_backward", "lengths", "lengths_backward"]


@triton.jit(do_not_specialize=["size"])
def lengths(q, vu, out, size, F, BLOCK: tl.constexpr):
    """Write q and |v| side by side, out (N, 2F)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = at // F
    f = at % F
    v = vu + n * (6 * F) + f
    x = tl.load(v, mask=mask, other=0.0)
    y = tl.load(v + 2 * F, mask=mask, other=0.0)
    z = tl.load(v + 4 * F, mask=mask, other=0.0)
    to = out + n * (2 * F) + f
    tl.store(to, tl.load(q + at, mask=mask, other=0.0), mask=mask)
    # As `norms` of models/vector_head.py.
    tl.store(to + F, tl.sqrt(x * x + y * y + z * z + 1e-8), mask=mask)


@triton.jit(do_not_specialize=["size"])
def lengths_backward(given, gq, vu, both, g, gvu, size, F, BLOCK: tl.constexpr):
    """Write gq = given + what g (N, 2F) passes to q, and add to gvu what it passes to v.

    `both` is what `lengths` made.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = at // F
    f = at % F
    row = n * (2 * F) + f
    passed = tl.load(given + at, mask=mask, other=0.0) + tl.load(g + row, mask=mask, other=0.0)
    tl.store(gq + at, passed, mask=mask)
    s = tl.load(g + row + F, mask=mask, other=0.0) / tl.load(both + row + F, mask=mask, other=1.0)
    place = n * (6 * F) + f
    for k in tl.static_range(0, 3):
        here = place + 2 * k * F
        v = tl.load(vu + here, mask=mask, other=0.0)
        tl.store(gvu + here, tl.load(gvu + here, mask=mask, other=0.0) + s * v, mask=mask)


@triton.jit(do_not_specialize=["size"])
def combine(q, mu, vu, context, out_q, out_mu, size, F, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """q + a + c ⟨v, u⟩ and μ + b u; the context is (N, 3F), of the last block (N, 2F)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = at // F
    f = at % F
    v = vu + n * (6 * F) + f
    ux = tl.load(v + F, mask=mask, other=0.0)
    uy = tl.load(v + 3 * F, mask=mask, other=0.0)
    uz = tl.load(v + 5 * F, mask=mask, other=0.0)
    inner = tl.load(v, mask=mask, other=0.0) * ux
    inner += tl.load(v + 2 * F, mask=mask, other=0.0) * uy
    inner += tl.load(v + 4 * F, mask=mask, other=0.0) * uz
    if LAST:
        row = context + n * (2 * F) + f
        c = tl.load(row + F, mask=mask, other=0.0)
    else:
        row = context + n * (3 * F) + f
        b = tl.load(row + F, mask=mask, other=0.0)
        c = tl.load(row + 2 * F, mask=mask, other=0.0)
        vector = n * (3 * F) + f
        tl.store(out_mu + vector, tl.load(mu + vector, mask=mask, other=0.0) + b * ux, mask=mask)
        tl.store(out_mu + vector + F, tl.load(mu + vector + F, mask=mask, other=0.0) + b * uy, mask=mask)
        tl.store(out_mu + vector + 2 * F, tl.load(mu + vector + 2 * F, mask=mask, other=0.0) + b * uz, mask=mask)
    a = tl.load(row, mask=mask, other=0.0)
    tl.store(out_q + at, tl.load(q + at, mask=mask, other=0.0) + a + c * inner, mask=mask)


@triton.jit(do_not_specialize=["size"])
def combine_backward(vu, context, gq, gmu, by_context, gvu, size, F, LAST: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients by the context, and by vu; those by q and μ are gq and gμ."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    n = at // F
    f = at % F
    g = tl.load(gq + at, mask=mask, other=0.0)
    place = n * (6 * F) + f
    if LAST:
        row = n * (2 * F) + f
        c = tl.load(context + row + F, mask=mask, other=0.0)
    else:
        row = n * (3 * F) + f
        b = tl.load(context + row + F, mask=mask, other=0.0)
        c = tl.load(context + row + 2 * F, mask=mask, other=0.0)
        turned = tl.zeros((BLOCK,), dtype=c.dtype)
    inner = tl.zeros((BLOCK,), dtype=c.dtype)
    for k in tl.static_range(0, 3):
        v = tl.load(vu + place + 2 * k * F, mask=mask, other=0.0)
        u = tl.load(vu + place + (2 * k + 1) * F, mask=mask, other=0.0)
        inner += v * u
        tl.store(gvu + place + 2 * k * F, g * c * u, mask=mask)
        gu = g * c * v
        if not LAST:
            h = tl.load(gmu + n * (3 * F) + k * F + f, mask=mask, other=0.0)
            turned += h * u
            gu += b * h
        tl.store(gvu + place + (2 * k + 1) * F, gu, mask=mask)
    tl.store(by_context + row, g, mask=mask)
    if LAST:
        tl.store(by_context + row + F, g * inner, mask=mask)
    else:
        tl.store(by_context + row + F, turned, mask=mask)
        tl.store(by_context + row + 2 * F, g * inner, mask=mask)
