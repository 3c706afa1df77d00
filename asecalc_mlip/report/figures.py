"""The figures of a report, from what was measured, as PNG files in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from asecalc_mlip.analysis import RDF
from asecalc_mlip.plots.rdf import rdf_figure
from asecalc_mlip.plots.stability import Series
from asecalc_mlip.plots.style import figure_bytes
from asecalc_mlip.plots.summary import PairCurve, energy_figure, summary_figure
from asecalc_mlip.report.findings import atoms_text, heads
from asecalc_mlip.report.subject import Subject
from asecalc_mlip.report.trajectories import from_plain, reference_curve
from asecalc_mlip.units import threads_text

__all__ = ["energies", "partial", "summary"]

DPI = 130


def summary(subject: Subject, found: dict[str, Any]) -> bytes:
    """Draw the four panels."""
    nvt = found["nvt"]["runs"]
    settings = nvt[0]["settings"]
    figure = summary_figure(
        [_series(run, number, "temperature_K") for number, run in enumerate(nvt)],
        [_series(run, number, "etot_meV_per_atom") for number, run in enumerate(found["nve"]["runs"])],
        _pairs(found["diatomic"]),
        title=f"{found['model']['name']}: how it behaves",
        heads=heads(found, settings["temperature_K"]),
        footer=_footer(found, settings),
        target_K=settings["temperature_K"],
        end_ps=settings["steps"] * settings["timestep_fs"] * 1e-3,
        reference=reference_curve(subject),
    )
    return figure_bytes(figure, DPI)


def energies(found: dict[str, Any]) -> bytes:
    """Draw the potential energy of the runs at constant temperature."""
    runs = [_series(run, number, "epot_meV_per_atom") for number, run in enumerate(found["nvt"]["runs"])]
    return figure_bytes(energy_figure(runs, title="Potential energy, NVT"), DPI)


def partial(subject: Subject, found: dict[str, Any]) -> bytes | None:
    """Draw g(r) by pair of elements, the mean of all runs; None for a molecule."""
    runs = [run["partial"] for run in found["nvt"]["runs"] if run.get("partial")]
    if not runs:
        return None
    means = {}
    for name in runs[0]:
        curves = [RDF.from_dict(run[name]) for run in runs if name in run]
        g = np.mean([curve.g for curve in curves], axis=0)
        means[name] = RDF(curves[0].edges, g, curves[0].pair, sum(curve.n_frames for curve in curves))
    targets = {name: reference_curve(subject, name) for name in means}
    return figure_bytes(rdf_figure(means, {k: v for k, v in targets.items() if isinstance(v, RDF)}), DPI)


def _series(run: dict, number: int, values: str) -> Series:
    label = f"seed {run['seed']}"
    if values == "etot_meV_per_atom" and run["energy_drift"]:
        label += f": {run['energy_drift']['slope_mev_per_atom_ps']:+z.3f}"
    distribution: Any = from_plain(run.get("structure"))  # the summary draws h(r) and g(r) alike
    return Series(
        label,
        np.array(run["curves"]["time_ps"]),
        np.array(run["curves"][values], dtype=float),
        histogram=distribution,
        broken_ps=run["failure"]["time_ps"] if run["failure"] else None,
        colour=number,
    )


def _pairs(diatomic: dict[str, Any]) -> list[PairCurve]:
    """Return curves; where there are many, those with most flags and the most tortuous first."""
    ordered = sorted(diatomic["pairs"], key=lambda p: (-len(p["flags"]), -p["metrics"]["tortuosity"]))
    shown = ordered if len(ordered) > 8 else diatomic["pairs"]
    curves = []
    for pair in shown:
        r, energy = np.array(pair["distances_A"]), np.array(pair["energies_eV"])
        flags = [(flag["distance_A"], float(np.interp(flag["distance_A"], r, energy))) for flag in pair["flags"]]
        label = f"{pair['pair'].replace('-', '–')}  {pair['metrics']['tortuosity']:.2f}"
        curves.append(PairCurve(label, r, energy, flags))
    return curves


def _footer(found: dict[str, Any], settings: dict[str, Any]) -> str:
    how, speed = found["how"], found["speed"]
    busy = ", processor time on a busy machine" if speed["busy"] else ""
    seeds = ", ".join(map(str, how["seeds"][:6])) + (" …" if len(how["seeds"]) > 6 else "")
    return (
        f"{how['formula']}, {atoms_text(how)}; NVT {settings['steps']} and NVE "
        f"{found['nve']['runs'][0]['settings']['steps']} steps of {settings['timestep_fs']:g} fs, seeds {seeds}\n"
        f"{speed['step_ms']:.2f} ms per step ({speed['ns_per_day']:.3g} ns/day{busy}) on {speed['device']}, "
        f"{how['machine']['processor']}, {threads_text(how['machine']['threads'])}; asecalc-mlip "
        f"{how['versions']['asecalc-mlip']}, {how['date']}"
    )
