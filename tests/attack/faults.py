"""Faults while a command works: it is killed or interrupted, the disk is full, another process wants the same folder.

Given again afterwards, the command ends with the same bytes as one that nothing happened to.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.attack.folders import compare
from tests.attack.harness import Arena, Attack, family
from tests.attack.running import COMMANDS, Make, finished, forked, run

__all__ = ["FAULTS"]

# Makes the fault happen to the command in a folder, which takes so many seconds; returns what was done, or what went
# wrong after "wrong: ".
Fault = Callable[[np.random.Generator, Make, Path, Path, float], str]
NOBODY = 65534


def _killed(rng: np.random.Generator, make: Make, folder: Path, log: Path, seconds: float) -> str:
    moments = []
    for share in rng.uniform(0.02, 1.0, size=int(rng.integers(1, 4))):
        child = forked(make(folder), log)
        if finished(child, share * seconds) is None:
            moments.append(f"{share * seconds:.2f} s")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return f"killed after {', '.join(moments)} of {seconds:.2f} s"


def _interrupted(rng: np.random.Generator, make: Make, folder: Path, log: Path, seconds: float) -> str:
    child, moment, times = forked(make(folder), log), float(rng.uniform(0.05, 0.9)) * seconds, int(rng.integers(1, 3))
    if finished(child, moment) is not None:
        return "ended before it was interrupted"
    for _ in range(times):
        os.kill(child, signal.SIGINT)
        code = finished(child, 0.05)
        if code is not None:
            break
    code, told = finished(child) if code is None else code, log.read_text()
    done = f"interrupted {times} times after {moment:.2f} s of {seconds:.2f} s"
    if code not in (0, 1, 128 + signal.SIGINT) or "Traceback" in told or "Aborted!" in told:
        return f"wrong: {done}, it ended with {code}: {told[-1000:]}"
    return done


def _full(rng: np.random.Generator, make: Make, folder: Path, log: Path, seconds: float) -> str:
    limit = int(10 ** rng.uniform(2.5, 5.5))

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code = finished(forked(make(folder), log, fill))
    told = log.read_text()
    if code not in (0, 1, 2) or "Traceback" in told:
        return f"wrong: files of at most {limit} bytes, it ended with {code}: {told[-1000:]}"
    return f"files of at most {limit} bytes: exit code {code}"


def _shared(rng: np.random.Generator, make: Make, folder: Path, log: Path, seconds: float) -> str:
    first = forked(make(folder), log)
    early = finished(first, float(rng.uniform(0.0, 0.5)) * seconds)
    second = forked(make(folder), log.with_name("second.log"))
    codes = [finished(first) if early is None else early, finished(second)]
    told = log.read_text() + log.with_name("second.log").read_text()
    if not set(codes) <= {0, 1, 2} or "Traceback" in told:
        return f"wrong: two processes ended with {codes}: {told[-1000:]}"
    return f"two processes ended with {codes}"


def _unwritable(rng: np.random.Generator, make: Make, folder: Path, log: Path, seconds: float) -> str:
    make(folder)  # the files it reads
    folder.mkdir(exist_ok=True)
    for path in (folder.parent, folder):
        path.chmod(0o555)
    log.touch()
    log.chmod(0o666)
    for path in folder.parents[:2]:
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

    @family(f"{kind}: {name}", small=small, large=large, seconds=90.0, gigabytes=8.0)
    def prepare(arena: Arena) -> Attack:
        whole, hurt, log = arena.folder / "a" / "run", arena.folder / "b" / "run", arena.folder / "log"
        for folder in (whole, hurt):
            folder.parent.mkdir()

        def attempt() -> bool | str:
            begun = time.monotonic()
            code = run(make(whole), log)
            if code not in (0, 1):
                return f"the whole run ended with {code}: {log.read_text()[-1500:]}"
            done = fault(arena.rng, make, hurt, arena.folder / "fault.log", time.monotonic() - begun)
            if done.startswith("wrong"):
                return done
            code = run(make(hurt), arena.folder / "again.log")
            if code not in (0, 1):
                return f"{done}; given again, it ended with {code}: {(arena.folder / 'again.log').read_text()[-1500:]}"
            unlike = compare(whole, hurt)
            return not unlike or f"{done}: {unlike}"

        return f"{kind} in {name}", attempt


for _kind, _fault in FAULTS.items():
    for _name, _make in COMMANDS.items():
        _enter(_kind, _fault, _name, _make)
