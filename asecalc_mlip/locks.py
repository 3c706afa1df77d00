"""Folders and files that one process has to itself; the system lets go of a lock however the process ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from asecalc_mlip.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked", "locked_file"]

PathName = str | PathLike


@contextmanager
def locked(folder: PathName, setting: str = "run.output", *, make: bool = True, wait: bool = False) -> Iterator[None]:
    """Keep a folder to this process, and say what happened when it cannot be written to.

    The system lets go of the lock however the process ends. A folder in which nothing was written is removed again.

    Parameters
    ----------
    folder : path
    setting : str
        What the user chose the folder with, for the messages.
    make : bool
        Make the folder if it is not there.
    wait : bool
        Wait for another process that holds the folder, in place of the error.

    Raises
    ------
    InputError
        For a folder that another process holds, or that cannot be made or written to.
    """
    folder = Path(folder)
    existed = folder.exists()
    handle = _lock(folder, setting, make, wait)
    try:
        try:
            yield
        except OSError as error:
            if isinstance(error, (ConnectionError, TimeoutError)):
                raise
            raise InputError(
                f"{folder} cannot be written to: {error}. Files written before are kept: make room and run the same "
                "command again"
            ) from error
    finally:
        os.close(handle)
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def _lock(folder: Path, setting: str, make: bool, wait: bool) -> int:
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{setting} {str(folder)!r} cannot be made: {error.strerror}") from None
    _hold(handle, folder, setting, wait)
    return handle


@contextmanager
def locked_file(path: PathName, setting: str = "output") -> Iterator[None]:
    """Keep a file that grows to this process; a hidden file beside it holds the lock, and goes at the end.

    Raises
    ------
    InputError
        For a file that another process writes, or that cannot be written.
    """
    path = Path(path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another {setting}") from None
    _hold(handle, path, setting)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _hold(handle: int, path: Path, setting: str, wait: bool = False) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"{path} is in use by another running process: wait for it or stop it, or choose another {setting}"
        ) from None
    except OSError:  # a file system without locks
        pass
