"""Functions of the distance on a few knots in place of every edge, for trainings.

A batch has thousands of edges, and a network of the distance is smooth: it is evaluated on evenly spaced knots, once a
step, and between them the polynomial through the six nearest is taken. Gradients flow through it to the weights of the
network and to the distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from asecalc_mlip.kernels.plain_tensor import TERMS
from asecalc_mlip.kernels.tensor import interpolate

__all__ = ["Knots", "knots_for"]

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
    weights : (E, 6)
        Of the six knots about each edge, differentiable in its distance.
    start : (E,) int64
        The first of them.
    """

    distances: Tensor
    weights: Tensor
    start: Tensor

    def values(self, on_knots: Tensor) -> Tensor:
        """(n, W) values on the knots → (E, W) on the edges."""
        return interpolate(self.weights, on_knots, self.start)


def knots_for(distances: Tensor, cutoff: float, *, n: int = N_KNOTS) -> Knots | None:
    """Knots for edges (E,) within the cutoff, or None where passing over all edges is as fast, or atoms overlap."""
    if len(distances) < 2 * n or bool(distances.detach().min() < CLOSEST) or cutoff <= 2 * CLOSEST:
        return None
    # Edges in a skin, as the displaced structures of a weak loss have them, read what is at the cutoff: nothing.
    distances = distances.clamp(max=cutoff)
    step = (cutoff - CLOSEST) / (n - 1)
    place = (distances - CLOSEST) / step
    with torch.no_grad():
        start = (place.floor() - (TERMS // 2 - 1)).clamp(0, n - TERMS).long()
    knots = torch.linspace(CLOSEST, cutoff, n, dtype=distances.dtype, device=distances.device)
    return Knots(knots, _lagrange(place - start), start)


def _lagrange(t: Tensor) -> Tensor:
    """Values at t (E,) of the polynomials that are one at one of 0 … 5 and zero at the others, (E, 6)."""
    points = torch.arange(TERMS, dtype=t.dtype, device=t.device)
    offsets = t[:, None] - points
    below, above = torch.ones_like(t), torch.ones_like(t)
    left, right = [below], [above]
    for k in range(TERMS - 1):
        left.append(left[-1] * offsets[:, k])
        right.append(right[-1] * offsets[:, TERMS - 1 - k])
    # Π (k − m) over the other points
    scale = [(-1.0) ** (TERMS - 1 - k) * math.factorial(k) * math.factorial(TERMS - 1 - k) for k in range(TERMS)]
    return torch.stack([left[k] * right[TERMS - 1 - k] / scale[k] for k in range(TERMS)], dim=1)
