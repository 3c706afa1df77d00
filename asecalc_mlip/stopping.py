"""Wishes to stop: Ctrl-C, the end of the process that started a worker, and whether the task of a worker is to go on.

A task asks `stop_wanted` now and then. The answer is yes when the pool of the task was asked to stop, and also when the
process that opened the pool is gone or another one has taken its place: no task of a killed run goes on beside those of
the run that continues it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

__all__ = [
    "BUSY",
    "PATIENCE",
    "PERMIT",
    "Interrupted",
    "Permit",
    "SoftStop",
    "at_work",
    "end_with_parent",
    "stop_wanted",
]

PATIENCE = 0.2
"""Seconds between two looks at signals and permits."""
PERMIT = ".workers"
"""Name of the file of a permit in the folder of the work."""
BUSY = threading.Lock()
"""Held while this process, a worker, has a task."""
# The permit of the task of each thread.
_NOW = threading.local()


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


class Permit:
    """A file with the name of the pool whose tasks may go on.

    Parameters
    ----------
    path : Path
    token : str
        Name of the pool.
    parent : int, optional
        Number of the process that opened the pool, where it is the parent of the workers.
    """

    def __init__(self, path: Path, token: str, parent: int | None = None) -> None:
        self.path, self.token, self.parent = path, token, parent
        self._looked, self._gone = -PATIENCE, False

    @classmethod
    def give(cls, path: Path, parent: int | None = None) -> Permit:
        """Write a new one, in place of any that is there."""
        permit = cls(path, uuid.uuid4().hex, parent)
        path.write_text(permit.token, encoding="utf-8")
        return permit

    def take_back(self) -> None:
        """Let all tasks leave off."""
        self.path.unlink(missing_ok=True)

    def withdrawn(self) -> bool:
        """Return whether the tasks are to leave off; looks at the file not more often than a task may ask."""
        if not self._gone and time.monotonic() - self._looked >= PATIENCE:
            self._looked = time.monotonic()
            self._gone = (self.parent is not None and os.getppid() != self.parent) or not self._stands()
        return self._gone

    def _stands(self) -> bool:
        try:
            return self.path.read_text(encoding="utf-8") == self.token
        except FileNotFoundError:
            return False
        except OSError:  # a network drive that is slow is no wish to stop
            return True


def stop_wanted() -> bool:
    """Return whether the task of this thread is to leave off; outside of workers never."""
    permit: Permit | None = getattr(_NOW, "permit", None)
    return permit is not None and permit.withdrawn()


def at_work(permit: Permit, function: Callable[..., Any], arguments: tuple) -> Any:
    """Do a task, one at a time: calculators are not made for several threads, which a Dask worker may have."""
    with BUSY:
        _NOW.permit = permit
        try:
            return function(*arguments)
        finally:
            _NOW.permit = None
