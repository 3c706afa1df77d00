"""Faults while a command works: it is killed or interrupted, the disk is full, another process wants the same folder.

Given again afterwards, the command ends with the same bytes as one that nothing happened to.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.attack.folders import compare
from tests.attack.harness import Arena, Attack, family
from tests.attack.running import COMMANDS, Changes, Make, Whole, finished, forked, run, whole

__all__ = ["FAULTS"]

# Makes the fault happen to the command in a folder, which is like that whole run; returns what was done, or what went
# wrong after "wrong: ".
Fault = Callable[[Arena, Make, Path, Path, Whole], str]
NOBODY = 65534


def _killed(arena: Arena, make: Make, folder: Path, log: Path, like: Whole) -> str:
    """Kill one to three times, at a moment of the run or just before it changes a file."""
    rng, done = arena.rng, list[str]()
    more = int(rng.integers(3))
    while not done:  # a run that ended before it was killed does not count
        _emptied(folder.parent)
        done += _kill(rng, make, folder, log, like)
    for _ in range(more):
        done += _kill(rng, make, folder, log, like)
    arena.attempts = len(done)
    return f"killed {', '.join(done)}"


def _kill(rng: np.random.Generator, make: Make, folder: Path, log: Path, like: Whole) -> list[str]:
    if rng.random() < 0.5:
        fatal = int(rng.integers(1, like.changes + 1))
        child = forked(make(folder), log, lambda: sys.addaudithook(Changes(fatal)))
        code, when = finished(child), f"before change {fatal} of {like.changes}"
        return [when] if code == -signal.SIGKILL else []
    moment = float(rng.uniform(0.02, 1.0)) * like.seconds
    child = forked(make(folder), log)
    if finished(child, moment) is not None:
        return []
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return [f"after {moment:.2f} s of {like.seconds:.2f} s"]


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _interrupted(arena: Arena, make: Make, folder: Path, log: Path, like: Whole) -> str:
    moment, times = float(arena.rng.uniform(0.05, 0.9)) * like.seconds, int(arena.rng.integers(1, 3))
    child = forked(make(folder), log)
    if finished(child, moment) is not None:
        return "ended before it was interrupted"
    for _ in range(times):
        os.kill(child, signal.SIGINT)
        code = finished(child, moment + 0.05)
        if code is not None:
            break
    code, told = finished(child) if code is None else code, log.read_text()
    done = f"interrupted {times} times after {moment:.2f} s of {like.seconds:.2f} s"
    if code not in (0, 1, 128 + signal.SIGINT) or "Traceback" in told or "Aborted!" in told:
        return f"wrong: {done}, it ended with {code}: {told[-1000:]}"
    return done


def _full(arena: Arena, make: Make, folder: Path, log: Path, like: Whole) -> str:
    limit = int(10 ** arena.rng.uniform(2.5, 5.5))

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code = finished(forked(make(folder), log, fill))
    told = log.read_text()
    if code not in (0, 1, 2) or "Traceback" in told:
        return f"wrong: files of at most {limit} bytes, it ended with {code}: {told[-1000:]}"
    return f"files of at most {limit} bytes: exit code {code}"


def _shared(arena: Arena, make: Make, folder: Path, log: Path, like: Whole) -> str:
    first = forked(make(folder), log)
    early = finished(first, float(arena.rng.uniform(0.0, 0.5)) * like.seconds)
    second = forked(make(folder), log.with_name("second.log"))
    codes = [finished(first) if early is None else early, finished(second)]
    told = log.read_text() + log.with_name("second.log").read_text()
    if not set(codes) <= {0, 1, 2} or "Traceback" in told:
        return f"wrong: two processes ended with {codes}: {told[-1000:]}"
    return f"two processes ended with {codes}"


def _unwritable(arena: Arena, make: Make, folder: Path, log: Path, like: Whole) -> str:
    make(folder)  # the files it reads
    folder.mkdir(exist_ok=True)
    for path in (folder.parent, folder):
        path.chmod(0o555)
    log.touch()
    log.chmod(0o666)
    for path in folder.parents[:3]:
        path.chmod(path.stat().st_mode | 0o055)
    code = finished(forked(make(folder), log, lambda: os.setuid(NOBODY) if os.getuid() == 0 else None))
    told = log.read_text()
    for path in (folder.parent, folder):
        path.chmod(0o755)
    if code != 2 or "Traceback" in told:
        return f"wrong: in a folder that cannot be written to, it ended with {code}: {told[-1000:]}"
    return "a folder that cannot be written to"


FAULTS: dict[str, Fault] = {
    "kill -9": _killed,
    "Ctrl-C": _interrupted,
    "disk full": _full,
    "two processes": _shared,
    "read-only folder": _unwritable,
}
# One of each in `make test`, in commands that take a second.
QUICK = {
    ("kill -9", "eam label"),
    ("Ctrl-C", "eam label"),
    ("disk full", "eam label"),
    ("two processes", "eam label"),
    ("read-only folder", "eam label"),
}


def _enter(kind: str, fault: Fault, name: str, make: Make) -> None:
    small, large = int((kind, name) in QUICK), 50 if kind == "kill -9" else 5

    @family(
        f"{kind}: {name}", small=small, large=large, seconds=90.0, gigabytes=8.0, warm=partial(whole, name), together=5
    )
    def prepare(arena: Arena) -> Attack:
        like, hurt, log = whole(name), arena.folder / "b" / "run", arena.folder / "again.log"
        hurt.parent.mkdir()

        def attempt() -> bool | str:
            done = fault(arena, make, hurt, arena.folder / "fault.log", like)
            if done.startswith("wrong"):
                return done
            code = run(make(hurt), log)
            if code not in (0, 1):
                return f"{done}; given again, it ended with {code}: {log.read_text()[-1500:]}"
            unlike = compare(like.folder, hurt)
            return not unlike or f"{done}: {unlike}"

        return f"{kind} in {name}", attempt


for _kind, _fault in FAULTS.items():
    for _name, _make in COMMANDS.items():
        _enter(_kind, _fault, _name, _make)
