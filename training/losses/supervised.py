"""Distances between a prediction and its label, the supervised losses."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

__all__ = ["DISTANCES", "Distance", "distance"]

Distance = Literal["mae", "l2mae", "mse", "huber"]


def _mae(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs().mean()


def _l2mae(prediction: Tensor, target: Tensor) -> Tensor:
    # The square root has no derivative at zero; 1e-12 eV/Å is below any label's noise.
    return (prediction - target).square().sum(-1).add(1e-24).sqrt().mean()


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean()


def _huber(prediction: Tensor, target: Tensor) -> Tensor:
    return nn.functional.huber_loss(prediction, target, delta=0.01)


DISTANCES = {"mae": _mae, "l2mae": _l2mae, "mse": _mse, "huber": _huber}


class distance(nn.Module):
    """Mean distance between prediction and target, both (…, d).

    Parameters
    ----------
    name : {"mae", "l2mae", "mse", "huber"}
        Mean absolute error over components; mean over rows of the Euclidean norm (forces); mean square; Huber with
        its corner at 0.01 (eV, eV/Å or eV/Å³).
    """

    def __init__(self, name: Distance):
        super().__init__()
        self.name = name
        self._function = DISTANCES[name]

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar tensor."""
        return self._function(prediction, target.to(prediction.dtype))
