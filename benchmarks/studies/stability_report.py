"""Table, JSON and figure of the stability study, from the files of its runs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.io import iread
from matplotlib.figure import Figure

from asecalc_mlip.analysis import MoleculeReference, distance_histogram, energy_drift
from asecalc_mlip.md import files as names
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.plots.stability import Series, stability_figure
from asecalc_mlip.plots.style import figure_bytes

Run = tuple[str, int, str, Path]
"""Kind (nvt, nve), seed, precision, folder."""


def report(study: dict, runs: Sequence[Run], output: Path) -> str:
    """Write the JSON and the PNG; returns the table.

    Parameters
    ----------
    study : what all runs share: model, temperature_K, …
    runs : the finished ones
    output : folder for the two files
    """
    rows = [measure(*run) for run in runs]
    nvt, nve = ([row for row in rows if row["kind"] == kind] for kind in ("nvt", "nve"))
    result = {**study, "date": datetime.date.today().isoformat(), "nvt": nvt, "nve": nve}
    output.mkdir(parents=True, exist_ok=True)
    stem = f"stability_{Path(study['model']).stem}"
    files = RunFiles(output)
    files.write_json(f"{stem}.json", result)
    files.write_bytes(f"{stem}.png", figure_bytes(runs_figure(study, runs, rows)))
    return f"{_table(rows)}\n{output / stem}.json and .png"


def measure(kind: str, seed: int, dtype: str, folder: Path) -> dict:
    """Return the numbers of one run, each with its unit in the name."""
    files = RunFiles(folder)
    summary = json.loads(files.path(names.SUMMARY).read_text(encoding="utf-8"))
    row = {
        "kind": kind,
        "seed": seed,
        "dtype": dtype,
        "steps": summary["steps_done"],
        "time_ps": summary["time_ps"],
        "stable": summary["stable"],
        "stable_ps": summary["stable_ps"],
        "failure": summary["failure"],
        "temperature_mean_K": summary["temperature_mean_K"],
        "wall_s": summary["wall_s"],
        "ms_per_step": 1e3 * summary["wall_s"] / max(1, summary["steps_done"]),
        "restarts": summary["restarts"],
        "bond_rule_reference": summary["h_reference"],
    }
    return {**row, **(conservation(files, summary) if kind == "nve" else {"h_error": summary["h_error"]})}


def conservation(files: RunFiles, summary: dict) -> dict:
    """Drift and spread of the total energy over the stable part."""
    log, n_atoms = _stable_log(files, summary), summary["n_atoms"]
    if len(log["step"]) < 3:
        return {"drift_mev_per_atom_ps": None, "fluctuation_mev_per_atom": None, "etot_std_mev_per_atom": None}
    drift = energy_drift(log["time_ps"], log["etot_eV"], n_atoms, kinetic=log["ekin_eV"])
    return {
        "drift_mev_per_atom_ps": drift.slope_mev_per_atom_ps,
        "fluctuation_mev_per_atom": drift.fluctuation_mev_per_atom,
        "etot_std_mev_per_atom": 1e3 * float(log["etot_eV"].std()) / n_atoms,
        "etot_std_eV": float(log["etot_eV"].std()),
        "drift_relative_to_kinetic": drift.relative_to_kinetic,
    }


def _stable_log(files: RunFiles, summary: dict) -> dict[str, np.ndarray]:
    log = files.read_log()
    last = round(1e3 * summary["stable_ps"] / summary["settings"]["timestep_fs"])
    return {name: values[log["step"] <= last] for name, values in log.items()}


def runs_figure(study: dict, runs: Sequence[Run], rows: Sequence[dict]) -> Figure:
    """Temperature, h(r) and total energy of finished runs, with what `measure` says of them."""
    colours = {seed: index for index, seed in enumerate(dict.fromkeys(run[1] for run in runs))}
    series: dict[str, list[Series]] = {"nvt": [], "nve": []}
    reference = None
    for (kind, seed, _, folder), row in zip(runs, rows, strict=True):
        files = RunFiles(folder)
        summary = json.loads(files.path(names.SUMMARY).read_text(encoding="utf-8"))
        log = _stable_log(files, summary)
        draw = _nvt_series if kind == "nvt" else _nve_series
        series[kind].append(draw(files, log, row, summary, colours[seed]))
        if kind == "nvt" and files.path(names.REFERENCE).exists():
            reference = MoleculeReference.load(files.path(names.REFERENCE)).histogram
    title = f"{study['model']}, {study['temperature_K']:g} K, {study['timestep_fs']:g} fs"
    if series["nvt"]:
        good = [row for row in rows if row["kind"] == "nvt" and row["stable"]]
        title += f": stable in {len(good)} of {len(series['nvt'])} NVT runs"
    title = study.get("title", title)
    return stability_figure(
        series["nvt"], series["nve"], title=title, target_K=study["temperature_K"], reference=reference
    )


def _nvt_series(files: RunFiles, log: dict, row: dict, summary: dict, colour: int) -> Series:
    frames = iread(files.path(names.TRAJECTORY), index=":", format="extxyz")
    verdict = f"{row['stable_ps']:g} ps" + ("" if row["stable"] else ", broke")
    return Series(
        f"seed {row['seed']}: {verdict}",
        log["time_ps"],
        log["temperature_K"],
        histogram=None if any(summary["periodic"]) else distance_histogram(frames),
        broken_ps=None if row["stable"] else summary["failure"]["time_ps"],
        colour=colour,
    )


def _nve_series(files: RunFiles, log: dict, row: dict, summary: dict, colour: int) -> Series:
    energy = 1e3 * (log["etot_eV"] - log["etot_eV"][:1]) / summary["n_atoms"]
    drift = row["drift_mev_per_atom_ps"]
    label = f"{row['dtype']}, seed {row['seed']}" + ("" if drift is None else f": {drift:+.2g}")
    return Series(label, log["time_ps"], energy, colour=colour, style="-" if row["dtype"] == "float32" else "--")


def _table(rows: Sequence[dict]) -> str:
    lines = []
    for row in rows:
        head = f"{row['kind']}  seed {row['seed']}  {row['dtype']}  {row['stable_ps']:7.2f} ps "
        head += "stable  " if row["stable"] else "UNSTABLE"
        if row["kind"] == "nvt":
            tail = f"T {_number(row['temperature_mean_K'], '5.0f')} K  h(r) error {_number(row['h_error'], '.3f')}"
        else:
            tail = f"drift {_number(row['drift_mev_per_atom_ps'], '+.4f')} meV/atom/ps"
            tail += f"  std(E) {_number(row['etot_std_mev_per_atom'], '.4f')} meV/atom"
        lines.append(f"{head}  {tail}  {row['ms_per_step']:6.2f} ms/step")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
