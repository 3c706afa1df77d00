"""TensorNet's operations in plain torch: any device, any order of derivative, traceable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "PARTS",
    "ROWS",
    "TERMS",
    "bounded",
    "by_row",
    "from_matrices",
    "interpolate",
    "lagrange",
    "mixed",
    "product",
    "rows_of",
    "spread_message",
    "squares",
    "symmetric_product",
    "tensor_message",
    "to_matrices",
]

# Which of the three parts, I, A and S, each of the nine rows of a tensor belongs to.
PARTS = [0, 1, 1, 1, 2, 2, 2, 2, 2]
# And the rows of each part.
ROWS = (slice(0, 1), slice(1, 4), slice(4, 9))
TERMS = 6


def tensor_message(filters: Tensor, y: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """See `asecalc_mlip.kernels.tensor.tensor_message`."""
    values = by_row(filters.unflatten(-1, (3, -1))) * y.index_select(0, neighbors)
    return values.new_zeros(y.shape).index_add(0, centers, values)


def spread_message(
    filters: Tensor, rows: Tensor, of_neighbor: Tensor, of_center: Tensor, centers: Tensor, neighbors: Tensor
) -> Tensor:
    """See `asecalc_mlip.kernels.tensor.spread_message`."""
    z = of_neighbor.index_select(0, neighbors) + of_center.index_select(0, centers)
    amounts = filters.unflatten(-1, (3, -1)) * z[:, None]
    values = by_row(amounts) * rows[:, :, None]
    return values.new_zeros((of_center.shape[0], *values.shape[1:])).index_add(0, centers, values)


def interpolate(weights: Tensor, table: Tensor, _: Tensor, start: Tensor) -> Tensor:
    """See `asecalc_mlip.kernels.tensor.interpolate`."""
    rows = table[start[:, None] + torch.arange(TERMS, device=start.device)]
    return (weights[:, :, None] * rows).sum(1)


def lagrange(t: Tensor) -> Tensor:
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


def by_row(values: Tensor) -> Tensor:
    """Give each of the nine rows the numbers of its part: (n, 3, F) to (n, 9, F)."""
    # Not values[:, PARTS]: a list of indices goes to a GPU at every call, and the host waits, as no CUDA graph may.
    i, a, s = values.split(1, dim=1)
    return torch.cat((i, a.expand(-1, 3, -1), s.expand(-1, 5, -1)), dim=1)


def rows_of(u: Tensor) -> Tensor:
    """Return the nine numbers of 1 + [û]× + (ûûᵀ − 1/3) for unit vectors (E, 3)."""
    x, y, z = u.unbind(1)
    one = torch.ones_like(x)
    return torch.stack((one, x, y, z, x * x - 1 / 3, y * y - 1 / 3, x * y, x * z, y * z), dim=1)


def mixed(x: Tensor, *weights: Tensor) -> Tensor:
    """See `asecalc_mlip.kernels.tensor.mixed`."""
    parts = zip(x.split([1, 3, 5], dim=1), weights, strict=True)
    return torch.cat([torch.nn.functional.linear(part, weight) for part, weight in parts], dim=1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices of each atom and channel, (N, 9, F)."""
    return from_matrices(_product(to_matrices(a), to_matrices(b)))


def symmetric_product(a: Tensor, b: Tensor) -> Tensor:
    """Return A B + B A of matrices of each atom and channel, (N, 9, F)."""
    a, b = to_matrices(a), to_matrices(b)
    return from_matrices(_product(a, b) + _product(b, a))


def bounded(x: Tensor) -> Tensor:
    """See `asecalc_mlip.kernels.tensor.bounded`."""
    return x / (squares(x).sum(1) + 1.0)[:, None]


def squares(x: Tensor) -> Tensor:
    """See `asecalc_mlip.kernels.tensor.squares`."""
    xx, yy, xy, xz, yz = x[:, 4:].unbind(1)
    diagonal = xx.square() + yy.square() + (xx + yy).square()
    symmetric = diagonal + 2.0 * (xy.square() + xz.square() + yz.square())
    return torch.stack((3.0 * x[:, 0].square(), 2.0 * x[:, 1:4].square().sum(1), symmetric), dim=1)


def to_matrices(x: Tensor) -> Tensor:
    """Return (N, 9, F) as matrices (N, 3, 3, F)."""
    i, ax, ay, az, xx, yy, xy, xz, yz = x.unbind(1)
    rows = (i + xx, xy - az, xz + ay, xy + az, i + yy, yz - ax, xz - ay, yz + ax, i - xx - yy)
    return torch.stack(rows, dim=1).unflatten(1, (3, 3))


def from_matrices(m: Tensor) -> Tensor:
    """Return (N, 3, 3, F) as nine numbers of I, A and S each, (N, 9, F)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(1) for row in m.unbind(1))
    i = (xx + yy + zz) / 3.0
    skew = (0.5 * (zy - yz), 0.5 * (xz - zx), 0.5 * (yx - xy))
    return torch.stack((i, *skew, xx - i, yy - i, 0.5 * (xy + yx), 0.5 * (xz + zx), 0.5 * (yz + zy)), dim=1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, :, :, None] * b[:, None]).sum(2)
