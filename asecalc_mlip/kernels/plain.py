"""The message passing operations in plain torch: any device, any order of derivative, traceable."""

from __future__ import annotations

from torch import Tensor

__all__ = ["painn_first_message", "painn_message", "schnet_message"]


def painn_message(
    filters: Tensor, directions: Tensor, x: Tensor, mu: Tensor | None, centers: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    """See `asecalc_mlip.kernels.painn_message`."""
    n_parts = 2 if mu is None else 3
    parts = (x.index_select(0, neighbors) * filters).chunk(n_parts, dim=-1)
    edge_mu = parts[1][:, None, :] * directions[:, :, None]
    if mu is not None:
        edge_mu = edge_mu + parts[2][:, None, :] * mu.index_select(0, neighbors)
    return _scatter_sum(parts[0], centers, x.shape[0]), _scatter_sum(edge_mu, centers, x.shape[0])


def painn_first_message(
    filters: Tensor, directions: Tensor, x: Tensor, centers: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    """See `asecalc_mlip.kernels.painn_message`, without μ."""
    return painn_message(filters, directions, x, None, centers, neighbors)


def schnet_message(filters: Tensor, x: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """See `asecalc_mlip.kernels.schnet_message`."""
    return _scatter_sum(x.index_select(0, neighbors) * filters, centers, x.shape[0])


def _scatter_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    return values.new_zeros((size, *values.shape[1:])).index_add(0, index, values)
