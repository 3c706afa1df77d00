"""Constant numbers and places that networks use, kept where they are needed: the host sends them to a GPU once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Places", "Table"]


class Table:
    """Constant numbers, kept in float64 and cast once for each dtype and device that asks."""

    def __init__(self, values: Tensor):
        self.values = values.double()
        self._cast: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        """Return the numbers in the dtype and on the device of `x`."""
        return self._on(x.dtype, x.device)

    def _on(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        if (found := self._cast.get((dtype, device))) is None:
            # A tensor of inference mode would stay here, where later calls need one for derivatives.
            with torch.inference_mode(False):
                found = self.values.to(device, dtype)
            # One without values, of a program that is traced, would be found by calls that want them.
            if not hasattr(found, "fake_mode"):
                self._cast[dtype, device] = found
        return found


class Places(Table):
    """Constant places along an axis, for `index_select`: a list of indices goes to a GPU at each call."""

    def __init__(self, places: Sequence[int] | Tensor):
        super().__init__(torch.empty(0))
        self.values = torch.as_tensor(places, dtype=torch.int64)

    def like(self, x: Tensor) -> Tensor:
        """Return the places on the device of `x`."""
        return self._on(torch.int64, x.device)
