"""The loop of on-the-fly learning.

    label the start → train K members → replicas, watched by monitor and committee → frames in question
          ↑                                                                                  │
          └────────── label the few that differ most ←───────────────────────────────────────┘

until M replicas have run t ps without such a frame; last, a model is trained anew on all labels. Sources: Behler, Int.
J. Quantum Chem. 115 (2015) 1032; Smith et al., J. Chem. Phys. 148 (2018) 241733; Vandermause et al., npj Comput. Mater.
6 (2020) 20; Zhang et al., Phys. Rev. Mater. 3 (2019) 023804.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.label_checks import refuse_without_cores
from asecalc_mlip.data.labels import frame_name, is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError
from asecalc_mlip.files import write_json
from asecalc_mlip.locks import locked
from asecalc_mlip.stopping import Interrupted, SoftStop
from asecalc_mlip.teachers import Teacher, open_teacher
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.base import Labels, labelled
from asecalc_mlip.teachers.labelling import begin_again, failures_of, label_structures, open_labels
from asecalc_mlip.teachers.side_by_side import side_by_side
from asecalc_mlip.workers import Pool, Workers
from training.learn.committee import calibration, judge_committee, load_committee, train_committee, write_data
from training.learn.dynamics import run_all
from training.learn.final import final_model
from training.learn.page import write_page
from training.learn.selection import atomic_features, farthest
from training.learn.settings import LearnSettings
from training.learn.state import Folder, LearnResult, Round, read_unlabelled, write_frames
from training.learn.structures import Candidate, candidates_of, check_starts, first_structures, is_physical
from training.train import Stopped

__all__ = ["learn"]

Tell = Callable[[str], None]
# After so many rounds in a row without anything to label, another would hardly bring a label.
MOST_EMPTY = 5
# Factor on the threshold after a round whose frames are all copies of labelled ones: it was too low to learn from.
RAISE = 1.25
LIVE_EVERY = 2000  # replica steps


def learn(
    settings: LearnSettings,
    starts: Sequence[Atoms],
    output: str | Path,
    *,
    workers: Workers | None = None,
    tell: Tell = lambda text: None,
    live: Tell = lambda text: None,
) -> LearnResult:
    """Learn a potential for one system from nothing, or go on with the learning in a folder.

    Parameters
    ----------
    settings : LearnSettings
    starts : sequence of Atoms
        Start structures of the dynamics, whose fixed atoms (FixAtoms) stay.
    output : path
        Folder of everything.
    workers : Workers, optional
        Where labels and replicas are computed; by default in this process. The labels are the same everywhere.
    tell : callable
        Called with a line for each round.
    live : callable
        Called with what is going on, often.

    Returns
    -------
    LearnResult
        Of status "interrupted" after Ctrl-C; the same call goes on.

    Raises
    ------
    InputError
        For settings and structures that cannot be used, other settings than before, a folder that another process
        works in, and a Dask scheduler that does not answer.
    """
    starts = check_starts(starts, settings)
    teacher = open_teacher(settings.labels, settings.labeller, device=settings.device)
    folder = Folder(output)
    with locked(folder.path, "--output"), SoftStop() as stop, (workers or Workers()).open(folder.path) as pool:
        folder.open(settings, starts, teacher.recipe())
        for labels in sorted(folder.path.glob("round*/labels.xyz")):
            open_labels(labels, teacher)
        return _Loop(folder, settings, starts, teacher, pool, stop, tell, live).run()


class _Loop:
    def __init__(
        self, folder: Folder, settings: LearnSettings, starts: Sequence[Atoms], teacher: Teacher, pool: Pool | None,
        stop: SoftStop, tell: Tell, live: Tell,
    ):  # fmt: skip
        self.folder, self.settings, self.starts, self.teacher, self.pool = folder, settings, starts, teacher, pool
        self.stop, self.tell, self._live = stop, tell, live

    def run(self) -> LearnResult:
        """Go on to the end of the learning, or to a signal."""
        status, final = "interrupted", None
        try:
            status = self._rounds()
            if self.settings.final:
                last = self.folder.round(len(self.folder.rounds()) - 1)
                final = final_model(
                    self.folder, last, self.settings, self.starts, self.teacher, self._stops, self.live, self.pool
                )
        except (Interrupted, Stopped):
            status = "interrupted"
        return self._result(status, final)

    def live(self, text: str) -> None:
        """Tell what is going on, after where the learning is."""
        rounds, seconds = self.folder.rounds(), self.folder.seconds()
        spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        before = f"{_known(rounds[-1])}; " if rounds else ""
        self._live(f"round {len(rounds)}: {text}; {before}{spent}")

    def _rounds(self) -> str:
        for number in itertools.count():
            now = self.folder.round(number)
            if now.summary is None:
                self._round(now)
                self.tell(_line(self.folder.rounds()[-1], self.settings))
                write_page(self.folder, self.settings, self.teacher, None, None)
            if (status := self._ended()) is not None:
                return status
        raise AssertionError("unreachable")

    def _ended(self) -> str | None:
        """Return how the learning ended with the rounds so far; None: it goes on."""
        rounds = self.folder.rounds()
        if not any(rounds[-1]["broken"]):
            return "stable"
        if rounds[-1]["asked"] >= self.settings.budget:
            return "budget"
        if self._late():
            return "hours"
        last = rounds[-MOST_EMPTY:]
        return "stuck" if len(last) == MOST_EMPTY and not any(r["taken"] for r in last) else None

    def _round(self, now: Round) -> None:
        before = self.folder.rounds()
        self._label(now)
        self._judge_labels(now)
        n_labels = write_data(self.folder, now)
        self._check()
        members = train_committee(self.folder, now, self.settings, self.teacher.name, self.live)
        self._check()
        committee = judge_committee(now, self.settings, members, _raised(before))
        runs = self._explore(now, members, committee["threshold"])
        found = candidates_of(runs, now.file("runs"), self.starts)
        physical = [one for one in found if is_physical(one.atoms)]
        unphysical = [one for one in found if not is_physical(one.atoms)]
        asked = self._asked(now)
        taken = self._choose(now, members[0], physical, self.settings.budget - asked)
        write_frames(now.file("unphysical.xyz"), [one.atoms for one in unphysical])
        write_frames(now.file("next.xyz"), [one.atoms for one, _ in taken])
        brief = {k: v for k, v in committee.items() if k not in ("spread", "error")}
        write_json(
            now.file("round.json"),
            {
                "round": now.number,
                "labels": n_labels,
                "asked": asked,
                "left": self.settings.budget - asked,
                "failed": self._failed(now),
                **brief,
                "stable_ps": [run["stable_ps"] for run in runs],
                "broken": [run["failure"] is not None for run in runs],
                "reasons": [None if run["failure"] is None else run["failure"]["brief"] for run in runs],
                "candidates": len(found),
                "unphysical": len(unphysical),
                "taken": [{**one.to_dict(), "distance": distance} for one, distance in taken],
                "seconds": self.folder.seconds(),
            },
        )

    def _label(self, now: Round) -> None:
        """Label the structures of a round, each on disk in its turn before the next is asked for."""
        picked = self._picked(now)
        if now.number == 0:
            begin_again(now.labels)  # a training needs labels, so nothing has come of the failures
        # Without a label that a killed process has half written.
        done = len(failures_of(now.labels)) + open_labels(now.labels, self.teacher).count()
        left, ahead = picked[done:], now.file("labels.ahead.jsonl")
        source = (self.teacher, self.settings.labels, self.settings.labeller)
        with side_by_side(*source, left, ahead, pool=self.pool, stop=self._stops) as teacher:
            for number in range(done, len(picked)):
                self._check()
                self.live(f"label {number + 1} of {len(picked)}")
                with self.folder.timed("labels"):
                    label_structures(picked[: number + 1], teacher, now.labels, progress=False)

    def _picked(self, now: Round) -> list[Atoms]:
        path = now.file("picked.xyz")
        if not path.is_file():
            if now.number:
                frames = read_unlabelled(self.folder.round(now.number - 1).file("next.xyz"))
            elif self.settings.data is not None:
                frames = []
                self._take_given(self.settings.data)
            else:
                number = min(self.settings.initial, self.settings.budget)
                frames = [one.atoms for one in first_structures(self.starts, self.settings, number)]
            write_frames(path, frames)
        return read_unlabelled(path)

    def _take_given(self, name: str) -> None:
        """Keep the labelled frames of the user as the trainings read them."""
        frames, given = [], read_frames(name)
        refuse_without_cores(given)
        for atoms in given:
            if is_isolated_atom(atoms) and not has_label(atoms, "forces"):
                atoms.arrays["forces"] = np.zeros((1, 3))
            if missing := [label for label in ("energy", "forces") if not has_label(atoms, label)]:
                raise DataError(
                    f"--data: {frame_name(atoms)} has no {' and no '.join(missing)}, which every frame needs here; "
                    "leave such frames out"
                )
            # Of zeros in a file of molecules the last evaluation would say that they cannot be.
            stress = atoms.info.get("stress") if atoms.pbc.all() else None
            labels = Labels(float(atoms.info["energy"]), atoms.arrays["forces"], stress)
            frames.append(labelled(bare(atoms), labels))
        write_frames(self.folder.path / "given.xyz", frames)

    def _judge_labels(self, now: Round) -> None:
        """Compare what the committee before said of the new frames with their labels."""
        path = now.file("fresh.json")
        if now.number and _count(now.labels) and not path.is_file():
            before = self.folder.round(now.number - 1)
            members = [before.member(k) for k in range(self.settings.members)]
            write_json(path, calibration(load_committee(members), read_frames(now.labels)), indent=None)

    def _explore(self, now: Round, members: Sequence[Path], threshold: float) -> list[dict[str, Any]]:
        total, done = self.settings.until.replicas * self.settings.replica_steps, 0

        def tick(steps: int) -> None:
            nonlocal done
            done += steps
            if done % LIVE_EVERY < steps:
                self.live(f"dynamics, {100 * done / total:.0f} %")

        with self.folder.timed("dynamics"):
            folder = now.file("runs")
            runs = run_all(
                folder, self.settings, self.starts, members, threshold, now.number, self._stops, tick, self.pool
            )
        found = [run for run in runs if run is not None]
        if len(found) < len(runs):
            raise Interrupted
        return found

    def _choose(
        self, now: Round, model: Path, candidates: Sequence[Candidate], left: int
    ) -> list[tuple[Candidate, float]]:
        """Take the frames that differ most from all that were asked for, and from each other."""
        most = min(self.settings.per_round, left)
        if not candidates or most < 1:
            return []
        known = [atoms for k in range(now.number + 1) for atoms in self._picked(self.folder.round(k))]
        given = self.folder.path / "given.xyz"
        known += read_frames(given) if given.is_file() else []
        potential = PIWSLCalculator.load(model, device="cpu").potential
        frames = [one.atoms for one in candidates]
        taken = farthest(
            atomic_features(potential, frames), [atoms.numbers for atoms in frames],
            atomic_features(potential, known), [atoms.numbers for atoms in known], most,
        )  # fmt: skip
        return [(candidates[k], distance) for k, distance in taken]

    def _asked(self, now: Round) -> int:
        """Return the structures that were given to the labeller so far."""
        return sum(len(self._picked(self.folder.round(k))) for k in range(now.number + 1))

    def _failed(self, now: Round) -> int:
        return sum(len(failures_of(self.folder.round(k).labels)) for k in range(now.number + 1))

    def _late(self) -> bool:
        hours = self.settings.hours
        return hours is not None and sum(self.folder.seconds().values()) >= 3600 * hours

    def _stops(self) -> bool:
        return self.stop.signal is not None

    def _check(self) -> None:
        if self._stops():
            raise Interrupted

    def _result(self, status: str, final: dict[str, Any] | None) -> LearnResult:
        rounds = self.folder.rounds()
        page = write_page(self.folder, self.settings, self.teacher, status, final) if rounds else None
        last, spent = self.folder.round(max(0, len(rounds) - 1)), self.folder.seconds()
        model = self.folder.path / "model.pt" if final else last.member(0)
        labels = rounds[-1]["labels"] if rounds else _count(last.labels)
        failed = rounds[-1]["failed"] if rounds else len(failures_of(last.labels))
        result = LearnResult(status, labels, failed, model if rounds else None, page, rounds, final, spent)
        write_json(self.folder.path / "result.json", result)
        return result


def _raised(rounds: Sequence[dict[str, Any]]) -> float:
    """Return the factor on the threshold: where every frame in question is a copy of one that has labels, it is low."""
    factor = 1.0
    for summary in rounds:
        # Nothing is taken where no label is left either.
        wanted = summary["candidates"] > summary["unphysical"] and summary.get("left", 1) > 0
        copies = wanted and not summary["taken"]
        factor *= RAISE if copies else 1.0
    return factor


def _count(path: Path) -> int:
    return len(read_frames(path)) if path.is_file() and path.stat().st_size else 0


def _known(summary: dict[str, Any]) -> str:
    broken = sum(summary["broken"])
    runs = len(summary["broken"])
    return f"{summary['labels']} labels, {runs - broken} of {runs} quiet, error {summary['force_mae_meV_A']:.0f} meV/Å"


def _line(summary: dict[str, Any], settings: LearnSettings) -> str:
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in summary["seconds"].items())
    failed = f" ({summary['failed']} failed)" if summary["failed"] else ""
    quiet = len(summary["broken"]) - sum(summary["broken"])
    return (
        f"round {summary['round']}: {summary['labels']} labels{failed}; {quiet} of {len(summary['broken'])} replicas "
        f"quiet to {settings.until.ps:g} ps, shortest {min(summary['stable_ps']):.3g} ps; held-out force error "
        f"{summary['force_mae_meV_A']:.0f} meV/Å, threshold {summary['threshold']:.2f} eV/Å; "
        f"{len(summary['taken'])} frames taken; {seconds}"
    )
