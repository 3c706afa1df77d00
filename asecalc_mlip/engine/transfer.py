"""Results from a GPU in one copy, so that the host waits once."""

from __future__ import annotations

from dataclasses import replace

import torch

from asecalc_mlip.models.potential import Prediction

__all__ = ["to_host"]


def to_host(prediction: Prediction) -> Prediction:
    """Return the energies, forces and stress of a prediction on the CPU; other fields stay where they are."""
    if prediction.energy.device.type == "cpu":
        return prediction
    return _by_one_copy(prediction)


def _by_one_copy(prediction: Prediction) -> Prediction:
    names = [name for name in ("energy", "energies", "forces", "stress") if getattr(prediction, name) is not None]
    tensors = [getattr(prediction, name) for name in names]
    parts = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().split([tensor.numel() for tensor in tensors])
    fetched = {name: part.view(tensor.shape) for name, part, tensor in zip(names, parts, tensors, strict=True)}
    return replace(prediction, **fetched)
