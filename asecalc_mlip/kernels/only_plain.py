"""A block in which every message is passed by plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["only_plain", "plain_kernels"]

_only_plain = ContextVar("only_plain", default=False)


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Plain torch for every message in this block, for derivatives beyond the second; slower, and more memory."""
    token = _only_plain.set(True)
    try:
        yield
    finally:
        _only_plain.reset(token)


def only_plain() -> bool:
    """Whether this is such a block."""
    return _only_plain.get()
