"""Folders and files that one process has to itself; the system lets go of a lock however the process ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from asecalc_mlip.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock_of", "locked", "locked_file"]

PathName = str | PathLike

# In folders that cannot be locked themselves.
LOCK = ".asecalc.lock"
# Times that the file of a lock is opened anew because other processes removed it just then.
TRIES = 100


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
        try:
            if not _is_at(handle, folder):
                (folder / LOCK).unlink(missing_ok=True)
            if not existed and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()  # before the lock goes: afterwards it may be that of the next process
        finally:
            os.close(handle)


def _lock(folder: Path, setting: str, make: bool, wait: bool) -> int:
    def opened() -> int:
        try:
            if make:
                folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{setting} {str(folder)!r} cannot be made: {error.strerror}") from None

    def opened_file() -> int:
        os.close(opened())
        try:
            return os.open(folder / LOCK, os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise InputError(f"{setting} {str(folder)!r} cannot be written to: {error.strerror}") from None

    try:
        return _held(opened, folder, folder, setting, wait)
    except _OpenForWriting:
        return _held(opened_file, folder / LOCK, folder, setting, wait)


class _OpenForWriting(Exception):
    """A file system, NFS for one, locks only what is open for writing, which no folder can be."""


@contextmanager
def locked_file(path: PathName, setting: str = "output") -> Iterator[None]:
    """Keep a file that grows to this process; a hidden file beside it holds the lock, and goes at the end.

    Raises
    ------
    InputError
        For a file that another process writes, or that cannot be written.
    """
    path = Path(path)
    lock = lock_of(path)

    def opened() -> int:
        try:
            return os.open(lock, os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; choose another {setting}") from None

    handle = _held(opened, lock, path, setting)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # before the lock goes: afterwards it may be that of the next process
        os.close(handle)


def lock_of(path: Path) -> Path:
    """Return the hidden file of `locked_file`; one that nobody holds is that of a process that was killed."""
    return path.with_name(f".{path.name}.lock")


def _held(opened: Callable[[], int], lock: Path, path: Path, setting: str, wait: bool = False) -> int:
    """Open the file or folder of a lock and hold it.

    The process that held it may have removed it between the two. The lock is then one that nobody else will find,
    while a third process holds a new file of the same name. So the name must still mean what was opened.
    """
    for _ in range(TRIES):
        handle = opened()
        try:
            held = _hold(handle, wait)
        except BaseException:
            os.close(handle)
            raise
        if not held:
            os.close(handle)
            break
        if fcntl is None or _is_at(handle, lock):
            return handle
        os.close(handle)
    raise InputError(
        f"{path} is in use by another running process: wait for it or stop it, or choose another {setting}"
    )


def _hold(handle: int, wait: bool) -> bool:
    """Lock an open file, and return False where another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EBADF:
            raise _OpenForWriting from None
        # else a file system without locks
    return True


def _is_at(handle: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(lock))
    except OSError:  # removed
        return False
