"""Tables and figures of the EAM study.

    python benchmarks/studies/eam_report.py  # reads benchmarks/results/eam_*.json, writes eam_study.md and figures

The diatomic curves need the models themselves in runs/eam-study; the rest does not.

Errors are MAE on the test frames, mean ± standard deviation over the seeds; only rows with all seeds are shown.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import PIWSLCalculator  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.plots.diatomic import diatomic_figure  # noqa: E402
from asecalc_mlip.probes import diatomic_report, shortest_distances  # noqa: E402
from benchmarks.studies.eam_rows import (  # noqa: E402
    CONVERGED,
    DATA,
    ENERGIES_UP,
    LONG_STEPS,
    METHODS,
    MODELS,
    MORE,
    ON_TOP,
    RUNS,
    SEEDS,
    Row,
)
from benchmarks.studies.eam_study import SHARED  # noqa: E402
from benchmarks.studies.markdown_tables import table  # noqa: E402
from benchmarks.studies.panels import Curve, Panel, curves_figure, survival_figure  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
SHOWN = (("silica", 120), ("limno", 30))
"""Trajectories of which the page has a figure."""
NAMES = {
    "painn": "PaiNN",
    "cgcnn": "CGCNN",
    "torchmd_et": "TorchMD-ET",
    "painn 64": "PaiNN 64",
    "tensornet 64": "TensorNet 64",
}
DATA_NAMES = {
    "silica": "silica zeolites",
    "limno": "Li-Mn-O electrodes",
    "tio2": "TiO2",
    "aspirin": "aspirin",
    "ethanol": "ethanol",
}
DRAWN = ("plain", "PIWSL", "EAM", "delta", "delta + replay")
BY_SIZE = ("plain", "EAM", ON_TOP, "delta")
Group = tuple[str, int, str, str]  # data, frames, model, method
Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Write everything that the results allow."""
    groups = grouped(json.loads((RESULTS / "eam_study.json").read_text()))
    md = RESULTS / "eam_md.json"
    runs = grouped(json.loads(md.read_text())) if md.exists() else {}
    text = "\n\n".join([*errors(groups), *dynamics(runs), *holes()])
    sizes(groups, runs)
    (RESULTS / "eam_study.md").write_text(text + "\n")
    print(text)


def grouped(results: Rows) -> dict[Group, list[dict[str, Any]]]:
    """Rows of the same settings, all seeds there."""
    groups: dict[Group, list[dict[str, Any]]] = defaultdict(list)
    for row in results.values():
        label = Row(**{name: row[name] for name in Row.__dataclass_fields__ if name in row}).label
        groups[row["data"], row["n_train"], row["model"], label].append(row)
    return {group: rows for group, rows in groups.items() if len(rows) == len(SEEDS)}


def errors(groups: dict[Group, list[dict[str, Any]]]) -> Iterator[str]:
    """One table for each data set and size."""
    for data, n_train in sorted({group[:2] for group in groups}):
        lines = [f"### {DATA_NAMES[data]}, {n_train} training frames", ""]
        heads = ["model", "method", "energy, meV/atom", "forces, meV/Å", "stress, meV/Å³", "steps", "training, s"]
        cells = []
        for _, _, model, method in _in_order(g for g in groups if g[:2] == (data, n_train)):
            rows = groups[data, n_train, model, method]
            mae = {name: [row["mae"][name] for row in rows] for name in rows[0]["mae"]}
            stress = _mean(mae["stress"], 2) if "stress" in mae else ""
            seconds = f"{np.mean([row['training_seconds'] for row in rows]):.0f}"
            steps = rows[0]["steps"] + (rows[0]["steps"] // 2 if method == ON_TOP else 0)
            means = [_mean(mae["energy_per_atom"]), _mean(mae["forces"])]
            cells.append([NAMES[model], method, *means, stress, steps, seconds])
        yield "\n".join([*lines, *table(heads, cells)])


def dynamics(groups: dict[Group, list[dict[str, Any]]]) -> Iterator[str]:
    """One table for each data set and size, and the figure of survival."""
    for data, n_train in sorted({group[:2] for group in groups}):
        chosen = _in_order(g for g in groups if g[:2] == (data, n_train))
        first = groups[chosen[0]][0]
        title = f"{DATA_NAMES[data]}, {n_train} training frames: {first['temperature_K']:g} K"
        heads = ["model", "method", "runs", "stable", "mean stable time, ps", "g(r) error, %", "closest"]
        cells = []
        times: dict[str, dict[str, list[float]]] = defaultdict(dict)
        for group in chosen:
            rows = groups[group]
            stable_ps = [time for row in rows for time in row["stable_ps"]]
            if group[3] in (*METHODS, *MORE):
                times[NAMES[group[2]]][group[3]] = stable_ps
            rdf = [row["rdf_error_percent"][0] for row in rows if row["rdf_error_percent"]]
            kept = [len(stable_ps), sum(row["stable"] for row in rows), f"{np.mean(stable_ps):.1f}"]
            last = [_mean(rdf, 0) if rdf else "", f"{min(row['closest_ratio'] for row in rows):.2f}"]
            cells.append([NAMES[group[2]], group[3], *kept, *last])
        lines = [f"### {title}", "", *table(heads, cells)]
        lines += ["", "Closest: smallest distance over the sum of covalent radii, of all runs; 0.6 ends a run."]
        length = max(row["length_ps"] for group in chosen for row in groups[group])
        if (data, n_train) in SHOWN:
            survival_figure(times, length_ps=length, title=title, path=RESULTS / f"eam_md_{data}_{n_train}.png")
        yield "\n".join(lines)


def sizes(groups: dict[Group, list[dict[str, Any]]], runs: dict[Group, list[dict[str, Any]]]) -> None:
    """Errors and stable time of silica with PaiNN against the number of training frames."""
    numbers = {
        "energy MAE (meV/atom)": (groups, lambda row: row["mae"]["energy_per_atom"]),
        "forces MAE (meV/Å)": (groups, lambda row: row["mae"]["forces"]),
        "mean stable time (ps)": (runs, lambda row: np.mean(row["stable_ps"])),
    }
    panels = []
    for y_label, (source, number) in numbers.items():
        curves = []
        for method in BY_SIZE:
            rows = {k[1]: found for k, found in sorted(source.items()) if k == ("silica", k[1], "painn", method)}
            values = [[number(row) for row in found] for found in rows.values()]
            curves.append(Curve(method, list(rows), [np.mean(v) for v in values], [np.std(v, ddof=1) for v in values]))
        panels.append(Panel("", "training frames", y_label, curves))
    title = "PaiNN on silica zeolites: 2 000 steps, 3 seeds"
    curves_figure(panels, title=title, path=RESULTS / "eam_sizes.png")


def holes() -> Iterator[str]:
    """Diatomic curves of silica, seed 0 of each method, as a figure, and which have an attractive hole."""
    for model in MODELS:
        paths = {m: RUNS / Row("silica", 120, model, m, 0).key / "model.pt" for m in DRAWN}
        paths = {method: path for method, path in paths.items() if path.exists()}
        if "delta + replay" in paths:
            del paths["delta"]
        if len(paths) < 2:
            continue
        shortest = shortest_distances(read_frames(SHARED / DATA["silica"]["train"]))
        calculators = {m: PIWSLCalculator.load(path, device="cpu") for m, path in paths.items()}
        reports = [diatomic_report(calc, name=m, grid="full", shortest_A=shortest) for m, calc in calculators.items()]
        title = f"{NAMES[model]} on 120 frames of silica: isolated dimers"
        if model == "painn":  # the one on the page
            diatomic_figure(reports, path=RESULTS / f"eam_diatomic_{model}.png", title=title)
        lines = [f"### Attractive holes below 0.8 of the shortest training distance, {NAMES[model]}, seed 0", ""]
        pairs = list(reports[0].holes)
        lines += table(["method", *pairs], [[r.model, *(_hole(r.holes[pair]) for pair in pairs)] for r in reports])
        yield "\n".join(lines)


def _hole(hole: Any) -> str:
    return "none" if hole is None else f"{hole.depth_eV:.1f} eV"


def _in_order(groups: Any) -> list[Group]:
    variants = ("", f", {ENERGIES_UP}", f", {LONG_STEPS} steps", CONVERGED)
    labels = [method + variant for variant in variants for method in (*METHODS, *MORE)]
    return sorted(groups, key=lambda g: (list(MODELS).index(g[2]), labels.index(g[3])))


def _mean(values: list[float], digits: int = 1) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


if __name__ == "__main__":
    main()
