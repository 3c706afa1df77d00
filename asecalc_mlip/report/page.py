"""The page: warnings, key numbers, the summary figure, then every number with its unit, seed, steps and machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asecalc_mlip.models.combine import architecture_text
from asecalc_mlip.report import figures, html
from asecalc_mlip.report.card import card_rows
from asecalc_mlip.report.findings import atoms_text, mean_std, slopes, structure_errors
from asecalc_mlip.report.measurements import DIATOMIC, PARITY
from asecalc_mlip.report.subject import Subject
from asecalc_mlip.units import ERROR_UNITS, error_text

__all__ = ["page"]


def page(subject: Subject, found: dict[str, Any], summary: bytes, pieces: Path) -> str:
    """Make the HTML of a report.

    Parameters
    ----------
    subject : Subject
        Model with what it is judged by.
    found : dict
        Measured values and warnings.
    summary : bytes
        PNG of the four panels.
    pieces : Path
        Folder of the figures that were drawn along with their pieces.
    """
    how, model = found["how"], found["model"]
    lead = (
        f"{architecture_text(subject.calculator.potential)}, {model['n_parameters']} parameters, elements "
        f"{', '.join(model['elements'])}, cutoff {model['cutoff_A']:g} Å. Judged on "
        f"{how['formula']} ({atoms_text(how)}), {how['date']}, by asecalc-mlip "
        f"{how['versions']['asecalc-mlip']}."
    )
    parts = [
        html.Raw(f"<h1>{html.text(model['name'])}</h1>"),
        html.paragraph(lead, "lead"),
        _warnings(found["warnings"]),
        html.tiles(_tiles(found)),
        html.figure(summary, _caption(found), "Stability, structure, diatomic curves and energy conservation"),
        html.section("What the model is", html.table(("", ""), card_rows(subject, found), kind="card")),
        _errors(found, pieces),
        _stability(found),
        _structure(subject, found),
        _diatomic(found, pieces),
        _energy(found),
        _speed(found),
        _how(subject, found),
    ]
    return html.document(f"{model['name']}: report", [part for part in parts if part])


def _warnings(warnings: list[str]) -> html.Raw:
    if not warnings:
        return html.items(["No warnings: nothing unphysical was found in what follows."], "warnings good")
    head = html.paragraph(f"{len(warnings)} warning{'s' if len(warnings) != 1 else ''}")
    return html.Raw(head + html.items(warnings, "warnings"))


def _tiles(found: dict[str, Any]) -> list[tuple[str, str]]:
    nvt, speed, errors = found["nvt"]["runs"], found["speed"], found["errors"]
    settings = nvt[0]["settings"]
    planned = settings["steps"] * settings["timestep_fs"] * 1e-3
    made = [(f"{sum(r['stable'] for r in nvt)} of {len(nvt)}", f"runs stable for {planned:g} ps at "
             f"{settings['temperature_K']:g} K")]  # fmt: skip
    structure = structure_errors(nvt)
    if structure:
        rdf = structure_errors(nvt, "error_percent")
        made.append((f"{mean_std(rdf)} %", "error of g(r)") if rdf else (mean_std(structure), "error of h(r), 0 to 2"))
    made.append((mean_std(slopes(found["nve"])), "drift at constant energy, meV/atom/ps"))
    made.append((f"{found['diatomic']['mean_tortuosity']:.2f}", "mean tortuosity of diatomic curves (ideal 1)"))
    if errors:
        energy = "energy_per_atom" if any(found["how"]["periodic"]) else "energy"
        names = {energy: "energy", "forces": "forces"}
        made += [(error_text(k, errors["mae"][k], 1), f"MAE, {v}") for k, v in names.items() if k in errors["mae"]]
    made.append((f"{speed['step_ms']:.2f} ms", f"per step, {speed['ns_per_day']:.3g} ns/day, {speed['atoms']} atoms"))
    return made


def _caption(found: dict[str, Any]) -> str:
    nvt = found["nvt"]["runs"][0]["settings"]
    return (
        f"a: temperature of each seed (thin: every {nvt['interval']} steps, thick: running mean over a tenth of it), "
        "and how long it stayed whole. b: distances between atoms against the reference, difference below. c: two "
        "isolated atoms; triangles mark unphysical features. d: total energy at constant energy, with a straight line."
    )


def _errors(found: dict[str, Any], pieces: Path) -> html.Raw | None:
    errors = found["errors"]
    if errors is None:
        note = "No labelled data were given; --data FILE adds errors and parity plots. What the card states is above."
        return html.section("Accuracy", html.paragraph(note, "note"))
    pairs = [(k, errors["mae"][k], errors["rmse"][k]) for k in errors["mae"]]
    rows = [(k.replace("_", " "), f"{mae:.2f}", f"{rmse:.2f}", ERROR_UNITS[k]) for k, mae, rmse in pairs]
    note = f"{errors['n_structures']} of {errors['of_structures']} structures of {errors['data']}, evenly spread; " + (
        f"{errors['n_atoms']} atoms, {errors['seconds']:.1f} s on {_machine(errors['machine'])}."
    )
    return html.section(
        f"Accuracy on {errors['data']}",
        html.table(("quantity", "MAE", "RMSE", "unit"), rows),
        html.figure(_read(pieces / PARITY), "Model against labels; inset: distribution of the errors.", "Parity"),
        html.paragraph(note, "note"),
    )


def _stability(found: dict[str, Any]) -> html.Raw:
    rows = []
    for name in ("nvt", "nve"):
        for run in found[name]["runs"]:
            failure, extremes = run["failure"], run["extremes"]
            rows.append((
                name.upper(), run["seed"], run["settings"]["steps"], f"{run['stable_ps']:g}",
                "stable" if run["stable"] else f"broke ({failure['kind']})",
                _with_spread(run["temperature_mean_K"], run["temperature_std_K"]),
                _number(extremes["closest_A"], ".2f"), extremes["closest_pair"] or "–",
                _number(extremes["closest_ratio"], ".2f"), f"{extremes['largest_force']:.1f}",
            ))  # fmt: skip
    head = (
        "ensemble", "seed", "steps", "stable (ps)", "verdict", "temperature (K)", "closest (Å)", "atoms",
        "of cov. radii", "largest |F| (eV/Å)",
    )  # fmt: skip
    settings = found["nvt"]["runs"][0]["settings"]
    note = (
        f"NVT: {settings['thermostat']} thermostat, relaxation time {settings['tau_fs']:g} fs, time step "
        f"{settings['timestep_fs']:g} fs, from {found['how']['structure']} with Maxwell–Boltzmann velocities. NVE: "
        "velocity Verlet from the last frame of the same seed, new velocities. A run breaks when a bond of a molecule "
        "leaves its mean length by 0.5 Å, g(r) that of a given reference, atoms collapse or fly off, a number is not "
        "finite or the temperature runs away. Temperatures are of the second half. Short runs do not show rare "
        "failures: the protocol md17 has 600000 steps (--steps)."
    )
    image = html.figure(figures.energies(found), "Potential energy per atom of each NVT run.", "Potential energy")
    return html.section("Stability", html.table(head, rows), image, html.paragraph(note, "note"))


def _structure(subject: Subject, found: dict[str, Any]) -> html.Raw:
    periodic = any(found["how"]["periodic"])
    head = ["seed", "frames", "error of g(r) (Å)" if periodic else "error of h(r) (0 to 2)"]
    rows = []
    for run in found["nvt"]["runs"]:
        error = (run.get("structure_errors") or {}).get("all", {})
        percent = [_number(error.get("error_percent"), ".1f")] if periodic else []
        rows.append((run["seed"], run["frames"], _number(error.get("error"), ".3f"), *percent))
    if periodic:
        head.append("of ∫|g − 1| dr (%)")
    known = found["shortest_A"]
    contacts = []
    for name, distance in found["nvt"]["by_pair_A"].items():
        contacts.append((name, f"{distance:.3f}", *([_number(known.get(name), ".3f")] if known else [])))
    note = (
        f"Reference: {found['how']['reference']}. h(r): density of all distances of the stable frames, error "
        "∫|h − h_ref| dr; part of it is the noise of a short run. g(r): second half of each run. Closest approaches: "
        "up to 200 frames of each NVT run, against the shortest distance in the data where these were given."
    )
    return html.section(
        "Structure",
        html.table(head, rows),
        html.figure(figures.partial(subject, found), "g(r) by pair of elements, mean of all runs.", "Partial g(r)"),
        html.table(("pair", "closest in NVT (Å)", *(["shortest in the data (Å)"] if known else [])), contacts),
        html.paragraph(note, "note"),
    )


def _diatomic(found: dict[str, Any], pieces: Path) -> html.Raw:
    rows = []
    for pair in found["diatomic"]["pairs"]:
        m = pair["metrics"]
        names = ", ".join(dict.fromkeys(flag["name"] for flag in pair["flags"])) or "none"
        rows.append((
            pair["pair"], f"{m['minimum_A']:.2f}", f"{m['well_depth_eV']:.2f}", f"{m['tortuosity']:.2f}",
            m["force_flips"], f"{m['energy_jump_eV']:.3f}", f"{m['conservation_deviation_eV_per_A']:.3g}", names,
        ))  # fmt: skip
    head = (
        "pair", "minimum (Å)", "well (eV)", "tortuosity", "force flips", "energy jump (eV)", "|F + dE/dr| (eV/Å)",
        "unphysical features",
    )  # fmt: skip
    grids = "; ".join(f"{pair['pair']} {pair['metrics']['grid']}" for pair in found["diatomic"]["pairs"])
    left = found["diatomic"]["pairs_left_out"]
    more = f" {left} more pairs of the model were left out: asecalc diatomic shows them." if left else ""
    note = (
        "Ideal: tortuosity 1, force flips 1, energy jump 0; median of 35 public models 1.07, 2.06 and 0.53 eV "
        "(definitions of MLIP Arena). Two isolated atoms are far from the training data of most models: these curves "
        f"show the model where there are no data. float64, grids of the metrics: {grids}.{more}"
    )
    image = html.figure(_read(pieces / DIATOMIC), "Energy and force of each pair.", "Diatomic curves")
    return html.section("Two isolated atoms", html.table(head, rows), image, html.paragraph(note, "note"))


def _energy(found: dict[str, Any]) -> html.Raw:
    rows = []
    for run in found["nve"]["runs"]:
        drift = run["energy_drift"] or {}
        rows.append((
            run["seed"], run["settings"]["steps"], f"{run['stable_ps']:g}",
            _number(drift.get("slope_mev_per_atom_ps"), "+.4f"), _number(drift.get("fluctuation_mev_per_atom"), ".4f"),
            _number(drift.get("relative_to_kinetic"), ".3f"), run["settings"]["dtype"],
        ))  # fmt: skip
    head = (
        "seed", "steps", "time (ps)", "drift (meV/atom/ps)", "fluctuation (meV/atom)", "drift × time / std(E_kin)",
        "precision",
    )  # fmt: skip
    note = "Slope of a straight line through the total energy, and the standard deviation about it."
    return html.section("Energy conservation", html.table(head, rows), html.paragraph(note, "note"))


def _speed(found: dict[str, Any]) -> html.Raw:
    speed, settings = found["speed"], found["nvt"]["runs"][0]["settings"]
    rows = [(
        speed["atoms"], speed["edges"], f"{speed['ours_ms']:.3f}", f"{speed['processor_ms']:.3f}",
        f"{speed['ours_list_ms']:.3f}",
        f"{speed['ns_per_day']:.3g}", speed["ours_steps"], f"{speed['timestep_fs']:g}", speed["device"], speed["dtype"],
    )]  # fmt: skip
    head = (
        "atoms", "pairs in cutoff", "ms per step (median)", "processor ms",
        "of it neighbour list", "ns/day", "steps timed", "time step (fs)",
        "device", "precision",
    )  # fmt: skip
    runs = found["nvt"]["runs"]
    share = [1e3 * run["wall_s"] / run["steps_done"] for run in runs if run["steps_done"]]
    note = (
        f"{_machine(speed['machine'])}; engine: {speed['engine']}. Energy and forces, as asecalc bench measures them."
    )
    if share:
        note += (
            f" In the NVT runs a step of each of the {len(runs)} replicas, advanced together, took "
            f"{sum(share) / len(share):.2f} ms with integrator, at {settings['dtype']}."
        )
    return html.section("Speed", html.table(head, rows), html.paragraph(note, "note"))


def _how(subject: Subject, found: dict[str, Any]) -> html.Raw:
    how = found["how"]
    rows = [
        ("command", html.Raw(f"<code>{html.text(subject.settings.command())}</code>")),
        ("machine", _machine(how["machine"])),
        ("versions", ", ".join(f"{k} {v}" for k, v in how["versions"].items()) + f", torch {how['machine']['torch']}"),
        ("seeds", ", ".join(map(str, how["seeds"]))),
        ("steps", f"NVT {how['steps']}, NVE {found['nve']['runs'][0]['settings']['steps']} for each seed"),
        ("wall time of the runs", f"{sum(r['wall_s'] for k in ('nvt', 'nve') for r in found[k]['runs']):.0f} s"),
        ("precision", f"{how['dtype']}; diatomic curves float64"),
        ("model file", f"SHA-256 {found['model']['sha256']}"),
    ]
    return html.section("How it was measured", html.table(("", ""), rows, kind="card"))


def _machine(here: dict[str, Any]) -> str:
    return f"{here['processor']}, {here['threads']} of {here['cores']} threads"


def _with_spread(mean: float | None, spread: float | None) -> str:
    """Mean ± spread; the mean alone of a single frame, which has no spread."""
    return f"{_number(mean, '.0f')} ± {_number(spread, '.0f')}" if spread else _number(mean, ".0f")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
