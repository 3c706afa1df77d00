"""summary.json, the figure, and the lines printed at the end of a run."""

from __future__ import annotations

import json
import platform
import sys
from typing import TYPE_CHECKING

import ase
import numpy as np
from ase.io import iread

from asecalc_mlip.analysis.drift import energy_drift
from asecalc_mlip.analysis.rdf import rdf
from asecalc_mlip.errors import InputError
from md_protocols import files as names
from md_protocols.progress import calculator_stats, rates, time_shares

if TYPE_CHECKING:
    from md_protocols.runner import MDRun

# A mean over fewer frames is too noisy to compare distributions with.
MIN_REFERENCE_FRAMES = 50
RDF_FRAMES = 100


def write_report(run: MDRun) -> dict:
    """Write summary.json and figure.png of a run that ended; returns the summary."""
    log = run.files.read_log()
    summary = summarise(run, log)
    run.files.write_json(names.SUMMARY, summary)
    run.files.write_bytes(names.FIGURE, _figure(run, log, summary))
    return summary


def summarise(run: MDRun, log: dict[str, np.ndarray]) -> dict:
    """Everything a report needs, as plain values with the unit in the name."""
    state, settings = run.state, run.settings
    dt_ps = settings.timestep_fs * 1e-3
    done = state.step - run.first_step
    ms = 1e3 * run.seconds / done if done else None
    return {
        "status": _status(state),
        "stable": state.failure is None,
        "stable_ps": state.stable_step * dt_ps,
        "time_ps": state.step * dt_ps,
        "steps_done": state.step,
        "frames": state.frames,
        "failure": _failure(state, dt_ps),
        "formula": run.atoms.get_chemical_formula(),
        "n_atoms": len(run.atoms),
        "periodic": run.atoms.pbc.tolist(),
        "degrees_of_freedom": run.ndof,
        **_averages(log, state.stable_step),
        "energy_drift": _drift(run, log),
        "h_error": _h_error(run),
        "h_reference": run.reference.source if run.reference else None,
        "h_reference_frames": run.reference.n_frames if run.reference else None,
        "wall_s": state.wall_s,
        "ms_per_step": ms,
        "ns_per_day": 86400 * settings.timestep_fs * 1e-3 / ms if ms else None,
        "time_shares": time_shares(calculator_stats(run.atoms.calc), run.seconds) if done else {},
        "restarts": state.restarts,
        "signal": state.signal,
        "settings": settings.to_dict(),
        "identity": run.identity,
        "calculator": _calculator(run.atoms.calc),
        "versions": _versions(),
    }


def summary_text(summary: dict, directory: str) -> str:
    """The last lines of a run, for people."""
    settings, failure = summary["settings"], summary["failure"]
    if failure:
        head = f"UNSTABLE at {failure['time_ps']:g} ps ({failure['kind']}): {failure['message']}."
        head += f"\nStable for {summary['stable_ps']:g} ps; the broken frame is in {names.UNSTABLE}."
    elif summary["status"] == "interrupted":
        head = f"Stopped by a signal at {summary['time_ps']:g} ps; stable so far. Continue with --restart."
    else:
        head = f"Stable for all {summary['time_ps']:g} ps."
    lines = [head, f"{summary['formula']}, {settings['ensemble'].upper()}, seed {settings['seed']}"]
    if summary["temperature_mean_K"] is not None:
        lines[-1] += f", mean temperature {summary['temperature_mean_K']:.0f} ± {summary['temperature_std_K']:.0f} K"
    if summary["h_error"] is not None:
        lines.append(f"h(r) error {summary['h_error']:.3f} against {summary['h_reference']}")
    if summary["energy_drift"]:
        slope = summary["energy_drift"]["slope_mev_per_atom_ps"]
        lines.append(f"Drift of the conserved energy {slope:+.3g} meV/atom/ps")
    if summary["ms_per_step"]:
        lines.append(f"{summary['ms_per_step']:.2f} ms per step, {summary['ns_per_day']:.3g} ns per day")
    shares = {k: f"{100 * v:.0f} % of the time" for k, v in summary["time_shares"].items()}
    stats = {**shares, **rates(summary["calculator"]["stats"])}
    if stats:
        lines.append(", ".join(f"{k} {v}" for k, v in stats.items()))
    return "\n".join([*lines, f"Files: {directory}"])


def _status(state) -> str:
    if state.failure is not None:
        return "unstable"
    return "interrupted" if state.signal else "finished"


def _failure(state, dt_ps: float) -> dict | None:
    if state.failure is None:
        return None
    return {**state.failure.to_dict(), "step": state.failure_step, "time_ps": state.failure_step * dt_ps}


def _averages(log: dict[str, np.ndarray], stable_step: int) -> dict:
    """Means over the second half of the stable frames, when the start is forgotten."""
    log = {name: values[log["step"] <= stable_step] for name, values in log.items()}
    half = {name: values[len(values) // 2 :] for name, values in log.items()}
    if len(half["step"]) == 0:
        return {"temperature_mean_K": None, "temperature_std_K": None, "epot_mean_eV": None}
    return {
        "temperature_mean_K": float(half["temperature_K"].mean()),
        "temperature_std_K": float(half["temperature_K"].std()),
        "epot_mean_eV": float(half["epot_eV"].mean()),
    }


def _drift(run: MDRun, log: dict[str, np.ndarray]) -> dict | None:
    """Drift of the conserved energy over the stable frames; None for Langevin, which has none."""
    good = log["step"] <= run.state.stable_step
    columns = [log[name][good] for name in ("time_ps", "conserved_eV", "ekin_eV")]
    if good.sum() < 3 or not all(np.isfinite(c).all() for c in columns):
        return None
    return energy_drift(columns[0], columns[1], len(run.atoms), kinetic=columns[2]).to_dict()


def _h_error(run: MDRun) -> float | None:
    if run.atoms.pbc.any() or run.reference is None or run.reference.n_frames < MIN_REFERENCE_FRAMES:
        return None
    return run.histogram.error(run.reference.histogram)


def _calculator(calculator) -> dict:
    card = getattr(calculator, "card", None)
    plain = json.loads(json.dumps(card, default=str)) if isinstance(card, dict) else None
    stats = json.loads(json.dumps(calculator_stats(calculator), default=str))
    return {"name": type(calculator).__name__, "card": plain, "stats": stats}


def _versions() -> dict:
    found = {"python": platform.python_version(), "ase": ase.__version__, "numpy": np.__version__}
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].__version__
    return found


def _figure(run: MDRun, log: dict[str, np.ndarray], summary: dict) -> bytes:
    from asecalc_mlip.plots.md import figure_bytes, md_figure

    settings = run.settings
    figure = md_figure(
        log,
        title=_title(summary),
        target_K=settings.temperature_K if settings.ensemble == "nvt" else None,
        n_atoms=summary["n_atoms"],
        structure=_structure(run),
        reference=run.reference.histogram if run.reference and summary["h_error"] is not None else None,
        reference_name=run.reference.source if run.reference else "",
        error=summary["h_error"],
        broken_ps=summary["failure"]["time_ps"] if summary["failure"] else None,
    )
    return figure_bytes(figure)


def _title(summary: dict) -> str:
    settings, failure = summary["settings"], summary["failure"]
    how = settings["thermostat"] or "velocity Verlet"
    verdict = f"broke after {summary['stable_ps']:g} ps ({failure['kind']})" if failure else "stable"
    return (
        f"{summary['formula']}  {settings['ensemble'].upper()} {settings['temperature_K']:g} K, {how}, "
        f"{settings['timestep_fs']:g} fs, {summary['time_ps']:g} ps: {verdict}"
    )


def _structure(run: MDRun):
    """h(r) of a molecule, g(r) of a periodic system (last half of the run), None if there is neither."""
    if not run.atoms.pbc.any():
        return run.histogram
    first = run.state.frames // 2
    # Below the first lattice translation: an atom's own images are spikes that hide the structure.
    r_max = min(10.0, 0.99 * float(run.atoms.cell.lengths().min()))
    stride = max(1, (run.state.frames - first) // RDF_FRAMES)
    try:
        return rdf(iread(run.files.path(names.TRAJECTORY), index=f"{first}::{stride}", format="extxyz"), r_max=r_max)
    except InputError:  # a slab or a wire has no density
        return None
