"""Does a scan of seconds tell how long a model holds in dynamics? Against the models of the PIWSL and the EAM study.

    python benchmarks/studies/smoothness.py

For every model of benchmarks/results/piwsl_md.json (aspirin, 500 K, 50 ps, two trajectories each) the bonds of aspirin
are scanned from 0.6 to 1.6 lengths, and from 0.8 to 1.3 (the frames of rMD17 at 500 K reach 0.88 to 1.16). Spearman's
ρ of each number with the mean stable time says how well it orders the models; the force error on test frames is the
rival. How far two trajectories of a model agree bounds what any number can do. The p values are not corrected for the
number of tests. It needs the models in runs/piwsl; what is in the results is not probed again.

The crystals of benchmarks/results/eam_md.json (silica, 2000 K, 10 ps, eight trajectories each) have all their atoms
displaced at once along random lines (`displacement_scan`, 0.3 Å rms, one test frame of each topology). It needs the
models in runs/eam-study. Results: benchmarks/results/smoothness.json, .md and .png.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import PIWSLCalculator  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.files import read_structure, write_json  # noqa: E402
from asecalc_mlip.plots.style import BLUE, GREEN, ORANGE  # noqa: E402
from asecalc_mlip.probes import bond_smoothness, displacement_scan  # noqa: E402
from asecalc_mlip.zoo import FOLDER as ZOO  # noqa: E402
from benchmarks.studies.markdown_tables import table as markdown_table  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT.parent / "shared" / "data"
RANGES = {"wide": (0.6, 1.6), "narrow": (0.8, 1.3)}
KINDS = {"painn": "conservative", "painn-direct": "force head"}
# Name, text, and the sign that it should have with stable time.
MEASURES = {
    "score": ("share of smooth bonds", 1),
    "minima": ("spurious minima per bond", -1),
    "hole_eV": ("deepest hole, eV", -1),
    "wrong_way_A": ("force the wrong way, Å per bond", -1),
    "deviation_eV_per_A": ("mean difference of F and −dE/dr, eV/Å", -1),
}

SILICA_MEASURES = {
    "forces_mae": "force MAE on test frames",
    "rise_eV_per_atom": "mean rise of the energy",
    "lowest_rise_eV_per_atom": "lowest rise of the energy",
    "roughness_eV_per_A": "roughness",
}
REPEAT = "one trajectory against the other"


def main() -> None:
    """Probe, correlate, tabulate, draw."""
    md = json.loads((RESULTS / "piwsl_md.json").read_text())
    study = json.loads((RESULTS / "piwsl_study.json").read_text())
    done = json.loads(path.read_text())["rows"] if (path := RESULTS / "smoothness.json").exists() else {}
    rows = {key: done.get(key) or probe(key, md[key], study[key]) for key in sorted(md)}
    for key, row in rows.items():
        row["runs_ps"] = md[key]["stable_ps"]
    found = {"rows": rows, "spearman": correlations(list(rows.values()))}
    found |= silica(json.loads(path.read_text()).get("silica", {}) if path.exists() else {})
    write_json(path, found)
    text = f"Aspirin\n\n{table(found['spearman'])}\nSilica\n\n{silica_table(found['silica_spearman'])}"
    (RESULTS / "smoothness.md").write_text(text)
    draw(list(rows.values()), list(found["silica"].values()))
    print(text)


def probe(key: str, md: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    """Numbers of one model."""
    atoms = read_structure(ZOO / "aspirin_painn.xyz")
    calculator = PIWSLCalculator.load(ROOT / "runs" / "piwsl" / key / "model.pt", device="cpu", dtype="float64")
    start = time.perf_counter()
    row: dict[str, Any] = {
        "kind": KINDS[key.split("/")[1]],
        "stable_ps": float(np.mean(md["stable_ps"])),
        "forces_rmse_meV_per_A": study["rmse"]["forces"],
    }
    for name, stretch in RANGES.items():
        report = bond_smoothness(atoms, calculator, stretch=stretch)
        bonds = report.bonds
        row[name] = {
            "score": report.score,
            "minima": float(np.mean([bond.spurious_minima for bond in bonds])),
            "hole_eV": max(bond.hole_eV for bond in bonds),
            "wrong_way_A": float(np.mean([bond.wrong_way_A for bond in bonds])),
            "deviation_eV_per_A": float(np.mean([bond.deviation_eV_per_A for bond in bonds])),
        }
    return row | {"seconds": round(time.perf_counter() - start, 2)}


def silica(done: dict[str, Any]) -> dict[str, Any]:
    """Rows of the models of the EAM study that have been in dynamics, and ρ of each number with their stable time."""
    md = json.loads((RESULTS / "eam_md.json").read_text())
    study = json.loads((RESULTS / "eam_study.json").read_text())
    frames = read_frames(DATA / "silica_zeo22_test.xyz")[::50]
    rows = {}
    for key in sorted(key for key in md if key.startswith("silica")):
        rows[key] = done.get(key) or _displaced(ROOT / "runs" / "eam-study" / key / "model.pt", frames)
        rows[key] |= {"stable_ps": float(np.mean(md[key]["stable_ps"])), "forces_mae": study[key]["mae"]["forces"]}
    times = [row["stable_ps"] for row in rows.values()]
    # With a core the energy rises by construction: the others alone are the harder question.
    bare = {key: row for key, row in rows.items() if not any(name in key for name in ("/delta", "/ZBL"))}
    groups = {"all": rows, "without a core": bare}
    groups |= {f"PaiNN, {name}": {k: r for k, r in of.items() if "/painn/" in k} for name, of in groups.items()}
    found: dict[str, Any] = {}
    for name in SILICA_MEASURES:
        for group, members in groups.items():
            times = [row["stable_ps"] for row in members.values()]
            rho, p = map(float, spearmanr([row[name] for row in members.values()], times))
            found.setdefault(name, {})[group] = {"rho": rho, "p": p, "models": len(members)}
    return {"silica": rows, "silica_spearman": found}


def _displaced(model: Path, frames: list[Any]) -> dict[str, Any]:
    calculator = PIWSLCalculator.load(model, device="cpu", dtype="float64")
    report = displacement_scan(frames, calculator)
    return {
        "rise_eV_per_atom": float(np.mean(report.rise_eV_per_atom)),
        "lowest_rise_eV_per_atom": min(report.rise_eV_per_atom),
        "roughness_eV_per_A": max(report.roughness_eV_per_A),
    }


def silica_table(found: dict[str, Any]) -> str:
    """Markdown."""
    groups = list(next(iter(found.values())))
    heads = [f"{group} ({next(iter(found.values()))[group]['models']})" for group in groups]
    rows = [
        [SILICA_MEASURES[name], *(f"{one['rho']:+.2f} (p {one['p']:.2g})" for one in by_group.values())]
        for name, by_group in found.items()
    ]
    return "\n".join(markdown_table(["number", *heads], rows)) + "\n"


def correlations(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spearman's ρ with stable time and its p value, by measure and group of models."""
    groups = {"all": rows} | {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS.values()}
    found: dict[str, dict[str, Any]] = {}
    for group, members in groups.items():
        values = {"force error": [row["forces_rmse_meV_per_A"] for row in members]}
        values |= {f"{range_}/{name}": [row[range_][name] for row in members] for range_ in RANGES for name in MEASURES}
        times = [row["stable_ps"] for row in members]
        first, second = zip(*(row["runs_ps"] for row in members), strict=True)
        for name, numbers in {**values, REPEAT: first}.items():
            constant = len(set(numbers)) == 1
            rho, p = (None, None) if constant else map(float, spearmanr(numbers, second if name == REPEAT else times))
            found.setdefault(name, {})[group] = {"rho": rho, "p": p, "models": len(members)}
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    groups = list(next(iter(found.values())))
    sizes = [next(iter(found.values()))[group]["models"] for group in groups]
    heads = ["number", "range, bond lengths", "good sign"]
    heads += [f"{group} ({n})" for group, n in zip(groups, sizes, strict=True)]
    rows = []
    for name, by_group in found.items():
        range_, _, measure = name.rpartition("/")
        text, sign = MEASURES.get(measure, (REPEAT, 1) if name == REPEAT else ("force RMSE on test frames", -1))
        reach = "{} to {}".format(*RANGES[range_]) if range_ else ""
        cells = [
            "no difference" if one["rho"] is None else f"{one['rho']:+.2f} (p {one['p']:.2g})"
            for one in by_group.values()
        ]
        rows.append([text, reach, "+" if sign > 0 else "−", *cells])
    return "\n".join(markdown_table(heads, rows)) + "\n"


def draw(rows: list[dict[str, Any]], crystals: list[dict[str, Any]]) -> None:
    """Stable time of aspirin against two numbers, and of silica against two."""
    figure = Figure(figsize=(12.5, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = {
        "force RMSE, meV/Å": lambda row: row["forces_rmse_meV_per_A"],
        "share of smooth bonds": lambda row: row["wide"]["score"],
    }
    left, right = np.split(figure.subplots(1, 4), 2)
    for axes, (label, value) in zip(left, panels.items(), strict=True):
        for kind, colour in zip(KINDS.values(), (BLUE, ORANGE), strict=True):
            members = [row for row in rows if row["kind"] == kind]
            x, y = [value(row) for row in members], [row["stable_ps"] for row in members]
            axes.scatter(x, y, color=colour, label=kind, alpha=0.8)
        axes.set_xlabel(label)
        axes.set_title("aspirin, 500 K", fontsize=10)
    for axes, name in zip(right, ("forces_mae", "rise_eV_per_atom"), strict=True):
        axes.scatter([row[name] for row in crystals], [row["stable_ps"] for row in crystals], color=GREEN, alpha=0.8)
        axes.set_xlabel("force MAE, meV/Å" if name == "forces_mae" else "energy rise at 0.3 Å, eV/atom")
        axes.set_title("silica, 2000 K", fontsize=10)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    right[0].set_ylabel("mean stable time, ps (of 10)")
    left[0].set_ylabel("mean stable time, ps (of 50)")
    figure.axes[0].legend(frameon=False)
    figure.savefig(RESULTS / "smoothness.png", dpi=150)


if __name__ == "__main__":
    main()
