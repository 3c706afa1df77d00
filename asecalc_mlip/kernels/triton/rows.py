"""Rows of edges: those of each centre, and those that end in each atom, found once for each neighbour list."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Rows", "rows_of"]


@dataclass(frozen=True)
class Rows:
    """Edges by an end of theirs.

    Attributes
    ----------
    starts : (n + 1,) int32
        Those of row i are at the places starts[i] … starts[i + 1] − 1.
    order : (E,) int32 or None
        Edge at each place; None where edges are sorted already.
    """

    starts: Tensor
    order: Tensor | None


# Blocks of a network, and the three passes of a step, have the same ends. Rows must not hold them, or they never die.
_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def rows_of(ends: Tensor, n: int, *, is_sorted: bool = False) -> Rows:
    """Rows of edges by their ends (E,) int64, which are below n; nothing waits for the GPU."""
    if ends.is_inference():  # nothing tells when somebody writes into it
        return _found(ends, n, is_sorted)
    version = ends._version  # it changes when somebody does
    key = (n, version, is_sorted)
    known = _known.get(ends, {})
    if key not in known:
        known = {other: rows for other, rows in known.items() if other[1] == version}
        known[key] = _found(ends, n, is_sorted)
        _known[ends] = known
    return known[key]


def _found(ends: Tensor, n: int, is_sorted: bool) -> Rows:
    order = None if is_sorted else torch.argsort(ends, stable=True)
    by_end = ends if order is None else ends.index_select(0, order)
    starts = torch.searchsorted(by_end, torch.arange(n + 1, device=ends.device), out_int32=True)
    return Rows(starts, None if order is None else order.to(torch.int32))
