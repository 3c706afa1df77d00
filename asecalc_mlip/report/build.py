"""Makes a report: measures piece by piece, then draws the figure and writes the page.

Everything lies in one folder:

    report.html   the page, with its images in it
    summary.png   the four panels
    report.json   the numbers
    pieces/       what was measured, found again when the same command is given again
    runs/         the trajectories, each with its log and restart file
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase
import numpy as np

from asecalc_mlip._version import __version__
from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.bench.timing import machine
from asecalc_mlip.files import write_bytes, write_json, write_text
from asecalc_mlip.probes import shortest_distances
from asecalc_mlip.report import figures
from asecalc_mlip.report.cache import ADVICE, Pieces
from asecalc_mlip.report.dynamics import nve_runs, nvt_runs
from asecalc_mlip.report.findings import mean_std, slopes, structure_errors, structure_head, warnings_of
from asecalc_mlip.report.measurements import diatomic_piece, errors_piece, speed_piece
from asecalc_mlip.report.page import page
from asecalc_mlip.report.settings import ReportSettings
from asecalc_mlip.report.subject import Subject, subject_of
from asecalc_mlip.report.trajectories import runs_piece
from asecalc_mlip.units import error_text

__all__ = ["Report", "make_report"]

PAGE, FIGURE, NUMBERS = "report.html", "summary.png", "report.json"


@dataclass(frozen=True, repr=False)
class Report:
    """Result of `make_report`.

    Attributes
    ----------
    folder : Path
        Where everything lies.
    found : dict
        All numbers, plain values.
    warnings : list of str
        In plain words.
    """

    folder: Path
    found: dict[str, Any] = field(repr=False)
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, plain values with the unit in the name."""
        return {"warnings": self.warnings, **self.found}

    def __repr__(self) -> str:
        nvt, speed, errors = self.found["nvt"]["runs"], self.found["speed"], self.found["errors"]
        stable = sum(run["stable"] for run in nvt)
        settings, drifts = nvt[0]["settings"], slopes(self.found["nve"])
        lines = [
            f"{self.found['model']['name']}: {len(self.warnings)} warning{'s' if len(self.warnings) != 1 else ''}",
            *(f"  ! {line}" for line in self.warnings),
            f"  NVT {settings['temperature_K']:g} K: stable in {stable} of {len(nvt)} runs of "
            f"{max(run['time_ps'] for run in nvt):g} ps",
            f"  NVE: drift {mean_std(drifts)} meV/atom/ps" if drifts else "  NVE: too few stable frames for a drift",
            f"  speed: {speed['step_ms']:.2f} ms per step, {speed['ns_per_day']:.3g} ns/day, {speed['atoms']} atoms",
        ]
        if structure_errors(nvt):
            lines.insert(-2, f"  {structure_head(nvt)}")
        if errors:
            maes = ", ".join(f"{name.partition('_')[0]} {error_text(name, v)}" for name, v in errors["mae"].items())
            lines.append(f"  MAE on {errors['data']}: {maes}")
        return "\n".join([*lines, f"  {self.folder / PAGE}", f"  {self.folder / FIGURE}"])


def make_report(settings: ReportSettings, *, echo: Callable[[str], None] = lambda line: None) -> Report:
    """Measure what is not measured yet, then write page, figure and numbers.

    Parameters
    ----------
    settings : ReportSettings
        Options.
    echo : callable
        Gets a line for each piece.

    Raises
    ------
    InputError
        Files that are missing or do not fit, a folder that cannot be written.
    asecalc_mlip.report.dynamics.Stopped
        A signal came during the dynamics; the same call goes on where they stopped.
    """
    subject = subject_of(settings)
    folder = settings.folder
    total = 6 if subject.frames is not None else 5
    counter = iter(range(1, total + 1))
    tell = lambda line: echo(f"[{next(counter)}/{total}] {line}")  # noqa: E731
    pieces = Pieces(folder / "pieces", tell)
    found = _measure(subject, pieces, folder, tell)
    warnings = warnings_of(subject, found)
    numbers = {"warnings": warnings, **found}
    write_json(folder / NUMBERS, numbers, advice=ADVICE)
    summary = figures.summary(subject, found)
    write_bytes(folder / FIGURE, summary, advice=ADVICE)
    write_text(folder / PAGE, page(subject, numbers, summary, pieces.folder), advice=ADVICE)
    return Report(folder, found, warnings)


def _measure(subject: Subject, pieces: Pieces, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    wanted = subject.settings.wanted()
    errors = errors_piece(subject, pieces, wanted["frames"])
    diatomic = diatomic_piece(subject, pieces)
    speed = speed_piece(subject, pieces, wanted["bench_steps"], subject.dynamics("nvt").timestep_fs)
    steps, seeds = wanted["steps"], wanted["seeds"]
    nvt = nvt_runs(subject, folder / "runs", steps, seeds, tell)
    nve = nve_runs(subject, folder / "runs", nvt, max(1, steps // 2), seeds, tell)
    analysed = pieces.quiet()
    found = {
        "errors": errors,
        "diatomic": diatomic,
        "speed": speed,
        "nvt": runs_piece(subject, analysed, "nvt", nvt, structure=True),
        "nve": runs_piece(subject, analysed, "nve", nve, structure=False),
    }
    tell("Figure and page")
    return {"model": _model(subject), "how": _how(subject), "shortest_A": _shortest(subject), **found}


def _model(subject: Subject) -> dict[str, Any]:
    potential = subject.calculator.potential
    return {
        "name": subject.path.name,
        "sha256": subject.sha256,
        "architecture": potential.architecture,
        "n_parameters": sum(p.numel() for p in potential.parameters()),
        "elements": subject.card["elements"],
        "cutoff_A": potential.cutoff,
        "engine": subject.calculator.engine.describe(),
        "conservative": not potential.direct_forces,
    }


def _how(subject: Subject) -> dict[str, Any]:
    wanted = subject.settings.wanted()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": {
            "asecalc-mlip": __version__,
            "ase": ase.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "structure": subject.structure_source,
        "formula": subject.atoms.get_chemical_formula(),
        "n_atoms": len(subject.atoms),
        "n_fixed": int(fixed_atoms(subject.atoms)[0].sum()),
        "periodic": subject.atoms.pbc.tolist(),
        "reference": subject.reference_source,
        "temperatures_K": subject.temperatures_K(),
        "dtype": subject.settings.dtype,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()},
    }


def _shortest(subject: Subject) -> dict[str, float]:
    """Return the shortest distance in the data by pair, Å, where the reference or the labelled data tell."""
    known = dict(subject.reference.closest) if subject.reference is not None else {}
    if known or not subject.frames:
        return known
    return {"-".join(pair): value for pair, value in shortest_distances(subject.frames).items()}
