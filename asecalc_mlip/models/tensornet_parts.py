"""Parts of TensorNet that its forward pass, its Hessian and its native weights share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import silu

__all__ = ["by_part", "filters_of", "weights_of"]


def filters_of(weights: Sequence[Tensor], basis: Tensor, envelope: Tensor) -> Tensor:
    """Make filters (n, 3F) by an MLP of φ (n, n_rbf) and f_c (n, 1), whose weights and biases take turns."""
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        basis = silu(nn.functional.linear(basis, weight, bias))
    return basis * envelope


def weights_of(layers: Iterable[nn.Module]) -> list[Tensor]:
    """Weights of linear layers without a bias."""
    return [cast(Tensor, layer.weight) for layer in layers]


def by_part(rows: Tensor) -> Tensor:
    """(3F, …), three for a channel side by side, as those of one part after another."""
    return rows.unflatten(0, (-1, 3)).movedim(1, 0).flatten(0, 1)
