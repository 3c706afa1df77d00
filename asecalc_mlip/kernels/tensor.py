"""TensorNet's operations in training: native on the CPU, Triton on a GPU, else plain torch, twice differentiable."""

from __future__ import annotations

from torch import Tensor

from asecalc_mlip.kernels import plain_tensor
from asecalc_mlip.kernels.operations import Operation

__all__ = ["bounded", "interpolate", "spread_message", "squares", "tensor_message", "tensor_product"]

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
    return _TABLE((weights, table), [(len(start), table.shape[1])], start, start)[0]


def tensor_product(a: Tensor, b: Tensor, *, symmetric: bool) -> Tensor:
    """Multiply matrices of each atom and channel, (N, 9, F): A B + B A, or A B."""
    return _PRODUCTS[symmetric]((a, b), [a.shape])[0]


def bounded(x: Tensor) -> Tensor:
    """Divide matrices of each atom and channel by their size: X / (‖X‖² + 1), (N, 9, F)."""
    return _BOUND((x,), [x.shape])[0]


def squares(x: Tensor) -> Tensor:
    """Return ‖I‖², ‖A‖², ‖S‖² of (N, 9, F): (N, 3, F)."""
    return _SQUARES((x,), [(x.shape[0], 3, x.shape[2])])[0]
