"""The folder of a learning: what is on disk, in which order, and how the same command goes on.

    learn.json        settings and digest of the start structures
    starts.xyz        the start structures
    given.xyz         labelled frames that the user brought
    clock.jsonl       seconds of labels, trainings and dynamics, a line a piece
    round00/          picked.xyz      structures to label, in this order
                      labels.xyz      their labels, one after another; labels.failed.jsonl: those without;
                                      labels.ahead.jsonl: those of workers that were ready before their turn
                      data.xyz        all labels so far; split.json
                      member0/ …      trainings
                      committee.json  threshold, calibration, errors
                      runs/           replicas
                      unphysical.xyz  frames that are for no labeller
                      far_structures.xyz  those of the rounds before, for the far-field teacher, if there is one
                      next.xyz        structures for the next round
                      round.json      the last file of a round
    final07/          the final model and its runs

Every file but labels, clock and the files of runs and trainings is written in one piece, and each of those grows by
whole entries; so a stage is done when its file is there, and is made again, with the same random numbers, when it is
not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.data.xyz_files import xyz_bytes
from asecalc_mlip.digests import digest_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import append_json, read_json, read_json_lines, read_structures, write_bytes, write_json
from asecalc_mlip.quantities import derived_seed
from asecalc_mlip.teachers.bare import state_of
from asecalc_mlip.units import ERROR_UNITS
from training.config import load_config
from training.learn.settings import FREE, LearnSettings, effective
from training.run.useless import refuse_useless

__all__ = ["Folder", "LearnResult", "Round", "read_unlabelled", "seed_of", "write_frames"]

_ENDS = {
    "stable": "all replicas were quiet",
    "budget": "all labels of the budget were used",
    "hours": "the hours are over",
    "stuck": "nothing new to label was found in several rounds",
    "interrupted": "interrupted; give the same command again to continue",
}
SETTINGS, STARTS, CLOCK = "learn.json", "starts.xyz", "clock.jsonl"
# 2: other labels are held out than in 1, so a folder of then must not go on with members that know them.
VERSION = 2


@dataclass(frozen=True)
class Round:
    """The files of one round."""

    number: int
    path: Path

    def file(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.path / name

    @property
    def labels(self) -> Path:
        """Return the file of labels."""
        return self.file("labels.xyz")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the round came to; None before its end."""
        return read_json(self.file("round.json")) if self.file("round.json").is_file() else None

    def member(self, number: int) -> Path:
        """Return the model file of a member."""
        return self.path / f"member{number}" / "member.pt"


class Folder:
    """The folder of a learning.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def open(self, settings: LearnSettings, starts: Sequence[Atoms], labeller: dict[str, Any]) -> None:
        """Write settings and start structures, or check that they are those of the learning in the folder.

        Parameters
        ----------
        settings : LearnSettings
        starts : sequence of Atoms
        labeller : dict
            What makes the labels: calculator, settings, version.

        Raises
        ------
        InputError
            For another labeller, other settings or start structures than before, and settings of trainings without
            effect.
        """
        now = {"version": VERSION, "starts": _digest(starts), "labeller": labeller, "settings": settings.to_dict()}
        path = self.path / SETTINGS
        if path.is_file():
            _check_same(read_json(path, "settings"), now, self.path)
        elif any(self.path.glob("round*")):
            raise InputError(f"{self.path} has rounds without {SETTINGS}; choose another --output")
        else:
            refuse_useless(load_config([], settings.training))
        write_frames(self.path / STARTS, starts)
        write_json(path, now)

    def round(self, number: int) -> Round:
        """Return a round, whose folder is made where it is not there."""
        path = self.path / f"round{number:02d}"
        path.mkdir(exist_ok=True)
        return Round(number, path)

    def rounds(self) -> list[dict[str, Any]]:
        """Return what the rounds that have ended came to."""
        found = []
        for number in range(len(list(self.path.glob("round[0-9]*")))):
            summary = self.round(number).summary
            if summary is None:
                break
            found.append(summary)
        return found

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds of a piece of work to the clock, also of one that Ctrl-C or an error ends."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            append_json(self.path / CLOCK, {"what": what, "seconds": round(time.perf_counter() - begun, 3)})

    def seconds(self) -> dict[str, float]:
        """Return the seconds of labels, training and dynamics so far; pieces that a kill cut off do not count."""
        total = {"labels": 0.0, "training": 0.0, "dynamics": 0.0}
        for entry in read_json_lines(self.path / CLOCK):
            total[entry["what"]] += entry["seconds"]
        return {name: round(value, 1) for name, value in total.items()}


@dataclass(frozen=True)
class LearnResult:
    """What a learning came to.

    Attributes
    ----------
    status : str
        "stable", "budget", "hours", "stuck" or "interrupted".
    labels, failed : int
        Structures with labels, and structures whose labels failed.
    model : Path or None
        The final model, or the first member where there is none.
    report : Path or None
        The page.
    rounds : list of dict
    final : dict or None
        Survival and held-out errors of the final model.
    seconds : dict
        Of labels, training and dynamics.
    """

    status: str
    labels: int
    failed: int
    model: Path | None
    report: Path | None
    rounds: list[dict[str, Any]]
    final: dict[str, Any] | None
    seconds: dict[str, float]

    def describe(self) -> str:
        """Tell in some lines how it ended, what it cost and where the model is."""
        spent = ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items())
        lines = [f"{_ENDS[self.status]}: {self.labels} labels, {self.failed} failed; {spent}"]
        if self.final is not None:
            stable = len(self.final["broken"]) - sum(self.final["broken"])
            errors = ", ".join(
                f"{k.replace('_', ' ')} {v:.1f} {ERROR_UNITS[k]}" for k, v in self.final["errors"].items()
            )
            lines.append(f"final model: {stable} of {len(self.final['broken'])} replicas stable; held out: {errors}")
        return "\n".join([*lines, *(str(path) for path in (self.model, self.report) if path)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        paths = {"model": self.model and str(self.model), "report": self.report and str(self.report)}
        return {**self.__dict__, **paths}


def seed_of(settings: LearnSettings, *places: int) -> int:
    """Return a seed that depends on the settings' seed and on where it is used: round, replica, member."""
    return derived_seed(settings.seed, *places) >> 1


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures as extended XYZ in one piece; an empty file of none."""
    write_bytes(path, xyz_bytes(frames))


def read_unlabelled(path: Path) -> list[Atoms]:
    """Read structures, whatever labels they have; none of an empty file."""
    return read_structures(path) if path.stat().st_size else []


def _digest(frames: Sequence[Atoms]) -> str:
    return digest_of(part for atoms in frames for part in (
        atoms.numbers, np.round(atoms.positions, 6), np.round(atoms.cell.array, 6), atoms.pbc, state_of(atoms),
        np.flatnonzero(fixed_atoms(atoms)[0]),
    ))  # fmt: skip


def _check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    if before.get("version") != VERSION:
        raise InputError(
            f"{folder} holds a learning of another version of this command, which held out other labels; choose "
            "another --output, and give the labels there with --data"
        )
    unlike = ["start structures"] if before["starts"] != now["starts"] else []
    # Learnings of older versions name a charge of 0, too.
    if {"charge": 0, **before["labeller"]} != {"charge": 0, **now["labeller"]}:
        unlike.append(f"labels were by {before['labeller']}, are by {now['labeller']}")
    settings, asked = effective(before["settings"]), effective(now["settings"])
    for name, value in asked.items():
        old = settings.get(name)
        if name not in FREE and old != value:
            unlike.append(f"{name} was {old}, is {value}")
    if unlike:
        raise InputError(
            f"{folder} holds a learning with other settings ({'; '.join(unlike)}); give the same ones, or choose "
            "another --output"
        )
