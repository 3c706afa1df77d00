"""Parts of TensorNet that its forward pass and its Hessian share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

__all__ = ["filters_of", "mixed", "rows_of"]


def rows_of(u: Tensor) -> Tensor:
    """Return the nine numbers of 1 + [û]× + (ûûᵀ − 1/3) for unit vectors (E, 3)."""
    x, y, z = u.unbind(1)
    one = torch.ones_like(x)
    return torch.stack((one, x, y, z, x * x - 1 / 3, y * y - 1 / 3, x * y, x * z, y * z), dim=1)


def mixed(layers: Sequence[nn.Module] | nn.ModuleList, x: Tensor, factors: Sequence[Tensor] | None = None) -> Tensor:
    """Return the channels of each part, mixed by a matrix of its own, and times its factor (N, F)."""
    parts = [layer(part) for layer, part in zip(layers, x.split([1, 3, 5], dim=1), strict=True)]
    if factors is not None:
        parts = [part * factor[:, None] for part, factor in zip(parts, factors, strict=True)]
    return torch.cat(parts, dim=1)


def filters_of(weights: Sequence[Tensor], basis: Tensor, envelope: Tensor) -> Tensor:
    """Make filters (n, 3F) by an MLP of φ (n, n_rbf) and f_c (n, 1), whose weights and biases take turns."""
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        basis = silu(nn.functional.linear(basis, weight, bias))
    return basis * envelope
