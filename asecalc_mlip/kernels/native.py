"""Operations on the CPU, by the native library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asecalc_mlip.kernels import library
from asecalc_mlip.kernels.backend import Backend, Call, Order
from asecalc_mlip.kernels.library import SUFFIX

__all__ = ["NATIVE", "addresses", "has"]


def has(name: str) -> bool:
    """Whether the library is there and has an operation."""
    opened = library.native_library()
    return opened is not None and hasattr(opened, f"{name}_forward_f32")


def _run(name: str, order: Order, call: Call) -> None:
    function = getattr(library.native_library(), f"{name}_{order}_{SUFFIX[call.inputs[0].dtype]}")
    function(
        call.atoms,
        call.inputs[0].shape[0],
        call.features,
        torch.get_num_threads(),
        *(None if index is None else index.data_ptr() for index in (call.centers, call.others)),
        addresses(call.inputs),
        addresses(call.outputs),
        None if call.sums is None else call.sums.data_ptr(),
    )


def addresses(tensors: Sequence[Tensor | None]) -> Any:
    """Return the addresses of tensors as an array of pointers, null for None."""
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


NATIVE = Backend(adds=True, run=_run)
