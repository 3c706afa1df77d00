"""What computes the operations of a training on a kind of device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

__all__ = ["Backend", "Call", "Order"]

Order = Literal["forward", "backward", "second"]


@dataclass(frozen=True)
class Call:
    """One call of an operation; tensors are contiguous.

    Attributes
    ----------
    atoms, features : int
        Number N of atoms, and width F.
    centers, others : (E,) int64 or None
        Ends of edges, or what stands for them; others (2, E) where first knots stand behind the neighbours.
    inputs : sequence of Tensor
        As operations.h orders them; None for the direction of weights that have none.
    outputs : sequence of Tensor
        To be filled; None for the gradient of weights that nobody asks for.
    sums : Tensor or None
        To be filled: the output that is a sum over the features.
    """

    atoms: int
    features: int
    centers: Tensor | None
    others: Tensor | None
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    sums: Tensor | None


@dataclass(frozen=True)
class Backend:
    """Computes operations.

    Attributes
    ----------
    adds : bool
        Whether outputs that are sums must be zero before.
    run : callable
        Runs an operation by its name, forward, backward or the second derivative.
    """

    adds: bool
    run: Callable[[str, Order, Call], None]
