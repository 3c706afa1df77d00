"""Operations on a GPU: by Triton where it is there and right, else in plain torch, with one warning."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asecalc_mlip.kernels.backend import Backend

if TYPE_CHECKING:
    from asecalc_mlip.kernels.triton.examples import Comparable

__all__ = ["backend_for", "why_not"]

# Reason why Triton is not used, at most one.
_failed: list[str] = []


def backend_for(operation: Comparable, like: Tensor) -> Backend | None:
    """Return what runs an operation on the device and in the dtype of a tensor; None stands for plain torch.

    No part of this has run on a GPU yet. Before its first use an operation is therefore compared with plain torch on
    a few edges, derivatives included.

    Warns
    -----
    UserWarning
        Once, where that fails, as without triton or a C compiler; nothing goes through Triton from then on.
    """
    if _failed:
        return None
    try:
        return _compared(operation, like.device, like.dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler and a driver have many ways to fail
        _failed.append((str(error).splitlines() or [type(error).__name__])[0])
    warnings.warn(
        f"the kernels of trainings on a GPU cannot be used ({_failed[0]}). Messages are passed in plain torch, with "
        "the same result, but slower and with more memory",
        stacklevel=4,
    )
    return None


def why_not() -> str | None:
    """Reason why nothing goes through Triton any more, or None."""
    return _failed[0] if _failed else None


@lru_cache(maxsize=64)
def _compared(operation: Comparable, device: torch.device, dtype: torch.dtype) -> Backend | None:
    # They import triton.
    from asecalc_mlip.kernels.triton.examples import compare
    from asecalc_mlip.kernels.triton.launch import TRITON, has

    if not has(operation.name):
        return None
    compare(operation, TRITON, device, dtype)
    return TRITON
