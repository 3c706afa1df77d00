"""Blocks in which operations are computed by something else than what is fastest for their device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

__all__ = ["chosen", "plain_kernels", "triton_kernels"]

Way = Literal["plain", "triton"]
_chosen: ContextVar[Way | None] = ContextVar("chosen", default=None)


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Plain torch for every message in this block, for derivatives beyond the second; slower, and more memory."""
    with _choose("plain"):
        yield


@contextmanager
def triton_kernels() -> Iterator[None]:
    """Triton for every message in this block, on the CPU by its interpreter: for tests, and very slow."""
    with _choose("triton"):
        yield


def chosen() -> Way | None:
    """Name what was asked for, or None."""
    return _chosen.get()


@contextmanager
def _choose(what: Way) -> Iterator[None]:
    token = _chosen.set(what)
    try:
        yield
    finally:
        _chosen.reset(token)
