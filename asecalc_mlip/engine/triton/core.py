"""Kernels of the ZBL core, the part of a sum that has no weights; its equations are in models/zbl.py."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["core", "core_backward"]


@triton.jit
def core(rows, elements, vectors, numbers, species, energies, slopes, n_species, coulomb, EDGES: tl.constexpr):
    """Energies of atoms, half of each pair's, and of each edge the derivative of its half by the distance, over it.

    `species` holds for each atomic number the share of the screening rate, 1/Å, and then the covalent radii, Å;
    `coulomb` one number, e²/4πε0 in eV Å.
    """
    i = tl.program_id(0)
    kind = species.dtype.element_ty
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    a = tl.load(numbers + i)
    rate_a = tl.load(species + a)
    radius_a = tl.load(species + n_species + a)
    charge = 0.5 * tl.load(coulomb) * a
    total = tl.zeros((EDGES,), dtype=kind)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        b = tl.load(elements + e, mask=there, other=0)
        x = tl.load(vectors + 3 * e, mask=there, other=100.0)
        y = tl.load(vectors + 3 * e + 1, mask=there, other=100.0)
        z = tl.load(vectors + 3 * e + 2, mask=there, other=100.0)
        d = tl.sqrt(x * x + y * y + z * z).to(kind)
        rate = rate_a + tl.load(species + b, mask=there, other=1.0)
        bond = radius_a + tl.load(species + n_species + b, mask=there, other=1.0)
        p = 0.18175 * tl.exp(-3.19980 * rate * d)
        q = 0.50986 * tl.exp(-0.94229 * rate * d)
        r = 0.28022 * tl.exp(-0.40290 * rate * d)
        t = 0.02817 * tl.exp(-0.20162 * rate * d)
        screening = p + q + r + t
        bend = -rate * (3.19980 * p + 0.94229 * q + 0.40290 * r + 0.20162 * t)
        # From 0.8 of the bond, where it ends, to 0.4.
        s = (0.8 * bond - d) / (0.4 * bond)
        s = tl.minimum(tl.maximum(s, 0.0), 1.0)
        switch = s * s * s * (10.0 + s * (6.0 * s - 15.0))
        step = -30.0 * s * s * (1.0 - s) * (1.0 - s) / (0.4 * bond)
        over = 1.0 / d
        scale = (charge * b).to(kind) * over
        total += tl.where(there, scale * screening * switch, 0.0)
        slope = scale * (bend * switch + screening * step - screening * switch * over)
        tl.store(slopes + e, slope * over, mask=there)
    tl.store(energies + i, tl.sum(total, axis=0))


@triton.jit
def core_backward(rows, vectors, slopes, gradient, out, EDGES: tl.constexpr):
    """Gradient by vectors (E, 3), float64, from that by the energies of atoms."""
    i = tl.program_id(0)
    first = tl.load(rows + i)
    last = tl.load(rows + i + 1)
    g = tl.load(gradient + i).to(tl.float64)
    for e0 in range(first, last, EDGES):
        e = e0 + tl.arange(0, EDGES)
        there = e < last
        slope = g * tl.load(slopes + e, mask=there, other=0.0).to(tl.float64)
        for k in tl.static_range(0, 3):
            v = tl.load(vectors + 3 * e + k, mask=there, other=0.0)
            tl.store(out + 3 * e + k, slope * v, mask=there)
