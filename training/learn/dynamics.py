"""Replicas of a round: dynamics on the first member, watched by the monitor and by the committee.

A replica ends at its last step, when the monitor finds it broken, or when the committee is unsure: then its failure is
of the kind "uncertain", and the last frame of its trajectory is the one in question.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.calculators.committee import CommitteeCalculator
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.digests import sha256_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.md.failures import UNCERTAIN, Failure, atom_name
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.lifecycle import stored_run
from asecalc_mlip.md.replicas import Batch, BatchedModel, Replica, run_together
from asecalc_mlip.md.run import MDRun
from asecalc_mlip.models.potential import Prediction
from asecalc_mlip.stopping import PATIENCE, stop_wanted
from asecalc_mlip.workers import Lost, Pool, each
from training.learn.committee import load_committee
from training.learn.settings import LearnSettings
from training.learn.state import seed_of

__all__ = ["run_all"]

Stop = Callable[[], bool]
Tick = Callable[[int], None]


def run_all(
    folder: Path,
    settings: LearnSettings,
    starts: Sequence[Atoms],
    members: Sequence[Path],
    threshold: float,
    place: int,
    stop: Stop = lambda: False,
    tick: Callable[[int], None] = lambda steps: None,
    pool: Pool | None = None,
) -> list[dict[str, Any] | None]:
    """Run all replicas of a round to their ends, each from where it was; return their summaries.

    Parameters
    ----------
    folder : Path
        Of the runs, ``replica000`` and so on.
    settings : LearnSettings
    starts : sequence of Atoms
        Start structures, which the replicas take in turn.
    members : sequence of Path
        The first is that of the dynamics; of one alone there is no spread.
    threshold : float
        Of the spread of the force on an atom, eV/Å.
    place : int
        Number of the round, for the random numbers.
    stop : callable
        Asked whether to leave off.
    tick : callable
        Called with the number of replica steps made.
    pool : Pool, optional
        Workers that take parts of the replicas; None: all are run here.

    Returns
    -------
    list of dict or None
        None for a replica that has not ended, which `stop` kept from it.
    """
    left = [k for k in range(settings.until.replicas) if _ended(folder, k) is None]
    common = (settings, starts, members, threshold, place)
    if left and pool is not None:
        _run_there(pool, folder.resolve(), common, left, stop, tick)
    elif left:
        _run_here(folder, common, left, stop, tick)
    return [_ended(folder, k) for k in range(settings.until.replicas)]


Common = tuple[LearnSettings, Sequence[Atoms], Sequence[Path], float, int]


def _run_here(folder: Path, common: Common, numbers: Sequence[int], stop: Stop, tick: Tick) -> None:
    settings, starts, members, threshold, place = common
    leader = PIWSLCalculator.load(members[0], device=settings.device)
    committee = load_committee(members, device=settings.device) if len(members) > 1 else None
    identity = {"model_sha256": sha256_of(members[0])}
    watch = _Watch(folder, settings, members[0], leader, committee, threshold, identity, place)
    for part in _parts(numbers, starts, len(numbers)):
        (watch.together if settings.together else watch.one_by_one)(part, starts, stop, tick)


def _run_there(pool: Pool, folder: Path, common: Common, numbers: Sequence[int], stop: Stop, tick: Tick) -> None:
    """Run replicas in workers: a batch for each of them, or a replica where batches are not possible."""
    settings, starts, members, *rest = common
    while not (size := pool.size()) and not stop():
        time.sleep(PATIENCE)
    parts = _parts(numbers, starts, -(-len(numbers) // max(1, size)) if settings.together else 1)
    found = (settings, starts, [path.resolve() for path in members], *rest)
    try:
        for number, _ in each(pool, _run_part, [(folder, found, part) for part in parts], stop):
            tick(len(parts[number]) * settings.replica_steps)
    except Lost as error:
        raise InputError(f"replicas of {folder} are not done: {error}; give the same command again") from None


def _run_part(folder: Path, common: Common, numbers: Sequence[int]) -> None:
    """Run what is left of some replicas, as a task of a worker."""
    torch.set_num_threads(1)
    for k in numbers:
        RunFiles(folder / f"replica{k:03d}").wait_until_free()
    left = [k for k in numbers if _ended(folder, k) is None]
    if left and not stop_wanted():
        _run_here(folder, common, left, stop_wanted, lambda steps: None)


def _parts(numbers: Sequence[int], starts: Sequence[Atoms], most: int) -> list[list[int]]:
    """Part replicas so that each part fits into one batch and has at most so many."""
    groups: dict[tuple, list[int]] = {}
    for k in numbers:
        groups.setdefault(tuple(starts[k % len(starts)].pbc.tolist()), []).append(k)
    return [group[k : k + most] for group in groups.values() for k in range(0, len(group), most)]


class Watched(MDRun, ABC):
    """A run that ends when a committee is unsure of a frame."""

    threshold = math.inf

    @abstractmethod
    def spread(self) -> np.ndarray | None:
        """Return the spread of the force on each atom, (N,) in eV/Å; None where there is no committee."""

    def take_frame(self) -> None:
        """Log, judge and keep the frame, and ask the committee."""
        super().take_frame()
        # The start has a label: what the committee does not know of it more labels there would not teach.
        looks = self.state.failure is None and self.state.step > 0
        spread = self.spread() if looks else None
        if spread is None:
            return
        spread = np.where(fixed_atoms(self.start)[0], 0.0, spread)  # forces on fixed atoms move nothing
        # A member that says NaN is not sure.
        if spread.max() < self.threshold:
            return
        worst, value = int(spread.argmax()), float(spread.max())
        name = atom_name(self.atoms, worst)
        message = (
            f"the committee disagrees by {value:.3g} eV/Å on the force of {name}; the threshold is {self.threshold:.3g}"
        )
        self.state.failure = Failure(UNCERTAIN, message, (worst,), value, self.threshold, name)
        self.state.failure_step = self.state.step


class WatchedReplica(Watched, Replica):
    """One of a batch, which hands it the spread."""

    def spread(self) -> np.ndarray | None:
        """Return what the batch computed at this step."""
        return getattr(self.atoms.calc, "spread", None)


class _Left(Exception):
    """A run was left at its restart point."""


class WatchedRun(Watched):
    """A run alone, in a cell or at a temperature that changes."""

    committee: CommitteeCalculator | None = None

    def restart_point(self) -> None:
        """Write the restart file; a worker gets no signal, so here it looks whether to leave off."""
        super().restart_point()
        if stop_wanted():
            raise _Left

    def spread(self) -> np.ndarray | None:
        """Ask the committee."""
        return None if self.committee is None else self.committee.evaluate([self.atoms])[0]["forces_std"]


class CommitteeBatch(Batch):
    """A batch on the forces of one model, with the spread of a committee at every step whose frames are looked at."""

    def __init__(self, replicas: Sequence[Replica], leader: Any, committee: CommitteeCalculator | None) -> None:
        self.committee, self.looks = committee, False
        self.spreads: np.ndarray | None = None
        super().__init__(replicas, leader)

    def evaluate(self) -> dict[int, str]:
        """Compute forces and spreads."""
        self.looks = True
        return super().evaluate()

    def look(self, step: int) -> None:
        """Ask the committee at frames; restart points are whole numbers of intervals, so all have the same ones."""
        self.looks = step % self.replicas[0].settings.interval == 0

    def write_back(self, index: int) -> None:
        """Bring one replica up to date, with its spread."""
        super().write_back(index)
        calc: Any = self.replicas[index].atoms.calc
        calc.spread = None if self.spreads is None else self.spreads[self._slices[index]].copy()

    def _predict(self, graph: AtomGraph) -> Prediction:
        self.spreads = None
        if self.looks and self.committee is not None:
            found: Any = self.committee.engine(graph, forces=True, stress=False)
            self.spreads = found.forces_std.cpu().numpy()
        return super()._predict(graph)


class _Watch:
    """What the replicas of a round have in common."""

    def __init__(
        self, folder: Path, settings: LearnSettings, model: Path, leader: PIWSLCalculator,
        committee: CommitteeCalculator | None, threshold: float, identity: dict[str, str], place: int,
    ) -> None:  # fmt: skip
        self.folder, self.settings, self.model, self.place = folder, settings, model, place
        self.leader, self.committee, self.threshold, self.identity = leader, committee, threshold, identity
        self.told: set[str] = set()

    def together(self, numbers: Sequence[int], starts: Sequence[Atoms], stop: Stop, tick: Tick) -> None:
        """Run replicas in one batch."""
        replicas = [self._run(WatchedReplica, k, starts, BatchedModel(self.leader.card)) for k in numbers]
        batch_of = partial(CommitteeBatch, leader=self.leader, committee=self.committee)
        run_together(replicas, batch_of, told=self.told, stop=stop, tick=tick)

    def one_by_one(self, numbers: Sequence[int], starts: Sequence[Atoms], stop: Stop, tick: Tick) -> None:
        """Run replicas one after another."""
        for k in numbers:
            if stop():
                return
            replica = self._run(WatchedRun, k, starts, self.leader)
            replica.committee = self.committee
            try:
                result = replica.run(progress=False)
            except _Left:
                return
            tick(result.summary["steps_done"])
            if result.summary["signal"]:  # it takes Ctrl-C while it runs
                return

    def _run(self, kind: Any, k: int, starts: Sequence[Atoms], calculator: Any) -> Any:
        """Return a replica that was begun, or a new one."""
        files = RunFiles(self.folder / f"replica{k:03d}")
        if files.begun:
            replica = stored_run(calculator, None, files.directory, identity=self.identity, kind=kind)
        else:
            files.check_free()
            atoms = starts[k % len(starts)].copy()
            atoms.calc = calculator
            settings = self.settings.dynamics(self.model, seed_of(self.settings, self.place, k, 2))
            replica = kind(atoms, settings, files.directory, identity=self.identity)
        cast(Watched, replica).threshold = self.threshold
        return replica


def _ended(folder: Path, number: int) -> dict[str, Any] | None:
    """Return the summary of a replica that has ended."""
    return RunFiles(folder / f"replica{number:03d}").summary_of_ended()
