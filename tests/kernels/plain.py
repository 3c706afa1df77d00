"""Kernels against the same operations in plain torch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asecalc_mlip.kernels import plain_kernels


def assert_as_plain(results: Callable[[], Sequence[Tensor]], threads: int, dtype: torch.dtype) -> None:
    """Compare what a function returns by kernels on some threads with what it returns in plain torch."""
    try:
        torch.set_num_threads(threads)
        ours = results()
    finally:
        torch.set_num_threads(1)
    with plain_kernels():
        theirs = results()
    tolerance = 3e-5 if dtype == torch.float32 else 1e-13
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()
