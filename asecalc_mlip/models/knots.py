"""Functions of the distance on a few knots in place of every edge, for trainings.

A batch has thousands of edges, and a network of the distance is smooth: it is evaluated on knots, once a step, and
between them the polynomial through the six nearest is taken. Gradients flow through it to the weights of the network
and to the distances.

Knots are even in a coordinate u(r). Where radial functions are as narrow everywhere, u is the distance; those of
`ExpNormalBasis` widen as exp(5r/r_c), so with c of them

    u(r) = e (r − r_0) − c exp(−5r/r_c) + constant
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from asecalc_mlip.kernels.plain_tensor import TERMS

__all__ = ["Knots", "knots_for"]

# Knots that are spread evenly, for radial functions without a word on that.
N_KNOTS = 384
# Å; closer atoms are passed over the network itself.
CLOSEST = 0.2


@dataclass(frozen=True)
class Knots:
    """Where edges lie among knots.

    Attributes
    ----------
    distances : (n,)
        Of the knots, Å.
    place : (E,)
        Distance of each edge from the first of the six knots about it, in those of the knots.
    start : (E,) int64
        That knot.
    """

    distances: Tensor
    place: Tensor
    start: Tensor


def knots_for(distances: Tensor, cutoff: float, even: int = N_KNOTS, crowded: int = 0) -> Knots | None:
    """Knots for edges (E,), or None where passing over all edges is as fast, or atoms overlap.

    Parameters
    ----------
    distances : (E,)
        Å.
    cutoff : float
        Å.
    even, crowded : int
        How many knots are even in the distance, and how many more are crowded where atoms are close.
    """
    n = even + crowded
    if len(distances) < 2 * n or bool(distances.detach().min() < CLOSEST) or cutoff <= 2 * CLOSEST:
        return None
    # Edges in a skin, as the displaced structures of a weak loss have them, read what is at the cutoff: nothing.
    u, scale = _coordinate(distances.clamp(max=cutoff), cutoff, even, crowded)
    place = u * scale
    with torch.no_grad():
        start = (place.floor() - (TERMS // 2 - 1)).clamp(0, n - TERMS).long()
        # Nobody reads the knots below those of the shortest edge.
        first = int(start.min())
    knots = torch.tensor(_places(cutoff, even, crowded), dtype=distances.dtype, device=distances.device)
    return Knots(knots[first:], place - start, start - first)


def _coordinate(r: Tensor, cutoff: float, even: int, crowded: int) -> tuple[Tensor, float]:
    """u(r), zero at the first knot, and the number by which it becomes that of a knot."""
    steep, rate = crowded / (1.0 - math.exp(-5.0)), 5.0 / cutoff
    slope, first = even / (cutoff - CLOSEST), math.exp(-rate * CLOSEST)
    u = (r - CLOSEST) * slope
    if crowded:
        u = u + steep * (first - torch.exp(-rate * r))
    return u, (even + crowded - 1) / (even + steep * (first - math.exp(-5.0)))


@lru_cache(maxsize=8)
def _places(cutoff: float, even: int, crowded: int) -> list[float]:
    """Distances of the knots in Å, by Newton's method; u rises and bends down, so from the left it never overshoots."""
    aims = torch.arange(even + crowded, dtype=torch.float64)
    r = torch.full_like(aims, CLOSEST)
    for _ in range(60):
        with torch.enable_grad():
            at = r.requires_grad_()
            u, scale = _coordinate(at, cutoff, even, crowded)
            (slopes,) = torch.autograd.grad(u.sum() * scale, at)
        r = (at + (aims - u * scale) / slopes).detach()
    return r.clamp(CLOSEST, cutoff).tolist()
