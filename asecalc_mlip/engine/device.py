"""The device of a model by its name; the only place that looks for a GPU."""

from __future__ import annotations

import logging
from functools import lru_cache

import torch

from asecalc_mlip.errors import InputError

__all__ = ["checked_device"]

_log = logging.getLogger("asecalc_mlip")


def checked_device(name: str) -> torch.device:
    """Device by name; "auto" takes a GPU if there is one, and logs once that this path is not measured yet.

    Raises
    ------
    InputError
        For a device that does not exist.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        _say_not_measured()
        return torch.device("cuda")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is unknown; allowed: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r}: torch sees no GPU here; use device='auto' or 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: torch sees {torch.cuda.device_count()} GPU(s), counted from 0")
    return device


@lru_cache(maxsize=1)
def _say_not_measured() -> None:
    _log.warning(
        "device='auto' takes the GPU, on which neither results nor speed of asecalc-mlip were measured yet. "
        "device='cpu' is tested; device='cuda' takes the GPU without this warning"
    )
