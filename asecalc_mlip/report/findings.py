"""The top of a report: warnings in plain words, and the verdict of each panel."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from asecalc_mlip.md.conditions import temperature_note, time_step_note
from asecalc_mlip.models import parts_of
from asecalc_mlip.report.subject import Subject

__all__ = ["atoms_text", "heads", "mean_std", "slopes", "structure_errors", "structure_head", "warnings_of"]

# An energy of 1 meV/atom is a temperature of 3.9 K (E = 3 k_B T, half of it kinetic): 0.5 heats by 2 K in a ps.
MOST_DRIFT = 0.5  # meV/atom/ps
MOST_HEAT = 0.1  # share of the temperature
CLOSE = 0.8  # of the shortest distance in the data
WORSE = 2.0  # times the error that the card states
STATED = ("level_of_theory", "licence", "training_data", "test_errors")


def warnings_of(subject: Subject, found: dict[str, Any]) -> list[str]:
    """List all that a user should know before using the model, worst first."""
    return [
        *_unstable(found["nvt"], "NVT"),
        *_unstable(found["nve"], "NVE"),
        *_drift(found["nve"]),
        *_model(subject),
        *_flags(found["diatomic"], None if _has_core(subject) else subject.settings.model),
        *_temperature(subject, found["nvt"]),
        *_contacts(found),
        *_errors(subject, found["errors"]),
        *_busy(found["speed"]),
        *_unstated(subject),
    ]


def heads(found: dict[str, Any], target_K: float) -> list[str]:
    """Return one line for each panel of the summary."""
    nvt, diatomic = found["nvt"]["runs"], found["diatomic"]
    stable, end = [run for run in nvt if run["stable"]], max(run["time_ps"] for run in nvt)
    planned = max(run["settings"]["steps"] * run["settings"]["timestep_fs"] * 1e-3 for run in nvt)
    first = f"Stable in {len(stable)} of {len(nvt)} runs of {planned or end:g} ps at {target_K:g} K"
    n_flags = sum(len(pair["flags"]) for pair in diatomic["pairs"])
    flags = f"{n_flags} unphysical feature{'s' if n_flags != 1 else ''}" if n_flags else "nothing unphysical"
    return [
        first,
        structure_head(nvt),
        f"Two isolated atoms: {flags} in {len(diatomic['pairs'])} pairs",
        _drift_head(found),
    ]


def mean_std(values: list[float]) -> str:
    """Return mean ± standard deviation of runs, both to the second digit of the latter; one value alone."""
    if not values:
        return "not known"
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if not spread > 0:
        return f"{np.mean(values):.3g}"
    decimals = max(0, 1 - int(np.floor(np.log10(spread))))
    return f"{np.mean(values):z.{decimals}f} ± {spread:.{decimals}f}"


def atoms_text(how: dict[str, Any]) -> str:
    """Tell the number of atoms, and how many of them are fixed."""
    fixed = how["n_fixed"]
    return f"{how['n_atoms']} atoms" + (f", {fixed} of them fixed" if fixed else "")


def slopes(group: dict[str, Any]) -> list[float]:
    """Return the drift of each run, meV/atom/ps."""
    return [run["energy_drift"]["slope_mev_per_atom_ps"] for run in group["runs"] if run["energy_drift"]]


def structure_errors(nvt: list[dict], key: str = "error") -> list[float]:
    """Return the error of h(r) or g(r) of each run."""
    found = [(run.get("structure_errors") or {}).get("all", {}).get(key) for run in nvt]
    return [value for value in found if value is not None]


def structure_head(nvt: list[dict]) -> str:
    """Return the name of the distribution of distances, h(r) or g(r), with its error and the unit of this."""
    name = "g(r)" if any("g" in (run.get("structure") or {}) for run in nvt) else "h(r)"
    percent = structure_errors(nvt, "error_percent")
    if percent:
        return f"{name} of the runs, error {mean_std(percent)} % of the reference's structure"
    errors = structure_errors(nvt)
    return f"{name} of the runs, error {mean_std(errors)} (0 to 2)" if errors else f"{name} of the runs"


def _drift_head(found: dict[str, Any]) -> str:
    values = slopes(found["nve"])
    return f"Constant energy: drift {mean_std(values)} meV/atom/ps" if values else "Constant energy"


def _unstable(group: dict[str, Any], name: str) -> list[str]:
    return [
        f"{name} run with seed {run['seed']} broke at {run['failure']['time_ps']:g} ps ({run['failure']['kind']}): "
        f"{run['failure']['message']}."
        for run in group["runs"]
        if run["failure"]
    ]


def _drift(nve: dict[str, Any]) -> list[str]:
    large = [run for run in nve["runs"] if run["energy_drift"] and _beyond_noise(run) and abs(_slope(run)) > MOST_DRIFT]
    return [
        f"The total energy drifts by {_slope(run):+.2g} meV/atom/ps at constant energy (seed {run['seed']}, "
        f"{run['stable_ps']:g} ps); more than {MOST_DRIFT} heats or cools by 2 K in a picosecond."
        for run in large
    ]


def _slope(run: dict) -> float:
    return run["energy_drift"]["slope_mev_per_atom_ps"]


def _beyond_noise(run: dict) -> bool:
    """Tell a drift from the slope that the line through a run of a few vibrations has of its own."""
    drift = run["energy_drift"]
    return abs(_slope(run)) * drift["duration_ps"] > 3.0 * drift["fluctuation_mev_per_atom"]


def _model(subject: Subject) -> list[str]:
    if not subject.calculator.potential.direct_forces:
        return []
    return [
        "The forces come from a force head and are not the derivative of the energy: the model is not conservative and "
        "has no stress."
    ]


def _flags(diatomic: dict[str, Any], model: str | None) -> list[str]:
    """Tell each kind of feature in a line, with the worst pair in words; `model` as for `_remedy`."""
    kinds: dict[str, list[tuple[str, dict]]] = {}
    for pair in diatomic["pairs"]:
        for flag in pair["flags"]:
            kinds.setdefault(flag["name"], []).append((pair["pair"], flag))
    lines = []
    for name, flags in kinds.items():
        worst, flag = max(flags, key=lambda item: item[1]["size"])
        others = ", ".join(pair for pair, _ in flags if pair != worst)
        also = f" Also {others}." if others else ""
        lines.append(f"Two isolated atoms, {name}: {worst}, {flag['text']}.{also}{_remedy(name, model)}")
    return lines


def _has_core(subject: Subject) -> bool:
    return any(part.architecture == "zbl" for part in parts_of(subject.calculator.potential))


def _remedy(name: str, model: str | None) -> str:
    """Tell what closes a hole; `model` is None for one that has a core already."""
    if name != "attractive hole" or model is None:
        return ""
    command = shlex.join(["asecalc", "core", model, "-o", f"{Path(model).stem}_core.pt"])
    return f" A repulsive core closes it: {command}; a training has one in place with model.prior=zbl."


def _temperature(subject: Subject, nvt: dict[str, Any]) -> list[str]:
    settings, lines = nvt["runs"][0]["settings"], []
    target, known = settings["temperature_K"], subject.temperatures_K()
    notes = [
        temperature_note((target, target), known),
        time_step_note(subject.atoms, settings["timestep_fs"]),
    ]
    if known is None:
        lines.append(
            f"The card does not state the temperatures of the training data, so whether {target:g} K is among them is "
            "not known. Frames of a training state it by temperature_K; a --reference by asecalc reference --range."
        )
    lines += [f"{note[0].upper()}{note[1:]}." for note in notes if note is not None]
    means = [(run["seed"], run["temperature_mean_K"]) for run in nvt["runs"] if run["stable"]]
    off = [f"{mean:.0f} K (seed {seed})" for seed, mean in means if mean and abs(mean - target) > MOST_HEAT * target]
    if off:
        lines.append(
            f"The mean temperature of the second half of NVT is {', '.join(off)}, the thermostat at {target:g} K: "
            "the runs may be too short."
        )
    return lines


def _contacts(found: dict[str, Any]) -> list[str]:
    known = found["shortest_A"]
    close = {n: d for n, d in found["nvt"]["by_pair_A"].items() if n in known and d < CLOSE * known[n]}
    return [
        f"{n} came as close as {d:.2f} Å in NVT; the shortest in the data is {known[n]:.2f} Å."
        for n, d in close.items()
    ]


def _errors(subject: Subject, errors: dict[str, Any] | None) -> list[str]:
    stated = subject.card.get("test_errors")
    stated = stated.get("MAE") if isinstance(stated, dict) else None
    if not errors or not isinstance(stated, dict):
        return []
    before = next((v for k, v in stated.items() if str(k).startswith("forces") and isinstance(v, (int, float))), None)
    now = errors["mae"].get("forces")
    if before is None or now is None or now <= WORSE * before:
        return []
    return [
        f"The force MAE on {errors['data']} is {now:.1f} meV/Å, the card states {before:.1f} meV/Å on its test data: "
        "the data are unlike those that the model was trained on."
    ]


def _busy(speed: dict[str, Any]) -> list[str]:
    if not speed["busy"]:
        return []
    return [
        f"The machine was busy when speed was measured (load {speed['load']:.1f} on {speed['machine']['cores']} "
        "cores): a step takes less on an idle one; the processor time is shown."
    ]


def _unstated(subject: Subject) -> list[str]:
    missing = [name.replace("_", " ") for name in STATED if not subject.card.get(name)]
    return [f"The card does not state: {', '.join(missing)}."] if missing else []
