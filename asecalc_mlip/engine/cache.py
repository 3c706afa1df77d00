"""Compiled programs on disk, one folder per machine and user.

A file is found by a hash of everything that it depends on, so one that was made for another version is never looked
at, and its name holds the hash of its content, so a damaged one is never run. Model files have no part in this: they
hold no programs, and nothing from them gets here.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from asecalc_mlip.digests import digest_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import cache_folder, check_owner

__all__ = ["CacheError", "cache_folder", "fetch", "machine", "store"]

# Each file takes a few megabytes; those that were not used for longest go first.
MOST_FILES = 24
BUILDING = ".building-"
# Seconds after which the folder of a build is that of a process that was killed.
LEFT = 86400.0


class CacheError(RuntimeError):
    """A cache that cannot be used; the message says why."""


def machine() -> str:
    """Name the processor that compiled code is for: a home folder may be shared between processors that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        instructions = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        instructions = platform.processor()
    return f"{platform.system()} {platform.machine()} {digest_of([instructions])[:16]}"


def fetch(name: str, key: Mapping[str, Any]) -> Path | None:
    """Return the stored file for a key, or None where there is none.

    Raises
    ------
    CacheError
        For a file that was damaged, which is removed, and a folder that others may write to.
    """
    folder = cache_folder()
    try:
        # By their number, as two processes may have stored the same program at the same time.
        found = sorted(folder.glob(f"{_stem(name, key)}-*.pt2"))
        if not found:
            return None
        _check_owner(folder)
        if _digest(found[0].read_bytes()) != found[0].stem.rsplit("-", 1)[1]:
            found[0].unlink()
            raise CacheError(f"{found[0]} was damaged and is removed; the next run makes a new one")
        os.utime(found[0])
    except OSError as error:
        raise CacheError(f"the cache folder {folder} cannot be used: {error}") from None
    return found[0]


def store(name: str, key: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """Make the file for a key with `build(path)` and move it into the cache in one step.

    Raises
    ------
    CacheError
        For a folder that cannot be written to, before anything is built, or where it is full.
    """
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=BUILDING) as temporary:
            made = Path(temporary) / "program.pt2"
            made.write_bytes(b"")
            build(made)
            target = folder / f"{_stem(name, key)}-{_digest(made.read_bytes())}.pt2"
            os.replace(made, target)
        _prune(folder, target)
    except OSError as error:
        raise CacheError(
            f"the cache folder {folder} cannot be used: {error}; set ASECALC_CACHE to a folder that you can write to"
        ) from None
    return target


def _check_owner(folder: Path) -> None:
    try:
        check_owner(folder)
    except InputError as error:
        raise CacheError(str(error)) from None


def _stem(name: str, key: Mapping[str, Any]) -> str:
    return f"{name}-{_digest(json.dumps(key, sort_keys=True, default=str))}"


def _digest(data: bytes | str) -> str:
    return digest_of([data])[:24]


def _prune(folder: Path, keep: Path) -> None:
    files = sorted(folder.glob("*.pt2"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[MOST_FILES:]:
        if path != keep:
            path.unlink(missing_ok=True)
    for path in folder.glob(f"{BUILDING}*"):
        with suppress(FileNotFoundError):  # of another process, which has ended just now
            if time.time() - path.stat().st_mtime > LEFT:
                shutil.rmtree(path, ignore_errors=True)
