"""Arithmetic of matrix products on a GPU: float32, or faster with fewer digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from asecalc_mlip.errors import InputError
from asecalc_mlip.kernels import plain_kernels

__all__ = ["Precision", "arithmetic", "check_precision"]

Precision = Literal["float32", "tf32", "bf16"]


def check_precision(precision: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a precision that would have no effect: fewer digits are for float32 models on a GPU.

    Raises
    ------
    InputError
        For an unknown precision, and for "tf32" or "bf16" on the CPU or in float64.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}; allowed: {', '.join(get_args(Precision))}")
    if precision != "float32" and (device.type != "cuda" or dtype != torch.float32):
        kind = str(dtype).removeprefix("torch.")
        raise InputError(
            f"precision={precision!r} is for dtype='float32' on a GPU; this is {kind} on {device.type}, where it gains "
            "nothing. Leave it out"
        )


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Matrix products in a precision inside the block; the setting before it is restored after it.

    On a GPU messages are in plain torch there: it is what the fused kernels are compared with, and may be captured. And
    the device is the current one, to which Triton launches its kernels.
    """
    if device.type != "cuda":
        with _products(precision, device):
            yield
        return
    with plain_kernels(), torch.cuda.device(device), _products(precision, device):
        yield


@contextmanager
def _products(precision: Precision, device: torch.device) -> Iterator[None]:
    if precision == "tf32":
        before = _set_matmul("tf32")
        try:
            yield
        finally:
            _set_matmul(before)
    elif precision == "bf16":
        # Without its cache of cast weights, which would outlive a capture that made it.
        with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            yield
    else:
        yield


def _set_matmul(value: str) -> str:
    """Set the arithmetic of float32 matrix products on GPUs and return the setting before."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        before, matmul.fp32_precision = matmul.fp32_precision, value
        return before
    # torch before 2.9 has only the switch that also concerns the CPU.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if value == "tf32" else value)
    return before
