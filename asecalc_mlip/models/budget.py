"""Networks that are built to be filled from a file: with no more weights than the file has, and no random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from asecalc_mlip.errors import InputError

__all__ = ["Budget"]

# Numbers of tables that a network makes for itself and a file does not hold.
TABLES = 1 << 20
_RANDOM = {Tensor.normal_, Tensor.uniform_}
# Functions whose result takes memory of the size that hyper-parameters say.
_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.linspace, torch.logspace, torch.arange}


class Budget(TorchFunctionMode):
    """Context in which networks are built; their weights have memory, but no values.

    Parameters
    ----------
    n_numbers : int
        Of the weights that are there to fill them.

    Raises
    ------
    InputError
        In the context, when more are asked for, and before their memory is touched.
    """

    def __init__(self, n_numbers: int):
        super().__init__()
        self.left = n_numbers + TABLES

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count new tensors and leave out random values. Called by torch."""
        # Functions of torch.nn.init as a whole: inside of them this is not called.
        if func in _RANDOM or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        made = func(*args, **(kwargs or {}))
        if func in _MAKERS:
            self.left -= made.numel()
            if self.left < 0:
                raise InputError("its hyper-parameters ask for more weights than the file holds")
        return made
