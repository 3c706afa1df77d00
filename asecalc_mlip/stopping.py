"""Soft interruptions: Ctrl-C as a wish to stop, and workers that end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["Interrupted", "SoftStop", "end_with_parent"]


class Interrupted(Exception):
    """A signal came, and everything is on disk."""


class SoftStop:
    """Turns SIGINT and SIGTERM into a wish to stop: the first at the next good point, the second at once.

    In another thread than the main one, where Python has no signals, nothing happens.

    Parameters
    ----------
    signals : signal numbers that are taken over
    told : callable
        Called at every signal, with the number of signals so far; it may raise.

    Attributes
    ----------
    signal : int or None
        The last signal that came; None: go on.
    """

    def __init__(
        self, signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM), told: Callable[[int], None] | None = None
    ) -> None:
        self.signal: int | None = None
        self._signals, self._told = signals, told
        self._count = self._seen = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> SoftStop:
        if not self._old and threading.current_thread() is threading.main_thread():
            self._old = {number: signal.getsignal(number) for number in self._signals}
            for number in self._old:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    @property
    def at_once(self) -> bool:
        """Whether the second signal has come."""
        return self._count > 1

    def news(self) -> bool:
        """Return True once after each signal."""
        news, self._seen = self._count > self._seen, self._count
        return news

    def _receive(self, number: int, _frame: object) -> None:
        self.signal = number
        self._count += 1
        if self._told is not None:
            self._told(self._count)


def end_with_parent(parent: int, *, busy: AbstractContextManager | None = None, seconds: float = 1.0) -> None:
    """End this process when `parent` (its process number) is gone, else a worker would wait for work for ever.

    Parameters
    ----------
    parent : int
    busy : lock
        Waited for before the end, so that what is being written is written.
    seconds : float
        Between two looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        with busy or nullcontext():
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
