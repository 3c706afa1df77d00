"""Small inputs of each operation, and the comparison of a backend with plain torch on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from asecalc_mlip.kernels.backend import Backend

__all__ = ["EXAMPLES", "Comparable", "compare", "derivatives", "example"]

# Inputs and outputs of operations: numbers of E edges, N atoms, K nodes of a table, F features.
EXAMPLES = {
    "schnet": ("E F, N F", "N F"),
    "painn_first": ("E 2F, E 3, N 2F", "N F, N 3 F"),
    "painn": ("E 3F, E 3, N 3F, N 3 F", "N F, N 3 F"),
    "tensor": ("E 3F, N 9 F", "N 9 F"),
    "spread": ("E 3F, E 9, N F, N F", "N 9 F"),
    "table": ("E 6, K F", "E F"),
    "product": ("N 9 F, N 9 F", "N 9 F"),
    "symmetric": ("N 9 F, N 9 F", "N 9 F"),
    "bound": ("N 9 F", "N 9 F"),
    "squares": ("N 9 F", "N 3 F"),
}
# Of the largest number.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


class Comparable(Protocol):
    """An operation; see `asecalc_mlip.kernels.operations.Operation`."""

    def __hash__(self) -> int:
        """One that is the same for equal operations."""

    @property
    def name(self) -> str:
        """Its name."""

    def by(
        self, backend: Backend, inputs: Sequence[Tensor], shapes: Sequence[Sequence[int]], *ends: Tensor
    ) -> tuple[Tensor, ...]:
        """Return outputs of a backend."""

    @property
    def plain(self) -> Any:
        """Function of inputs and ends."""


def example(
    name: str, *, atoms: int, edges: int, features: int, nodes: int = 9, seed: int = 0, **options: Any
) -> tuple[list[Tensor], list[list[int]], tuple[Tensor, ...]]:
    """Make inputs of normal numbers that take gradients, shapes of outputs, and ends of edges, sorted by centre.

    The last atom is no centre, and nobody hears it. `options` are dtype and device of the tensors.
    """
    sizes = {"E": edges, "N": atoms, "K": nodes, "F": features}
    inputs, outputs = ([_shape(text, sizes) for text in side.split(", ")] for side in EXAMPLES[name])
    generator = torch.Generator().manual_seed(seed)
    given = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in inputs]
    some = max(1, atoms - 1)
    centers = torch.randint(0, some, (edges,), generator=generator).sort()[0]
    others = torch.randint(0, some, (edges,), generator=generator).flip(0)
    if name == "table":
        centers = others = torch.randint(0, nodes - 5, (edges,), generator=generator)
    ends = (centers.to(options.get("device")), others.to(options.get("device"))) if "E" in EXAMPLES[name][0] else ()
    return [tensor.to(**options).requires_grad_() for tensor in given], outputs, ends


def compare(operation: Comparable, backend: Backend, device: torch.device, dtype: torch.dtype) -> None:
    """Compare outputs, first and second derivatives of a backend with those of plain torch, on 20 edges.

    Raises
    ------
    RuntimeError
        Where they differ by more than rounding.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs, shapes, ends = example(operation.name, atoms=5, edges=20, features=32, device=device, dtype=dtype)
        ours = derivatives(inputs, operation.by(backend, inputs, shapes, *ends))
        made = operation.plain(*inputs, *ends)
        theirs = derivatives(inputs, (made,) if isinstance(made, Tensor) else made)
    for found, right in zip(ours, theirs, strict=True):
        error = float((found - right).detach().abs().max() / right.detach().abs().max())
        if not error < _TOLERANCE[dtype]:
            raise RuntimeError(f"{operation.name} differs from plain torch by {error:.1e}")


def derivatives(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return outputs, their first derivatives, and the second as a loss of forces sees them."""
    of_outputs = [(out * out.cos()).sum() for out in outputs]
    first = torch.autograd.grad(of_outputs, inputs, create_graph=True)
    second = torch.autograd.grad([gradient.square().sum() for gradient in first], inputs)
    return [*outputs, *first, *second]


def _shape(text: str, sizes: dict[str, int]) -> list[int]:
    """Numbers of a text such as "N 3F"."""
    return [sizes[word[-1]] * int(word[:-1] or 1) if word[-1] in sizes else int(word) for word in text.split()]
