"""The folder of a run: one process at a time, and a clear word when it cannot be written to."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asecalc_mlip.errors import InputError

__all__ = ["locked"]


@contextmanager
def locked(folder: Path, setting: str = "run.output") -> Iterator[None]:
    """Keep a folder to this process, and say what happened when it cannot be written to.

    The system lets go of the lock however the process ends. A folder in which nothing was written is removed again.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    setting : str
        What the user chose the folder with, for the messages.

    Raises
    ------
    InputError
        For a folder that another process holds, or that cannot be made or written to.
    """
    existed = folder.exists()
    handle = _open(folder, setting)
    try:
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise InputError(
                f"{folder} cannot be written to: {error}. What was written before is kept: make room and run the same "
                "command again"
            ) from error
    finally:
        os.close(handle)
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def _open(folder: Path, setting: str) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{setting} {str(folder)!r} cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{folder} is in use by another process: wait for it, or choose another {setting}") from None
    except OSError:  # a file system without locks
        pass
    return handle
