"""CUDA graphs of the simulated GPU: a capture refuses what a GPU refuses there, and a replay makes the same calls anew.

A replay reads and writes the tensors of the capture. Numbers of the host are those of the capture: so what a recorded
function takes from elsewhere than from its buffers shows as a wrong result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["Captures"]


class Captures:
    """What torch.cuda has for captures; `refuse` and `record` are told of every operation of the GPU."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] | None = None
        # Tensors that were written to, with what they held before: a capture runs nothing.
        self._before: list[tuple[Tensor, Tensor]] = []
        self._mode = 0
        self.replays = 0

    def names(self) -> dict[str, Any]:
        """Return what stands for functions of torch.cuda, by name."""
        return {
            "Stream": _Stream,
            "current_stream": lambda *_: _Stream(),
            "stream": lambda *_: nullcontext(),
            "CUDAGraph": lambda: _Graph(self),
            "graph": self._capture,
            "get_sync_debug_mode": lambda: self._mode,
            "set_sync_debug_mode": self._set_mode,
        }

    def refuse(self, waits: bool, name: str) -> None:
        """Raise where the host would wait in a capture, or is not to wait."""
        if waits and self._steps is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if waits and self._mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {name}")

    def keep(self, function: Callable, args: tuple, options: dict) -> None:
        """Keep what an operation in a capture will write to."""
        if self._steps is None or not function._schema.is_mutable:
            return
        names = [one.name for one in function._schema.arguments if one.is_write]
        given = dict(zip((one.name for one in function._schema.arguments), args, strict=False)) | options
        written = [one for one in tree_leaves([given[name] for name in names]) if isinstance(one, Tensor)]
        self._before += [(one, one.clone()) for one in written]

    def record(self, function: Callable, args: Any, found: Any) -> None:
        """Note an operation with its arguments and what it made, all by the tensors that hold the values."""
        if self._steps is None:
            return
        given = {_place(one) for one in tree_leaves(args) if isinstance(one, Tensor)}
        made = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        if str(function).startswith("aten.") and not function._schema.is_mutable and {*map(_place, made)} <= given:
            return  # a view
        self._steps.append(lambda: _again(function, args, made))

    def taken_along(self, number: Tensor) -> Tensor:
        """Return a tensor of the host, in a capture as it is now: a launch takes its numbers along."""
        return number if self._steps is None else number.clone()

    @contextmanager
    def _capture(self, graph: _Graph, *, stream: Any = None) -> Iterator[None]:
        self._steps = []
        try:
            yield
            graph.steps = self._steps
        finally:
            self._steps = None
            for tensor, value in reversed(self._before):
                tensor.copy_(value)
            self._before.clear()

    def _set_mode(self, mode: Any) -> None:
        self._mode = mode


class _Graph:
    def __init__(self, captures: Captures) -> None:
        self.captures, self.steps = captures, []

    def replay(self) -> None:
        """Make all calls anew."""
        self.captures.replays += 1
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            for step in self.steps:
                step()


class _Stream:
    def wait_stream(self, other: Any) -> None:
        """Do nothing."""


def _again(function: Callable, args: tuple, made: list[Tensor]) -> None:
    found = [one for one in tree_leaves(function(*args[0], **args[1])) if isinstance(one, Tensor)]
    for old, new in zip(made, found, strict=True):
        if old is not new:
            old.copy_(new)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
