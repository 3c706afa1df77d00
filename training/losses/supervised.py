"""Distances between a prediction and its label, the supervised losses."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from training.options import Distance

__all__ = ["DISTANCES", "distance"]


def _mae(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs()


def _l2mae(prediction: Tensor, target: Tensor) -> Tensor:
    # The square root has no derivative at zero; 1e-12 eV/Å is below any label's noise.
    difference = prediction - target
    # Each energy is a row of its own.
    difference = difference.unsqueeze(-1) if difference.ndim == 1 else difference
    return difference.square().sum(-1).add(1e-24).sqrt()


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square()


def _huber(prediction: Tensor, target: Tensor) -> Tensor:
    return nn.functional.huber_loss(prediction, target, delta=0.01, reduction="none")


# Of each component, or for l2mae of each row.
_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mae": _mae, "l2mae": _l2mae, "mse": _mse, "huber": _huber}


def _mean(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda prediction, target: _TERMS[name](prediction, target).mean()


DISTANCES = {name: _mean(name) for name in _TERMS}


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

    def forward(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return a scalar tensor; with weights (n,) each row of the mean counts times its weight."""
        target = target.to(prediction.dtype)
        if weights is None:
            return DISTANCES[self.name](prediction, target)
        terms = _TERMS[self.name](prediction, target)
        return (terms.reshape(len(terms), -1).mean(-1) * weights.to(terms.dtype)).mean()
