"""The runs of a report: one row of numbers and curves for each, plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.io import iread

from asecalc_mlip.analysis import (
    RDF,
    DistanceHistogram,
    MoleculeReference,
    PeriodicReference,
    distance_histogram,
)
from asecalc_mlip.analysis.second_half import rdfs_of_second_half
from asecalc_mlip.files import read_json
from asecalc_mlip.probes import shortest_distances
from asecalc_mlip.report.cache import Pieces
from asecalc_mlip.report.dynamics import run_folders
from asecalc_mlip.report.subject import Subject

__all__ = ["from_plain", "reference_curve", "runs_piece"]

POINTS = 1200  # of a curve over time
CONTACT_FRAMES = 200  # of each run
LEAST_FRAMES = 10  # for a distribution


def runs_piece(subject: Subject, pieces: Pieces, name: str, group: Path, *, structure: bool) -> dict:
    """Return numbers and curves of all runs of a group; `structure`: also their h(r) or g(r) and closest approaches."""

    def make() -> dict:
        rows = [_row(path, subject, structure) for path in run_folders(group)]
        return {"folder": group.name, "runs": rows, "by_pair_A": _closest([row.pop("by_pair_A", {}) for row in rows])}

    return pieces.get(name, [group.name, structure], make, f"Analysis of {name.upper()}")


def reference_curve(subject: Subject, name: str = "all") -> DistanceHistogram | RDF | None:
    """Return h(r) or a g(r) of the reference."""
    if isinstance(subject.reference, PeriodicReference):
        return subject.reference.rdfs_for(subject.atoms).get(name)
    return subject.reference.histogram if isinstance(subject.reference, MoleculeReference) else None


def from_plain(data: dict | None) -> DistanceHistogram | RDF | None:
    """Return h(r) or g(r) of a stored row."""
    if data is None:
        return None
    return RDF.from_dict(data) if "g" in data else DistanceHistogram.from_dict(data)


def _row(path: Path, subject: Subject, structure: bool) -> dict[str, Any]:
    from asecalc_mlip.md.files import RunFiles

    files = RunFiles(path)
    summary = read_json(path / "summary.json")
    log = files.read_log()
    mobile = summary["n_atoms"] - summary.get("n_fixed", 0)  # a run of an older version has none
    last = round(1e3 * summary["stable_ps"] / summary["settings"]["timestep_fs"])
    good = log["step"] <= last
    log = {key: values[good] for key, values in log.items()}
    kept = (
        "stable", "stable_ps", "time_ps", "steps_done", "frames", "failure", "temperature_mean_K", "temperature_std_K",
        "energy_drift", "extremes", "wall_s", "restarts", "versions",
    )  # fmt: skip
    row = {
        "seed": summary["settings"]["seed"],
        **{key: summary[key] for key in kept},
        "settings": summary["settings"],
        "curves": _curves(log, mobile),
    }
    return {**row, **(_structure(path, subject, summary["frames"]) if structure else {})}


def _curves(log: dict[str, np.ndarray], n_atoms: int) -> dict[str, list[float]]:
    """Return temperature and energies against time, thinned; energies in meV per mobile atom from the first frame."""
    step = max(1, -(-len(log["time_ps"]) // POINTS))
    thin = {name: values[::step] for name, values in log.items()}
    return {
        "time_ps": np.round(thin["time_ps"], 5).tolist(),
        "temperature_K": np.round(thin["temperature_K"], 2).tolist(),
        "epot_meV_per_atom": _relative(thin["epot_eV"], n_atoms),
        "etot_meV_per_atom": _relative(thin["etot_eV"], n_atoms),
    }


def _relative(energy: np.ndarray, n_atoms: int) -> list[float]:
    return np.round(1e3 * (energy - energy[:1]) / n_atoms, 5).tolist()


def _structure(path: Path, subject: Subject, frames: int) -> dict[str, Any]:
    if frames == 0:
        return {"structure": None, "structure_errors": {}, "by_pair_A": {}}
    found = _distributions(path, subject, frames)
    errors = {}
    for name, curve in found.items():
        target = reference_curve(subject, name)
        if target is not None and frames >= LEAST_FRAMES:
            both = isinstance(curve, RDF) and isinstance(target, RDF)
            percent = {"error_percent": curve.error_percent(target)} if both else {}
            errors[name] = {"error": curve.error(target), **percent}
    return {
        "structure": found["all"].to_dict() if "all" in found else None,
        "partial": {name: curve.to_dict() for name, curve in found.items() if name != "all"},
        "structure_errors": errors,
        "by_pair_A": _contacts(path, frames),
    }


def _distributions(path: Path, subject: Subject, frames: int) -> dict[str, Any]:
    """Return h(r) of all stable frames of a molecule; g(r) of the second half of a periodic run, as runs take it."""
    trajectory = path / "trajectory.extxyz"
    if not subject.periodic:
        return {"all": distance_histogram(iread(trajectory, index=":", format="extxyz"))}
    return dict(rdfs_of_second_half(trajectory, frames, subject.atoms, subject.reference))


def _contacts(path: Path, frames: int) -> dict[str, float]:
    stride = max(1, frames // CONTACT_FRAMES)
    found = shortest_distances(iread(path / "trajectory.extxyz", index=f"::{stride}", format="extxyz"))
    return {"-".join(pair): distance for pair, distance in found.items()}


def _closest(found: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for one in found for name in one})
    return {name: min(one[name] for one in found if name in one) for name in names}
