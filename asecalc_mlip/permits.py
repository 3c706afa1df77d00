"""Whether the task of a worker is to go on: it asks `stop_wanted` now and then.

The answer is yes when the pool of the task was asked to stop, and also when the process that opened the pool is gone or
another one has taken its place: no task of a killed run goes on beside those of the run that continues it.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["BUSY", "PATIENCE", "PERMIT", "Permit", "at_work", "stop_wanted"]

PATIENCE = 0.2
"""Seconds between two looks at signals and permits."""
PERMIT = ".workers"
"""Name of the file of a permit in the folder of the work."""
BUSY = threading.Lock()
"""Held while this process, a worker, has a task."""
# The permit of the task of each thread.
_NOW = threading.local()


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
