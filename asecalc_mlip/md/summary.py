"""summary.json, the figure, and the lines printed at the end of a run."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase
import numpy as np

from asecalc_mlip.analysis.drift import energy_drift
from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.rdf import RDF
from asecalc_mlip.md import comparison as structure
from asecalc_mlip.md import files as names
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.progress import calculator_stats, rates, time_shares
from asecalc_mlip.md.spread import spread_text, summarise_spread

if TYPE_CHECKING:
    from asecalc_mlip.md.run import MDRun

__all__ = ["MDResult", "rules_text", "summarise", "summary_text", "write_report"]


@dataclass(frozen=True)
class MDResult:
    """What came of a run.

    Attributes
    ----------
    summary : dict
        As in summary.json: plain values with the unit in the name.
    directory : Path
        Folder of the run.
    had_ended : bool
        Whether it had ended before it was asked for again.
    rules_told : bool
        Whether people saw at its begin what the monitor watches; `report` then leaves that out.
    """

    summary: dict[str, Any] = field(repr=False)
    directory: Path
    had_ended: bool = False
    rules_told: bool = False

    @property
    def stable(self) -> bool:
        """Whether nothing broke."""
        return bool(self.summary["stable"])

    @property
    def exit_code(self) -> int:
        """0 stable, 1 unstable, 128 + signal where one stopped it."""
        if self.stable and self.summary["signal"]:
            return 128 + int(self.summary["signal"])
        return 0 if self.stable else 1

    def report(self) -> str:
        """Tell the result in some lines, for people."""
        how = "was complete already" if self.stable else "broke already and cannot continue"
        told = f"The run in {self.directory} {how}; its result:\n" if self.had_ended else ""
        return told + summary_text(self.summary, str(self.directory), rules=not self.rules_told)

    def log(self) -> dict[str, np.ndarray]:
        """Read log.csv by columns, each an (n,) array: step, time_ps, temperature_K, epot_eV and others."""
        return RunFiles(self.directory).read_log()

    @property
    def trajectory(self) -> Path:
        """Path of the frames, for `ase.io.read` or `asecalc rdf`."""
        return RunFiles(self.directory).path(names.TRAJECTORY)


def write_report(run: MDRun, *, figure: bool = True) -> dict:
    """Write summary.json and figure.png of a run that ended; returns the summary."""
    log = run.files.read_log()
    rdfs = structure.rdfs_of_run(run)
    summary = summarise(run, log, rdfs)
    if figure:
        run.files.write_bytes(names.FIGURE, _figure(run, log, summary, rdfs))
    # Last: a run with a summary is complete, and would not draw a figure that a kill has kept from it.
    run.files.write_json(names.SUMMARY, summary)
    return summary


def summarise(run: MDRun, log: dict[str, np.ndarray], rdfs: dict[str, RDF]) -> dict:
    """Gather everything a report needs, as plain values with the unit in the name."""
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
        "n_fixed": _n_fixed(run),
        "periodic": run.atoms.pbc.tolist(),
        "degrees_of_freedom": run.ndof,
        **_averages(log, state.stable_step),
        **run.integrator.averages(_stable(log, state.stable_step)),
        "energy_drift": _drift(run, log),
        "energy_range_eV_per_atom": _energy_range(log, state.stable_step, len(run.atoms)),
        "extremes": asdict(run.monitor.extremes),
        "rules": run.rules(),
        "spread": summarise_spread(_stable(log, state.stable_step), run.atoms.calc),
        "h_error": structure.h_error(run),
        "h_reference": run.reference.source if run.reference else None,
        "h_reference_frames": run.reference.n_frames if run.reference else None,
        "rdf_errors": structure.rdf_errors(run, rdfs),
        "rdf_group": run.reference.group_of(run.start) if isinstance(run.reference, PeriodicReference) else None,
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


def summary_text(summary: dict, directory: str, *, rules: bool = True) -> str:
    """Tell the result of a run in some lines, for people; with `rules`, also what the monitor watched."""
    settings, failure = summary["settings"], summary["failure"]
    if failure:
        head = f"UNSTABLE at {failure['time_ps']:g} ps ({failure['kind']}): {failure['message']}."
        until = f"Stable for {summary['stable_ps']:g} ps" if summary["stable_ps"] else "Only the start was stable"
        head += f"\n{until}; the broken frame is in {names.UNSTABLE}."
    elif summary["status"] == "interrupted":
        head = f"Stopped by a signal at {summary['time_ps']:g} ps; stable so far. The same command continues it."
    else:
        head = f"Stable for all {summary['time_ps']:g} ps."
    lines = [head, f"{summary['formula']}, {settings['ensemble'].upper()}, seed {settings['seed']}"]
    fixed = summary.get("n_fixed", 0)  # a run of an older version has none
    if fixed:
        lines[-1] += f", {fixed} of {summary['n_atoms']} atoms fixed"
    if summary["temperature_mean_K"] is not None:
        lines[-1] += f", {_temperature_text(summary)}"
    if "reached_K" in summary:
        lines.append(f"The thermostat was at {summary['reached_K']:.0f} K at the last stable frame")
    if "volume_mean_A3" in summary:
        volume = f"{summary['volume_mean_A3']:.2f} ± {summary['volume_std_A3']:.2f} Å³"
        lines.append(f"Volume {volume}, mean pressure {summary['pressure_mean_GPa']:+z.3f} GPa")
    if summary["h_error"] is not None:
        lines.append(f"h(r) error {summary['h_error']:.3f} against {summary['h_reference']}")
    if summary["rdf_errors"]:
        errors = ", ".join(f"{k} {v['error_percent']:.0f} %" for k, v in summary["rdf_errors"].items())
        group = f" ({summary['rdf_group']})" if summary["rdf_group"] else ""
        lines.append(f"g(r) error {errors} against {summary['h_reference']}{group}")
    if summary.get("spread"):
        lines.append(spread_text(summary["spread"]))
    lines += _extremes_text(summary["extremes"], summary["frames"])
    if rules and "rules" in summary:  # a run of an older version has none
        lines += rules_text(summary["rules"])
    if summary["energy_drift"]:
        slope = summary["energy_drift"]["slope_mev_per_atom_ps"]
        lines.append(f"Drift of the conserved energy {slope:+.3g} meV/{'mobile ' if fixed else ''}atom/ps")
    if summary["ms_per_step"]:
        lines.append(f"{summary['ms_per_step']:.2f} ms per step, {summary['ns_per_day']:.3g} ns per day")
    if summary["time_shares"]:
        lines.append("Time: " + ", ".join(f"{k} {100 * v:.0f} %" for k, v in summary["time_shares"].items()))
    lines += [f"{k[:1].upper()}{k[1:]}: {v}" for k, v in rates(summary["calculator"]["stats"]).items()]
    return "\n".join([*lines, f"Files: {directory}"])


def rules_text(rules: dict[str, Any]) -> list[str]:
    """Tell what the monitor watches and with which limits, and what it does not and why; `rules` as `Monitor.rules`."""
    contacts, bonds, shells, rdf = (rules[name] for name in ("contacts", "bonds", "coordination", "rdf"))
    limits = ", ".join(f"{pair} {limit:.2f}" for pair, limit in contacts["limits_A"].items())
    known = contacts["data_temperature_K"]
    data = "unknown temperature" if known is None else f"up to {known:g} K"
    basis = f"{contacts['factor']:.2f} of the closest approach in the training data, {data}"
    if not contacts["closest_in_data_A"]:
        basis = f"{contacts['factor']:g} of the sum of covalent radii"
    watched = [f"contacts ({basis}: {limits} Å)"]
    if bonds:
        watched.append(f"{bonds['number']} bonds (±{bonds['limit_A']} Å)")
    if shells:
        ranges = ", ".join(f"{pair} {s['lowest']:.1f}–{s['highest']:.1f}" for pair, s in shells.items())
        watched.append(f"coordination ({ranges})")
    if rdf:
        watched.append(f"g(r) (within {rdf['limit_A']:g} Å)")
    committee, not_used = rules.get("committee"), dict(rules["not_used"])
    if committee and committee["threshold_eV_per_A"] is None:
        not_used[f"spread of {committee['members']} models"] = "no threshold; the log has it"
    elif committee:
        limit = f"{committee['action']} from {committee['threshold_eV_per_A']:g} eV/Å on"
        watched.append(f"spread of {committee['members']} models at every step ({limit})")
    lines = [f"Watched: {', '.join(watched)}"]
    if not_used:
        lines.append("Not watched: " + "; ".join(f"{name} ({why})" for name, why in not_used.items()))
    return lines


def _temperature_text(summary: dict) -> str:
    mean, spread = summary["temperature_mean_K"], summary["temperature_std_K"]
    return f"mean temperature {mean:.0f} ± {spread:.0f} K" if spread > 0 else f"temperature {mean:.0f} K in one frame"


def _extremes_text(extremes: dict, frames: int) -> list[str]:
    if extremes["closest_A"] is None:
        return []
    text = f"Closest approach {extremes['closest_A']:.2f} Å ({extremes['closest_pair']})"
    if extremes.get("margin_A") is not None:
        text += f"; nearest to its limit {extremes['margin_pair']}, {extremes['margin_A']:.2f} Å"
        text += f" (limit {extremes['margin_limit_A']:.2f} Å)"
    text += f", largest force {extremes['largest_force']:.1f} eV/Å"
    if extremes["force_limit"] is not None:
        text += f", above {extremes['force_limit']:.1f} eV/Å (mean + 5 std of training) in "
        text += f"{extremes['force_frames']} of {frames} frames"
    return [text]


def _energy_range(log: dict[str, np.ndarray], stable_step: int, n_atoms: int) -> float | None:
    """Highest less lowest potential energy of the stable frames."""
    energy = log["epot_eV"][log["step"] <= stable_step]
    return float(np.ptp(energy)) / n_atoms if len(energy) else None


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
    log = _stable(log, stable_step)
    half = {name: values[len(values) // 2 :] for name, values in log.items()}
    if len(half["step"]) == 0:
        return {"temperature_mean_K": None, "temperature_std_K": None, "epot_mean_eV": None}
    return {
        "temperature_mean_K": float(half["temperature_K"].mean()),
        "temperature_std_K": float(half["temperature_K"].std()),
        "epot_mean_eV": float(half["epot_eV"].mean()),
    }


def _stable(log: dict[str, np.ndarray], stable_step: int) -> dict[str, np.ndarray]:
    """Return the log of the stable frames."""
    return {name: values[log["step"] <= stable_step] for name, values in log.items()}


def _drift(run: MDRun, log: dict[str, np.ndarray]) -> dict | None:
    """Drift of the conserved energy over the stable frames, per mobile atom; None for Langevin, which has none."""
    good = log["step"] <= run.state.stable_step
    columns = [log[name][good] for name in ("time_ps", "conserved_eV", "ekin_eV")]
    if good.sum() < 3 or not all(np.isfinite(c).all() for c in columns):
        return None
    mobile = len(run.atoms) - _n_fixed(run)
    return energy_drift(columns[0], columns[1], mobile, kinetic=columns[2]).to_dict()


def _n_fixed(run: MDRun) -> int:
    return int(fixed_atoms(run.start)[0].sum())


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


def _figure(run: MDRun, log: dict[str, np.ndarray], summary: dict, rdfs: dict[str, RDF]) -> bytes:
    from asecalc_mlip.plots.dynamics import md_figure
    from asecalc_mlip.plots.style import figure_bytes

    shown, reference, error = structure.to_draw(run, rdfs, summary["h_error"])
    figure = md_figure(
        log,
        title=_title(summary),
        target_K=log["target_K"] if "target_K" in log else run.integrator.target_K,
        n_atoms=summary["n_atoms"],
        structure=shown,
        reference=reference,
        error=error,
        broken_ps=summary["failure"]["time_ps"] if summary["failure"] else None,
        broken_by=_broken_by(summary["failure"]),
        threshold_eV_per_A=(summary["spread"] or {}).get("threshold_eV_per_A"),
    )
    return figure_bytes(figure)


def _broken_by(failure: dict | None) -> str:
    """Rule, pair, value, limit and time, for the figure."""
    if failure is None:
        return ""
    rule = f"\nlimit: {failure['rule']}" if failure["rule"] else ""
    return f"{failure['brief']}, at {failure['time_ps']:g} ps{rule}"


def _title(summary: dict) -> str:
    settings, failure = summary["settings"], summary["failure"]
    how = settings["thermostat"] or "velocity Verlet"
    verdict = f"broke at {failure['time_ps']:g} ps" if failure else "stable"
    return (
        f"{summary['formula']}  {settings['ensemble'].upper()} {_span(settings)}, {how}, "
        f"{settings['timestep_fs']:g} fs, {summary['time_ps']:g} ps: {verdict}"
    )


def _span(settings: dict) -> str:
    """Temperature and pressure of a run, for titles."""
    text = f"{settings['temperature_K']:g} K"
    if settings.get("temperature_end_K") is not None:
        text = f"{settings['temperature_K']:g} → {settings['temperature_end_K']:g} K"
    pressure = settings.get("pressure_GPa")
    return text if pressure is None else f"{text} {pressure:g} GPa"
