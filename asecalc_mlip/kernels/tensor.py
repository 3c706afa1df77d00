"""TensorNet's operations in training: native on the CPU, plain torch everywhere else, twice differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from asecalc_mlip.kernels.operations import Operation, serves

__all__ = [
    "PARTS",
    "bounded",
    "from_matrices",
    "interpolate",
    "spread_message",
    "squares",
    "tensor_message",
    "tensor_product",
    "to_matrices",
]

_TENSOR = Operation("tensor", ("edges", "sum"))
_SPREAD = Operation("spread", ("edges", "features", "sum", "sum"))
_TABLE = Operation("table", ("features", "sum"), outputs="edges")
_PRODUCTS = {
    False: Operation("product", ("edges", "edges"), outputs="edges"),
    True: Operation("symmetric", ("edges", "edges"), outputs="edges"),
}
_BOUND = Operation("bound", ("edges",), outputs="edges")
_SQUARES = Operation("squares", ("edges",), outputs="edges")

# Which of the three parts, I, A and S, each of the nine rows of a tensor belongs to.
PARTS = [0, 1, 1, 1, 2, 2, 2, 2, 2]
TERMS = 6


def tensor_message(filters: Tensor, y: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """Sum the tensors of neighbours, m_i = Σ_j W_ij Y_j, with a filter for each part.

    Parameters
    ----------
    filters : (E, 3F)
        Those of I, of A and of S, one after another.
    y : (N, 9, F)
    centers, neighbors : (E,) int64

    Returns
    -------
    (N, 9, F)
    """
    if serves(filters):
        return _TENSOR((filters, y), [y.shape], centers, neighbors)[0]
    values = filters.unflatten(-1, (3, -1))[:, PARTS] * y.index_select(0, neighbors)
    return values.new_zeros(y.shape).index_add(0, centers, values)


def spread_message(
    filters: Tensor, rows: Tensor, of_neighbor: Tensor, of_center: Tensor, centers: Tensor, neighbors: Tensor
) -> Tensor:
    """Sum directions, u_i = Σ_j s_ij W_ij (a_j + b_i), with a filter for each part.

    Parameters
    ----------
    filters : (E, 3F)
        Those of I, of A and of S, one after another.
    rows : (E, 9)
    of_neighbor, of_center : (N, F)
        a and b.
    centers, neighbors : (E,) int64

    Returns
    -------
    (N, 9, F)
    """
    shape = (of_center.shape[0], len(PARTS), of_center.shape[1])
    if serves(filters):
        return _SPREAD((filters, rows, of_neighbor, of_center), [shape], centers, neighbors)[0]
    z = of_neighbor.index_select(0, neighbors) + of_center.index_select(0, centers)
    amounts = filters.unflatten(-1, (3, -1)) * z[:, None]
    values = amounts[:, PARTS] * rows[:, :, None]
    return values.new_zeros(shape).index_add(0, centers, values)


def interpolate(weights: Tensor, table: Tensor, start: Tensor) -> Tensor:
    """Read a table between its nodes, w_e = Σ_k c_ek t_(start + k).

    Parameters
    ----------
    weights : (E, 6)
    table : (nodes, W)
    start : (E,) int64

    Returns
    -------
    (E, W)
    """
    if serves(weights):
        return _TABLE((weights, table), [(len(start), table.shape[1])], start, start)[0]
    rows = table[start[:, None] + torch.arange(TERMS, device=start.device)]
    return (weights[:, :, None] * rows).sum(1)


def tensor_product(a: Tensor, b: Tensor, *, symmetric: bool) -> Tensor:
    """Multiply matrices of each atom and channel, (N, 9, F): A B + B A, or A B."""
    if serves(a):
        return _PRODUCTS[symmetric]((a, b), [a.shape])[0]
    a, b = to_matrices(a), to_matrices(b)
    return from_matrices(_matrix_product(a, b) + _matrix_product(b, a) if symmetric else _matrix_product(a, b))


def bounded(x: Tensor) -> Tensor:
    """Divide matrices of each atom and channel by their size: X / (‖X‖² + 1), (N, 9, F)."""
    if serves(x):
        return _BOUND((x,), [x.shape])[0]
    return x / (squares(x).sum(1) + 1.0)[:, None]


def squares(x: Tensor) -> Tensor:
    """Return ‖I‖², ‖A‖², ‖S‖² of (N, 9, F): (N, 3, F)."""
    if serves(x):
        return _SQUARES((x,), [(x.shape[0], 3, x.shape[2])])[0]
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


def _matrix_product(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, :, :, None] * b[:, None]).sum(2)
