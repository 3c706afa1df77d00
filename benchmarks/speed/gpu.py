"""All that is to be known about a GPU, by one command: results, speed, batches, training, dynamics, memory.

    python benchmarks/speed/gpu.py --all                 # make gpu-check: under nine minutes on an H100
    python benchmarks/speed/gpu.py                       # the table of what was measured, and what is left
    python benchmarks/speed/gpu.py --all --rehearse --results DIR        # the same with tiny sizes on the CPU

Rows come in the order of their worth, each is written when it is there (gpu_check.json, gpu_check.log), and the same
command goes on with what is missing. They are measured in a process of their own, which is begun anew after a row that
took too long, or broke the GPU's context or a capture; a row that fails says why and is tried again next time. An
engine that did so twice is left out until then. At the end come a table (gpu_check.md) and a figure (gpu_check.png).
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a checkout that is not installed
    sys.path.insert(0, str(ROOT))

from asecalc_mlip.files import read_json, write_json  # noqa: E402

# Seconds for imports and the GPU's start before the first row.
_START = 120.0
# Seconds for the row that is being measured when time is over.
_GRACE = 20.0
# How often an engine may end the process before its other rows are left out: each time costs a start, or a row's limit.
_MOST_BREAKS = 2
# Seconds for a process that was killed to end.
_MOST_WAIT = 10.0


@click.command(help=__doc__)
@click.option("--all", "everything", is_flag=True, help="Measure what is missing.")
@click.option("--only", "groups", multiple=True, help="Measure a group, or rows by how their names begin; repeatable.")
@click.option("--device", default=None, help="cuda (default), cuda:1, or cpu.")
@click.option("--minutes", default=8.5, show_default=True, help="No row begins after this time.")
@click.option("--rehearse", is_flag=True, help="Tiny sizes on the CPU, to see that all of it runs.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=Path(__file__).parents[1] / "results", help="Folder."
)
@click.option("--worker", is_flag=True, hidden=True)
@click.option("--skip", multiple=True, hidden=True)
@click.option("--without", multiple=True, hidden=True)
def main(
    everything: bool, groups: Sequence[str], device: str | None, minutes: float, rehearse: bool, results: Path,
    worker: bool, skip: Sequence[str], without: Sequence[str],
) -> None:  # fmt: skip
    """Measure what is missing, and report."""
    place = device or ("cpu" if rehearse else "cuda")
    if worker:
        _work(place, rehearse, groups, skip, without)
        return
    results.mkdir(parents=True, exist_ok=True)
    check = _Check(results, place, rehearse, groups)
    if everything or groups:
        check.run(time.monotonic() + 60.0 * minutes)
    from benchmarks.speed.gpu_report import report

    report(check.done, results)
    check.say((results / "gpu_check.md").read_text())
    if check.unusable:
        raise click.ClickException(f"nothing can be measured on {place}: {check.unusable}")


class _Check:
    """Rows that are done, and the process that measures the others."""

    def __init__(self, results: Path, device: str, rehearse: bool, groups: Sequence[str]) -> None:
        self.path = results / "gpu_check.json"
        self.log = (results / "gpu_check.log").open("a")
        self.command = [sys.executable, __file__, "--worker", "--device", device]
        self.command += ["--rehearse"] * rehearse + [part for group in groups for part in ("--only", group)]
        self.done: dict[str, Any] = read_json(self.path, "results") if self.path.exists() else {}
        self.tried: set[str] = set()
        # Why the device cannot be used.
        self.unusable = ""
        # How often rows of each engine ended the process.
        self.breaks: Counter[str] = Counter()

    def run(self, deadline: float) -> None:
        """Measure until all is there or time is over; what ended its process before comes last."""
        ended = {key for key, row in self.done.items() if "failed" in row and "ended" in row}
        left = True
        while left and time.monotonic() < deadline:
            left = self._attempt(deadline, ended)
            if not left and ended and not self.unusable and "start" not in self.done:
                ended, left = set(), True
        if left:
            self.say("Time is over; the same command goes on with what is missing.")

    def say(self, text: str) -> None:
        """Print, and log so that a kill loses nothing."""
        click.echo(text)
        self.log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self.log.flush()
        os.fsync(self.log.fileno())

    def _attempt(self, deadline: float, later: Collection[str] = ()) -> bool:
        """Run one process as far as it comes, without some rows; return whether rows are left for another."""
        skip = {key for key, row in self.done.items() if "failed" not in row}.union(self.tried, later)
        command = self.command + [part for key in sorted(skip) for part in ("--skip", key)]
        command += [
            part for name, times in self.breaks.items() if times >= _MOST_BREAKS for part in ("--without", name)
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
        try:
            return self._listen(lines, deadline)
        finally:
            _end(process)

    def _listen(self, lines: queue.Queue[str | None], deadline: float) -> bool:
        now, until = "start", min(time.monotonic() + _START, deadline + _GRACE)
        while True:
            try:
                line = lines.get(timeout=max(0.1, until - time.monotonic()))
            except queue.Empty:
                if time.monotonic() > deadline:
                    return True
                return self._broke(now, f"took too long; ended at {time.strftime('%H:%M:%S')}")
            message = _message(line)
            if message is None:
                # Without a farewell the process broke.
                return self._broke(now, "the process that measured it ended")
            if "begin" in message:
                self.done.pop("start", None)
                now, until = message["begin"], min(time.monotonic() + message["limit"], deadline + _GRACE)
                if time.monotonic() > deadline:
                    return True
            elif "row" in message:
                self._note(now, message["row"])
                until = min(time.monotonic() + _START, deadline + _GRACE)
            elif "unusable" in message:
                self.unusable = message["unusable"]
                return False
            elif "end" in message:
                return message["end"] == "broken" and self._broke(now, "the process is begun anew")

    def _broke(self, key: str, reason: str) -> bool:
        """Note a row that ended its process, unless it was measured; return whether another one is worth a try."""
        row = self.done[key] if key in self.tried else {"failed": reason}
        self._note(key, {**row, "ended": reason})
        for name in engines_of(key):
            self.breaks[name] += 1
            if self.breaks[name] == _MOST_BREAKS:
                self.say(f"{name} ended the process {_MOST_BREAKS} times; its other rows are left for next time.")
        return key != "start"

    def _note(self, key: str, row: dict[str, Any]) -> None:
        self.tried.add(key)
        self.done[key] = row
        write_json(self.path, self.done)
        self.say(f"{key:<62} {_short(row)}")


def engines_of(key: str) -> set[str]:
    """Engines that a row is of, by its name; "kernels" are those of trainings."""
    return set(key.split(", ")) & {"triton", "cuda-graph", "eager", "native", "compiled", "kernels"}


def _work(device: str, rehearse: bool, groups: Sequence[str], skip: Sequence[str], without: Sequence[str]) -> None:
    """Measure row by row; the answers are the lines of standard output."""
    _end_with_parent()
    # What libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**message: Any) -> None:
        answers.write(json.dumps(message, default=float) + "\n")
        answers.flush()

    try:
        from benchmarks.speed.gpu_bench import NotHere, is_sound, make_room, why_unusable
        from benchmarks.speed.gpu_plan import plan
    except ImportError as error:  # a wheel that was not carried
        reason: str | None = f"{type(error).__name__}: {error}"
    else:
        reason = why_unusable(device)
    if reason is not None:
        answer(unusable=reason)
        return
    made = set(skip)
    for row in plan(device, rehearse):
        if row.key in made or not (not groups or row.group in groups or row.key.startswith(tuple(groups))):
            continue
        if engines_of(row.key) & set(without):
            continue
        made.add(row.key)
        answer(begin=row.key, limit=row.limit_s)
        answer(row=_measured(row.measure, NotHere))
        if not is_sound(device):
            answer(end="broken")
            return
        make_room(device)
    answer(end="complete")


def _measured(measure: Callable[[], dict[str, Any]], not_here: type[Exception]) -> dict[str, Any]:
    """Numbers of a row, or why there are none; and what was warned of, such as an engine that gave up."""
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = measure()
        except not_here as error:
            found = {"skipped": str(error)[:300]}
        except Exception as error:  # noqa: BLE001  one row must not end the others
            text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            found = {"failed": text[:300]}
        else:
            found = {**found, "row_s": round(time.perf_counter() - begun, 2)}
    texts = [str(one.message)[:300] for one in caught if issubclass(one.category, UserWarning)]
    return {**found, "warned": list(dict.fromkeys(texts))[:3]} if texts else found


def _pass_on(lines: IO[str], to: queue.Queue[str | None]) -> None:
    for line in lines:
        to.put(line)
    to.put(None)


def _message(line: str | None) -> dict[str, Any] | None:
    """Return what a process said; None at its end, which may come within a line."""
    try:
        return None if line is None else json.loads(line)
    except ValueError:
        return None


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        # One that waits in the driver ends when that lets it.
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_MOST_WAIT)


def _end_with_parent() -> None:
    """End this process and its children when the one that began it was killed: it would go on using the GPU."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _short(row: dict[str, Any]) -> str:
    shown = {key: value for key, value in row.items() if key not in ("engine", "row_s")}
    return json.dumps(shown, default=float)[:240]


if __name__ == "__main__":
    main()
