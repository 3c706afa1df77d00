"""Labels by several workers at the same time, handed out in the order in which they are asked for.

A label that is there before its turn goes into a file of its own at once, so a process that is killed loses only those
at work; the next one takes the others from there. The file of labels is written in order by whoever asks, and so it is
the same, byte for byte, as that of one process.
"""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.digests import digest_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import append_json, read_json_lines
from asecalc_mlip.stopping import PATIENCE, Interrupted
from asecalc_mlip.teachers.bare import state_of
from asecalc_mlip.teachers.base import AseTeacher, Failed, Labels, Teacher, TeacherOptions
from asecalc_mlip.teachers.naming import open_teacher, with_whole_path
from asecalc_mlip.workers import Lost, Pool

__all__ = ["side_by_side"]


@contextmanager
def side_by_side(
    teacher: Teacher,
    name: str,
    options: TeacherOptions,
    structures: Sequence[Atoms],
    ahead: Path,
    *,
    pool: Pool | None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Teacher]:
    """Give a teacher whose labels of these structures are computed by workers while others are asked for.

    Parameters
    ----------
    teacher : Teacher
        That of this process.
    name : str
        By which workers open it, as `open_teacher`.
    options : TeacherOptions
    structures : sequence of Atoms
        What will be asked for, in this order.
    ahead : Path
        File of the labels that are there before their turn; it is removed when all were asked for.
    pool : Pool or None
        None: this process labels, but takes from the file what is there.
    stop : callable
        Asked whether to begin no other label. Those at work are waited for, and kept.

    Raises
    ------
    Interrupted
        When a label fails while `stop` becomes true: Ctrl-C in a terminal reaches the program that labels as well, and
        a structure that it left is to be tried again.
    """
    if pool is None:
        labeller = _Ahead(teacher, ahead, stop)
        yield labeller
    else:
        labeller = _Spread(teacher, ahead, pool, stop, with_whole_path(name), options, structures)
        try:
            yield labeller
        finally:
            labeller.drain()
    ahead.unlink(missing_ok=True)


class _Ahead:
    """A teacher that takes labels from a file where they are there already."""

    def __init__(self, teacher: Teacher, path: Path, stop: Callable[[], bool]) -> None:
        self.teacher, self.path, self.name, self.stop = teacher, path, teacher.name, stop
        self.known = {entry["structure"]: _result(entry) for entry in read_json_lines(path)}

    def recipe(self) -> dict[str, Any]:
        return self.teacher.recipe()

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        for atoms in structures:
            key = _key(atoms)
            yield self.known[key] if key in self.known else self._computed(key, atoms)

    def _computed(self, key: str, atoms: Atoms) -> Labels | Failed:
        (found,) = self.teacher.label([atoms])
        if isinstance(found, Failed) and self.stop():
            raise Interrupted
        return found


class _Spread(_Ahead):
    """A teacher that has structures labelled by workers, as many at a time as there are workers."""

    def __init__(
        self, teacher: Teacher, path: Path, pool: Pool, stop: Callable[[], bool], name: str, options: TeacherOptions,
        structures: Sequence[Atoms],
    ) -> None:  # fmt: skip
        super().__init__(teacher, path, stop)
        self.pool, self.source = pool, (name, options, json.dumps(teacher.recipe()))
        todo = {_key(atoms): atoms for atoms in structures}
        self.waiting = deque((key, atoms) for key, atoms in todo.items() if key not in self.known)
        self.running: dict[Future, str] = {}
        # Failed after a stop, perhaps as Ctrl-C reached the program that labels: to be tried again.
        self.left: set[str] = set()

    def drain(self) -> None:
        """Wait for the labels at work, and keep them."""
        self.waiting.clear()
        while self.running:
            try:
                self._collect()
            except InputError:  # of another label; the first such error is told already
                pass

    def _computed(self, key: str, atoms: Atoms) -> Labels | Failed:
        while key not in self.known:
            if key not in self.running.values() and key not in dict(self.waiting):
                if key in self.left:
                    raise Interrupted
                self.waiting.appendleft((key, atoms))
            self._collect(key)
        return self.known[key]

    def _collect(self, wanted: str | None = None) -> None:
        """Give tasks to workers that are free, and keep what is there."""
        free = self.pool.size() - len(self.running) if self.waiting else 0
        while self.waiting and free > 0 and (self.waiting[0][0] == wanted or not self.stop()):
            key, atoms = self.waiting.popleft()
            self.running[self.pool.submit(_label, *self.source, atoms)] = key
            free -= 1
        done = wait(self.running, timeout=PATIENCE, return_when=FIRST_COMPLETED).done
        for job in [job for job in self.running if job in done]:
            self._keep(self.running.pop(job), job)

    def _keep(self, key: str, job: Future) -> None:
        try:
            found: Labels | Failed = self.pool.outcome(job)
        except Lost as error:
            found = Failed(str(error))
        if isinstance(found, Failed) and self.stop():
            self.left.add(key)
            return
        append_json(self.path, _entry(key, found))
        self.known[key] = found


def _label(name: str, options: TeacherOptions, recipe: str, atoms: Atoms) -> Labels | Failed:
    """Label a structure in a worker."""
    try:
        (found,) = _opened(name, options, recipe).label([atoms])
    except InputError as error:
        raise InputError(f"{error} (on the worker {socket.gethostname()})") from None
    return found


@lru_cache(maxsize=4)
def _opened(name: str, options: TeacherOptions, recipe: str) -> Teacher:
    """Open the teacher in a worker, once, and see that it is the one that was asked for."""
    teacher = open_teacher(name, options)
    if (found := json.dumps(teacher.recipe())) != recipe:
        raise InputError(f"the labels would be by {found}, not by {recipe}; install the same versions on all workers")
    if isinstance(teacher, AseTeacher):
        teacher.write_apart(f"labels-{socket.gethostname()}-{os.getpid()}")
    return teacher


def _key(atoms: Atoms) -> str:
    return digest_of((atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, state_of(atoms)))


def _entry(key: str, found: Labels | Failed) -> dict[str, Any]:
    if isinstance(found, Failed):
        return {"structure": key, "reason": found.reason}
    stress = None if found.stress is None else found.stress.tolist()
    return {"structure": key, "energy": found.energy, "forces": found.forces.tolist(), "stress": stress}


def _result(entry: dict[str, Any]) -> Labels | Failed:
    if "reason" in entry:
        return Failed(entry["reason"])
    stress = None if entry["stress"] is None else np.array(entry["stress"], dtype=float)
    return Labels(float(entry["energy"]), np.array(entry["forces"], dtype=float).reshape(-1, 3), stress)
