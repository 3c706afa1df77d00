"""Message passing operations: native on the CPU, plain torch everywhere else, with the same result.

`painn_message` and `schnet_message` are differentiable twice, as a force loss needs; `plain_kernels()` makes
them differentiable to any order. The native library is optional (setup.py builds it where there is a C++ compiler);
`native_library()` says whether it is there.
"""

from __future__ import annotations

from torch import Tensor

from asecalc_mlip.kernels import native, plain
from asecalc_mlip.kernels.library import native_library
from asecalc_mlip.kernels.only_plain import only_plain, plain_kernels

__all__ = ["native_library", "painn_message", "plain_kernels", "schnet_message"]


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
    module = native if native.serves(filters) and not only_plain() else plain
    return module.painn_message(filters, directions, x, mu, centers, neighbors)


def schnet_message(filters: Tensor, x: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """y_i = Σ_j W_ij x_j, the continuous-filter convolution of SchNet: (E, F) and (N, F) → (N, F)."""
    module = native if native.serves(filters) and not only_plain() else plain
    return module.schnet_message(filters, x, centers, neighbors)
