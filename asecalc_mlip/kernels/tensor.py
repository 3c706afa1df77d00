"""TensorNet's operations in training: native on the CPU, Triton on a GPU, else plain torch, twice differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asecalc_mlip.kernels import plain_tensor
from asecalc_mlip.kernels.mixing import native_mix, whole_registers
from asecalc_mlip.kernels.operations import Made, Operation, native_takes
from asecalc_mlip.kernels.plain_tensor import lagrange, rows_of

__all__ = [
    "bounded",
    "combined",
    "interpolate",
    "knots_message",
    "mixed",
    "scaled",
    "spread_knots_message",
    "spread_message",
    "squares",
    "tensor_message",
    "tensor_product",
    "updated",
]

_TENSOR = Operation("tensor", ("edges", "sum"), plain_tensor.tensor_message)
_SPREAD = Operation("spread", ("edges", "features", "sum", "sum"), plain_tensor.spread_message)
_TABLE = Operation("table", ("features", "sum"), plain_tensor.interpolate, outputs="edges")
_PRODUCTS = {
    False: Operation("product", ("edges", "edges"), plain_tensor.product, outputs="edges"),
    True: Operation("symmetric", ("edges", "edges"), plain_tensor.symmetric_product, outputs="edges"),
}
_BOUND = Operation("bound", ("edges",), plain_tensor.bounded, outputs="edges")
_SQUARES = Operation("squares", ("edges",), plain_tensor.squares, outputs="edges")


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
    return _TENSOR((filters, y), [y.shape], centers, neighbors)[0]


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
    shape = (of_center.shape[0], 9, of_center.shape[1])
    return _SPREAD((filters, rows, of_neighbor, of_center), [shape], centers, neighbors)[0]


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
    return _TABLE((weights, table), [(start.shape[0], table.shape[1])], start, start)[0]


def knots_message(place: Tensor, start: Tensor, table: Tensor, y: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """Sum the tensors of neighbours as `tensor_message`, with filters that are read from a table.

    Parameters
    ----------
    place, start : (E,), (E,) int64
        Place of each edge among the knots; see `Knots` of models/knots.py.
    table : (nodes, 3F)
        Filters of I, of A and of S on the nodes, one after another.
    y : (N, 9, F)
    centers, neighbors : (E,) int64

    Returns
    -------
    (N, 9, F)
    """
    return _KNOTS((place, table, y), [y.shape], centers, neighbors, start)[0]


def spread_knots_message(
    place: Tensor,
    start: Tensor,
    table: Tensor,
    directions: Tensor,
    of_neighbor: Tensor,
    of_center: Tensor,
    centers: Tensor,
    neighbors: Tensor,
) -> Tensor:
    """Sum directions as `spread_message`, with filters that are read from a table.

    Parameters
    ----------
    place, start : (E,), (E,) int64
        Place of each edge among the knots; see `Knots` of models/knots.py.
    table : (nodes, 3F)
        Filters of I, of A and of S on the nodes, one after another.
    directions : (E, 3)
        Unit vectors û of the edges, which make their rows by `rows_of`.
    of_neighbor, of_center : (N, F)
        a and b.
    centers, neighbors : (E,) int64

    Returns
    -------
    (N, 9, F)
    """
    edges = torch.cat((place[:, None], directions), dim=1)
    shape, inputs = (of_center.shape[0], 9, of_center.shape[1]), (edges, table, of_neighbor, of_center)
    return _SPREAD_KNOTS(inputs, [shape], centers, neighbors, start)[0]


def mixed(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Mix the channels of (N, 9, in) by three weights (out, in), those of I, of A and of S: (N, 9, out)."""
    shape = weights[0].shape[0], x.shape[2]
    if (
        native_takes((x, *weights))
        and all(weight.shape == shape for weight in weights)
        and whole_registers(*shape, dtype=x.dtype)
    ):
        return native_mix(x, weights)
    return plain_tensor.mixed(x, *weights)


def scaled(v: Tensor, q: Tensor, *, bound: bool) -> Tensor:
    """Multiply the parts of matrices (N, 9, F) by numbers (N, 3F), those of I, of A and of S, and bound them."""
    return _SCALES[bound]((v, q), [v.shape])[0]


def combined(y: Tensor, m: Tensor, *, symmetric: bool) -> Tensor:
    """P = Y M + M Y, or 2 Y M, bounded, of matrices (N, 9, F)."""
    return _COMBINATIONS[symmetric]((y, m), [y.shape])[0]


def updated(x: Tensor, d: Tensor, *, bound: bool) -> Tensor:
    """X + D + D D, and bounded where the next block wants it so, of matrices (N, 9, F)."""
    return _UPDATES[bound]((x, d), [x.shape])[0]


def tensor_product(a: Tensor, b: Tensor, *, symmetric: bool) -> Tensor:
    """Multiply matrices of each atom and channel, (N, 9, F): A B + B A, or A B."""
    return _PRODUCTS[symmetric]((a, b), [a.shape])[0]


def bounded(x: Tensor) -> Tensor:
    """Divide matrices of each atom and channel by their size: X / (‖X‖² + 1), (N, 9, F)."""
    return _BOUND((x,), [x.shape])[0]


def squares(x: Tensor) -> Tensor:
    """Return ‖I‖², ‖A‖², ‖S‖² of (N, 9, F): (N, 3, F)."""
    return _SQUARES((x,), [(x.shape[0], 3, x.shape[2])])[0]


# What one operation of the native library does takes several where there is none, and these may have kernels elsewhere.
def _by_knots(place: Tensor, table: Tensor, y: Tensor, centers: Tensor, neighbors: Tensor, start: Tensor) -> Tensor:
    return tensor_message(interpolate(lagrange(place), table, start), y, centers, neighbors)


def _spread_by_knots(
    edges: Tensor, table: Tensor, a: Tensor, b: Tensor, centers: Tensor, neighbors: Tensor, start: Tensor
) -> Tensor:
    filters = interpolate(lagrange(edges[:, 0]), table, start)
    return spread_message(filters, rows_of(edges[:, 1:]), a, b, centers, neighbors)


def _scale(v: Tensor, q: Tensor) -> Tensor:
    return v * plain_tensor.by_row(q.unflatten(1, (3, -1)))


def _update(x: Tensor, d: Tensor) -> Tensor:
    return x + d + tensor_product(d, d, symmetric=False)


_KNOTS = Operation("knots", ("features", "weights", "edges"), _by_knots, "edges")
_SPREAD_KNOTS = Operation("spread_knots", ("features", "weights", "weights", "weights"), _spread_by_knots, "edges")
_ATOMS: tuple[Made, Made] = ("edges", "edges")  # atoms stand in the place of edges
_SCALES = {
    False: Operation("scale", _ATOMS, _scale, "edges"),
    True: Operation("scale_bound", _ATOMS, lambda v, q: bounded(_scale(v, q)), "edges"),
}
_COMBINATIONS = {
    False: Operation(
        "combine_turned", _ATOMS, lambda y, m: bounded(2.0 * tensor_product(y, m, symmetric=False)), "edges"
    ),
    True: Operation("combine", _ATOMS, lambda y, m: bounded(tensor_product(y, m, symmetric=True)), "edges"),
}
_UPDATES = {
    False: Operation("update", _ATOMS, _update, "edges"),
    True: Operation("update_bound", _ATOMS, lambda x, d: bounded(_update(x, d)), "edges"),
}
