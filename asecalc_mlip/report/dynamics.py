"""The runs of a report: all seeds advance together, each with its own files, and go on where they were stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.files import read_json, read_structure, write_json
from asecalc_mlip.report.cache import ADVICE, key_of
from asecalc_mlip.report.subject import Subject
from asecalc_mlip.stopping import SoftStop

if TYPE_CHECKING:
    from asecalc_mlip.md.campaign.runs import Run

__all__ = ["Stopped", "nve_runs", "nvt_runs", "run_folders"]

# Frames for h(r) and the monitor: often enough for what a bond does in between, but never more than so many of a run.
INTERVAL, MOST_FRAMES = 20, 5000


class Stopped(Exception):
    """A signal ended a run; `signal` is its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def nvt_runs(subject: Subject, folder: Path, steps: int, seeds: Sequence[int], tell: Callable[[str], None]) -> Path:
    """Run every seed at constant temperature from the start structure; the folder of the runs."""
    return _runs(subject, folder, "nvt", steps, seeds, [subject.atoms] * len(seeds), tell)


def nve_runs(
    subject: Subject, folder: Path, nvt: Path, steps: int, seeds: Sequence[int], tell: Callable[[str], None]
) -> Path:
    """Run every seed at constant energy from where its run at constant temperature ended, with new velocities."""
    starts = [_last_frame(path, subject.atoms) for path in run_folders(nvt)]
    return _runs(subject, folder, "nve", steps, seeds, starts, tell)


def run_folders(group: Path) -> list[Path]:
    """Return the folders of the runs of a group, in the order of their seeds."""
    return [group / name for name in read_json(group / "runs.json")]


def _runs(
    subject: Subject,
    folder: Path,
    ensemble: str,
    steps: int,
    seeds: Sequence[int],
    starts: Sequence[Atoms],
    tell: Callable[[str], None],
) -> Path:
    from asecalc_mlip.md.campaign.runs import PLAN, plan_runs, write_plan

    interval = max(INTERVAL, -(-steps // MOST_FRAMES))
    common = subject.dynamics(ensemble, steps=steps, interval=interval)
    identity = [subject.sha256, common.to_dict() | {"model": ""}, list(seeds), [_plain(atoms) for atoms in starts]]
    group = folder / f"{ensemble}-{key_of(identity + [_reference(subject)])}"
    runs = []
    for number, seed in enumerate(seeds):
        settings = subject.dynamics(ensemble, steps=steps, interval=interval, seed=seed)
        planned = plan_runs(
            [subject.path], len(seeds), [settings.temperature_K], [seed], lambda *_, made=settings: made,
            _saved_reference(subject, folder),
        )  # fmt: skip
        runs.append(planned[number])  # each seed has its own start
    if not (group / PLAN).exists():
        write_plan(group, runs, starts)
    write_json(group / "runs.json", [run.name for run in runs], advice=ADVICE)
    what = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} × {steps} steps of {common.timestep_fs:g} fs"
    tell(f"{ensemble.upper()} {common.temperature_K:g} K, {what}")
    _advance(subject, group, runs)
    return group


def _advance(subject: Subject, group: Path, runs: Sequence[Run]) -> None:
    """Make the steps that are left."""
    from asecalc_mlip.md.campaign.runs import run_share, summary_of

    left = [run for run in runs if summary_of(group, run) is None]
    if not left:
        return
    total = sum(run.settings["steps"] for run in left)
    with SoftStop() as interrupt, tqdm(total=total, unit="step", unit_scale=True, disable=None, leave=False) as bar:
        run_share(str(group), left, calculator=subject.calculator, stop=lambda: bool(interrupt.signal), tick=bar.update)
        if interrupt.signal:
            raise Stopped(interrupt.signal)


def _last_frame(run: Path, start: Atoms) -> Atoms:
    """Return the end of a run, or its start if it broke; masses, fixed atoms and info are those of the start."""
    from asecalc_mlip.md import files as names

    if not read_json(run / names.SUMMARY)["stable"]:
        return start
    last, atoms = read_structure(run / names.TRAJECTORY), start.copy()
    atoms.set_cell(last.cell)
    atoms.positions[:] = last.positions
    return atoms


def _saved_reference(subject: Subject, folder: Path) -> str | None:
    """Return the path of the reference as the runs take it; None leaves them to the start structure."""
    if subject.reference is None:
        return None
    path = folder / "reference.json"
    write_json(path, subject.reference, advice=ADVICE, indent=None)
    return str(path.resolve())


def _reference(subject: Subject) -> dict | None:
    return None if subject.reference is None else subject.reference.to_dict()


def _plain(atoms: Atoms) -> list:
    """Return what tells two start structures apart; masses and fixed atoms only where there are any of their own."""
    plain = [atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.array.tolist(), atoms.pbc.tolist()]
    masses = [atoms.get_masses().tolist()] if atoms.has("masses") else []
    fixed = np.flatnonzero(fixed_atoms(atoms)[0]).tolist()
    return [*plain, *masses, *([{"fixed": fixed}] if fixed else [])]
