"""All operations that have kernels for a GPU, by name."""

from asecalc_mlip.kernels import _PAINN, _PAINN_FIRST, _SCHNET
from asecalc_mlip.kernels.tensor import _BOUND, _PRODUCTS, _SPREAD, _SQUARES, _TABLE, _TENSOR

OPERATIONS = {
    operation.name: operation
    for operation in (_PAINN, _PAINN_FIRST, _SCHNET, _TENSOR, _SPREAD, _TABLE, *_PRODUCTS.values(), _BOUND, _SQUARES)
}
