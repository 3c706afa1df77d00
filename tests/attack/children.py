"""Cases of an attack in processes of their own, with limits of memory and of processor time."""

from __future__ import annotations

import os
import pickle
import resource
import select
import shutil
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.attack.outcomes import Result

if TYPE_CHECKING:
    from tests.attack.harness import Arena, Family

__all__ = ["in_children"]


def in_children(family: Family, seed: int, cases: range, folder: Path) -> Iterator[Result]:
    """Run these cases in one process, and in further ones if that ends before the last."""
    while cases:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which the child has one
            child = os.fork()
        if child == 0:
            os.close(reader)
            _child(family, seed, cases, folder, writer)
        os.close(writer)
        done = 0
        try:
            for result in _received(family, child, reader, len(cases)):
                done += 1
                yield result
        finally:
            os.close(reader)
            _end(child)
        cases = cases[done:]


def _child(family: Family, seed: int, cases: range, folder: Path, writer: int) -> None:
    """Run the cases with limits, send the results, and end without a word."""
    try:
        # What other processes may write to the terminal is of no interest, and their group is ended with this one.
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + int((2 * family.gigabytes + 1) * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for case in cases:
            most = int(time.process_time() + 2 * family.seconds) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))  # ends what burns with SIGXCPU
            result = _alone(family, family.arena(seed, case, folder))
            content = pickle.dumps(result)
            os.write(writer, len(content).to_bytes(4, "little") + content)
            if not result.well:
                break
    finally:
        os._exit(0)


def _alone(family: Family, arena: Arena) -> Result:
    os.chdir(arena.folder)
    try:
        return family.attempt(arena)
    except BaseException as error:  # noqa: BLE001  the family itself is at fault
        lines = "".join(traceback.format_exception(error)[-3:])
        return Result("raw_traceback", "the family could not prepare the case", lines)
    finally:
        os.chdir(arena.folder.parent)
        shutil.rmtree(arena.folder, ignore_errors=True)


def _received(family: Family, child: int, reader: int, cases: int) -> Iterator[Result]:
    """Results of a process, up to its first case that did not end well."""
    patience = 6 * family.seconds + 10
    for _ in range(cases):
        # The child measures CPU time; here only one that waits is ended.
        end = time.monotonic() + patience
        size = _read(reader, 4, end)
        content = size and _read(reader, int.from_bytes(size, "little"), end)
        result = pickle.loads(content) if content else _no_result(family, child, content is None, patience)
        yield result
        if not result.well:
            return


def _no_result(family: Family, child: int, late: bool, patience: float) -> Result:
    if late:
        return Result("beyond_limits", "", f"did not end within {patience:.0f} s", 6 * family.seconds)
    status = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    ended = status.si_status if status is not None else 0
    if status is not None and status.si_code != os.CLD_EXITED and ended == signal.SIGXCPU:
        return Result("beyond_limits", "", f"took more than {2 * family.seconds:g} s of CPU time", 2 * family.seconds)
    return Result("raw_traceback", "", f"the process ended with code or signal {ended}")


def _read(reader: int, size: int, end: float) -> bytes | None:
    """Return so many bytes; none if the other end is closed, None if they did not come in time."""
    content = b""
    while len(content) < size:
        if not select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        piece = os.read(reader, size - len(content))
        if not piece:
            return b""
        content += piece
    return content


def _end(child: int) -> None:
    """Wait for a process that has sent its last result; end it, with what it has started, if it has not."""
    ended = _ends_within(child, 0.5)
    if not ended:
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _ends_within(child: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True
