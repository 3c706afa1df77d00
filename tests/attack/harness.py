"""Attacks: families of random attempts, each of which ends in one of six outcomes, counted.

To add a family, write a function in a file of this folder, and name the file in `catalogue.py` if it is new:

    @family("flipped bits", small=40, large=4000)
    def flipped_bits(arena: Arena) -> Attack:
        path = arena.folder / "model.pt"
        ...                                      # make the bad thing, from arena.rng alone; this is not measured
        return f"bit {bit}", lambda: same(path)  # what it is, for the report, and the attempt, which is measured

The attempt
  - raises an InputError (or a click.ClickException, or `Refused`): refused, which is well;
  - returns True: taken, and the numbers are equal to those expected, which is well;
  - returns text (or False): taken in silence, and wrong; the text says how;
  - raises anything else: a raw traceback. A refusal without a message, or with one that cannot be printed, counts too;
  - makes the file `arena.trap`: executed. `Trap(arena.trap)` is a pickle that does;
  - takes more CPU time or memory than the family allows (default: 5 s and 2 GB), also if it is refused afterwards.
    Memory that the system did not grant counts, whatever the error became.
`asecalc(…)` runs a command line and raises `Refused` for exit code 2 with a message.

Each case has a folder of its own and runs in another process than the harness (where there is fork: Linux). Where a
family says so, some cases share a process, one after another; the process ends with the first case that does not end
well. A case depends only on the seed, the name of the family and its number, so any of them can be run again alone:

    python -m tests.attack --only "flipped bits" --seed 7 --case 123

`make test` runs the small number of cases with seed 0 (or ASECALC_ATTACK_SEED), `make attack` the large one with a new
seed; it goes on where it stopped, and writes benchmarks/results/attack.json.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner

from asecalc_mlip import cli
from asecalc_mlip.errors import InputError
from tests.attack.children import in_children
from tests.attack.outcomes import Result

__all__ = ["FAMILIES", "Arena", "Attack", "Family", "Refused", "Trap", "asecalc", "family"]

LONGEST_MESSAGE = 4000  # characters
ISOLATED = sys.platform == "linux"  # elsewhere fork and limits of memory are not to be relied on

Attack = tuple[str, Callable[[], bool | str]]


class Refused(Exception):
    """An attempt that was refused in another way than by an InputError."""


@dataclass
class Arena:
    """Where one case takes place.

    Attributes
    ----------
    rng : numpy.random.Generator
        The only source of chance.
    folder : Path
        Empty, and removed afterwards.
    case : int
        Number of the case, for families that are tables.
    attempts : int
        How many there were in this case, if there is more than one: kills of a run, calls.
    note : str
        What was measured, for the report.
    """

    rng: np.random.Generator
    folder: Path
    case: int = 0
    attempts: int = 1
    note: str = ""

    @property
    def trap(self) -> Path:
        """File whose presence tells that code was run."""
        return self.folder / "executed"

    def choice(self, options: Any) -> Any:
        """One of a list, as it is."""
        options = list(options)
        return options[int(self.rng.integers(len(options)))]


class Trap:
    """Makes a file when a pickle of it is opened."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@dataclass
class Family:
    """One kind of attack; see the docstring of this file.

    Attributes
    ----------
    small, large : int
        Number of cases in `make test` and `make attack`.
    seconds, gigabytes : float
        CPU time and memory that an attempt may take.
    warm : callable, optional
        Called once before the first case, in this process: loads what all cases share.
    together : int
        Cases in one process; to start one takes longer than most cases.
    """

    name: str
    prepare: Callable[[Arena], Attack]
    small: int
    large: int
    seconds: float = 5.0
    gigabytes: float = 2.0
    warm: Callable[[], Any] | None = None
    together: int = 1

    def run(self, seed: int, case: int) -> Result:
        """Run one case."""
        return next(self.results(seed, range(case, case + 1)))

    def results(self, seed: int, cases: range) -> Iterator[Result]:
        """Run some cases, in other processes where these can be had."""
        for start in range(cases.start, cases.stop, self.together):
            some = range(start, min(start + self.together, cases.stop))
            with tempfile.TemporaryDirectory(prefix="attack-", ignore_cleanup_errors=True) as folder:
                if ISOLATED:
                    yield from in_children(self, seed, some, Path(folder))
                else:
                    yield from (self.attempt(self.arena(seed, case, Path(folder))) for case in some)

    def arena(self, seed: int, case: int, folder: Path) -> Arena:
        """Return where a case takes place, with a folder of its own below this one."""
        folder = folder / str(case)
        folder.mkdir()
        return Arena(np.random.default_rng([seed, zlib.crc32(self.name.encode()), case]), folder, case)

    def attempt(self, arena: Arena) -> Result:
        """Run one case in this process."""
        what, attempt = self.prepare(arena)
        memory, start = _resident_bytes(), time.process_time()
        outcome, told = _outcome(attempt)
        # The peak may be that of an earlier case of this process: no more than this was used.
        seconds, used = time.process_time() - start, _peak_bytes() - memory
        if arena.trap.exists():
            outcome, told = "executed", f"code was run; then: {told}"
        elif outcome != "beyond_limits" and (seconds > self.seconds or used > self.gigabytes * 1e9):
            outcome, told = "beyond_limits", f"{outcome} after {seconds:.1f} s and {used / 1e9:.1f} GB: {told}"
        return Result(outcome, what, told or arena.note, seconds, used / 1e6, arena.attempts)


FAMILIES: dict[str, Family] = {}


def family(name: str, *, small: int, large: int, **options: Any) -> Callable[[Callable[[Arena], Attack]], Any]:
    """Enter a function into the table of families; it stays what it is."""

    def enter(prepare: Callable[[Arena], Attack]) -> Callable[[Arena], Attack]:
        if name in FAMILIES:
            raise ValueError(f"there are two families {name!r}")
        FAMILIES[name] = Family(name, prepare, small, large, **options)
        return prepare

    return enter


def attack(family: Family, seed: int, cases: range) -> Iterator[tuple[int, Result]]:
    """Run some cases of a family."""
    if family.warm is not None:
        family.warm()
    yield from zip(cases, family.results(seed, cases), strict=True)


def asecalc(*arguments: Any) -> str:
    """Run a command line in this process and return its stdout; Refused for exit code 2 with a message."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 2:
        raise Refused(result.stderr)
    return result.stdout


def _outcome(attempt: Callable[[], bool | str]) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = attempt()
    except (InputError, click.ClickException, Refused) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return _refusal(error, message)
    except BaseException as error:  # noqa: BLE001  this is what is looked for
        if _starved(error):
            return "beyond_limits", f"memory ran out: {type(error).__name__}: {error!s:.200}"
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return "raw_traceback", f"{type(error).__name__} in {place}: {_printable(str(error))[:300]}"
    return ("equal", "") if found is True else ("silent_wrong", str(found or "wrong"))


def _refusal(error: BaseException, message: str) -> tuple[str, str]:
    if _starved(error):
        return "beyond_limits", f"memory ran out before: {message:.300}"
    if not message.strip() or len(message) > LONGEST_MESSAGE or "Traceback (most recent" in message:
        return "raw_traceback", f"refused with a message of {len(message)} characters: {_printable(message)[:300]}"
    if _printable(message) != message:
        return "raw_traceback", f"refused with a message that cannot be printed: {_printable(message)[:300]}"
    return "refused", message[:300]


def _starved(error: BaseException | None) -> bool:
    """Whether memory that was not granted is at the root of an error."""
    while error is not None:
        raw = isinstance(error, MemoryError) and not isinstance(error, InputError)
        if raw or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _resident_bytes() -> int:
    if not ISOLATED:
        return _peak_bytes()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
