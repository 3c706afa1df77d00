"""Message passing operations: native on the CPU, Triton on a GPU, plain torch everywhere else, with the same result.

`painn_message` and `schnet_message` are differentiable twice, as a force loss needs; `plain_kernels()` makes
them differentiable to any order. The native library is optional (setup.py builds it where there is a C++ compiler);
`native_library()` says whether it is there.
"""

from __future__ import annotations

from torch import Tensor

from asecalc_mlip.kernels import plain
from asecalc_mlip.kernels.chosen import plain_kernels, triton_kernels
from asecalc_mlip.kernels.library import native_library
from asecalc_mlip.kernels.operations import Operation

__all__ = ["native_library", "painn_message", "plain_kernels", "schnet_message", "triton_kernels"]

_PAINN = Operation("painn", ("edges", "features", "sum", "sum"), plain.painn_message)
_PAINN_FIRST = Operation("painn_first", ("edges", "features", "sum"), plain.painn_first_message)
_SCHNET = Operation("schnet", ("edges", "sum"), plain.schnet_message)


def painn_message(
    filters: Tensor, directions: Tensor, x: Tensor, mu: Tensor | None, centers: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    """q_i = Σ_j (W x_j)_1 and μ_i = Σ_j (W x_j)_2 u_ij + (W x_j)_3 μ_j, the sums of PaiNN over neighbours.

    Parameters
    ----------
    filters : (E, 3F), or (E, 2F) without `mu`
    directions : (E, 3)
    x : (N, 3F), or (N, 2F) without `mu`
    mu : (N, 3, F) or None
        None stands for vectors that are all zero, as before the first block.
    centers, neighbors : (E,) int64
        Sorted by centre.

    Returns
    -------
    q, mu : (N, F) and (N, 3, F)
    """
    # Not len(x): it would fix the size where a program is traced.
    n, f = x.shape[0], filters.shape[1] // (2 if mu is None else 3)
    given = (filters, directions, x) if mu is None else (filters, directions, x, mu)
    # The features are the last number of the first shape.
    q, made = (_PAINN_FIRST if mu is None else _PAINN)(given, [(n, f), (n, 3, f)], centers, neighbors)
    return q, made


def schnet_message(filters: Tensor, x: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """y_i = Σ_j W_ij x_j, the continuous-filter convolution of SchNet: (E, F) and (N, F) → (N, F)."""
    return _SCHNET((filters, x), [x.shape], centers, neighbors)[0]
