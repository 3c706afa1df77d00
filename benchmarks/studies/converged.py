"""Which results hold at convergence: the rows of both studies that were trained until their validation error stayed.

    python benchmarks/studies/piwsl_study.py run converged-aspirin    # and the other parts; eam_study.py likewise
    python benchmarks/studies/converged.py                                 # tables and figure of the page

From their JSON files in benchmarks/results, it writes converged_piwsl.md, converged_trials.md, converged_eam.md and
converged.png there.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.files import write_text  # noqa: E402
from benchmarks.studies.dots import Dots, dots_figure  # noqa: E402
from benchmarks.studies.markdown_tables import table as markdown_table  # noqa: E402
from benchmarks.studies.piwsl_rows import EPOCH, PARTS, TRIED  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
ENDED = ", to convergence"
LOSSES = ("plain", "first", "trapezoid", "antithetic", "curvature")
METHODS = {"plain": "plain", "ZBL": "with a core (ZBL)", "EAM": "EAM first", "delta": "delta"}
NAMES = {
    **{"painn 64": "PaiNN", "tensornet 64": "TensorNet"},
    **{"painn 64, direct": "PaiNN, force head", "tensornet 64, direct": "TensorNet, force head"},
}
SETS = {"aspirin": "aspirin", "ethanol": "ethanol", "3bpa": "3BPA", "tio2": "TiO2", "lmnto": "LMNTO"}
CRYSTALS = ("tio2", "lmnto", "silica", "limno")
SETS |= {"silica": "silica", "limno": "Li-Mn-O"}
Case = tuple[str, int, str, bool]
"""Data, frames, model, and whether there were labels of forces."""
Found = dict[Case, dict[str, list[dict[str, Any]]]]


@click.command(help=(__doc__ or "").partition("\n\n")[0])
def main() -> None:
    """Write tables and figure."""
    rows = {name: json.loads((RESULTS / f"{name}_study.json").read_text()) for name in ("piwsl", "eam")}
    piwsl, eam = (found(results) for results in rows.values())
    tables = {"piwsl": table(piwsl, LOSSES), "trials": trials_table(rows["piwsl"]), "eam": table(eam, tuple(METHODS))}
    for name, text in tables.items():
        write_text(RESULTS / f"converged_{name}.md", text)
        click.echo(text)
    title = "Error of converged training without PIWSL, over that with it"
    dots_figure(list(panels(piwsl)), title=title, path=RESULTS / "converged.png")


def found(results: Mapping[str, dict[str, Any]]) -> Found:
    """Return the converged rows of a study by case and method."""
    cases: Found = defaultdict(lambda: defaultdict(list))
    for row in results.values():
        name = str(row.get("loss") or row["method"] + (ENDED if row.get("stop") else ""))
        if name.endswith(ENDED):
            case = row["data"], row["n_train"], row["model"], row["forces_weight"] > 0
            cases[case][name.removesuffix(ENDED)].append(row)
    return cases


def table(cases: Found, methods: Sequence[str]) -> str:
    """Return one line for each case and method: errors, seeds, steps, and where the validation error was lowest."""
    head = ("data, frames", "network", "method", "energy, meV", "forces, meV/Å", "seeds", "steps", "best at", "CPU min")
    lines = []
    for case in sorted(cases, key=lambda case: (list(SETS).index(case[0]), *case[1:])):
        data, n_train, model, forces = case
        told = [f"{SETS[data]}, {n_train}{'' if forces else ', energies only'}", NAMES[model]]
        for method in (name for name in methods if name in cases[case]):
            rows = cases[case][method]
            energy = [row["mae"][_energy(row)] for row in rows]
            per_atom = " per atom" if _energy(rows[0]) == "energy_per_atom" else ""
            seconds = [s for row in rows if (s := row.get("cpu_seconds") or row.get("training_seconds"))]
            cells = [
                *told,
                METHODS.get(method, method),
                _mean(energy) + per_atom,
                _mean([row["mae"]["forces"] for row in rows]),
                str(len(rows)),
                _span([row["steps"] for row in rows])
                if "epochs" in rows[0]
                else "",  # those of the EAM study are the most
                _span([row["best_epoch"] * EPOCH for row in rows]),
                f"{np.mean(seconds) / 60:.0f}" if seconds else "",
            ]
            lines.append(cells)
            told = ["", ""]
    return "\n".join(markdown_table(head, lines)) + "\n"


def trials_table(results: Mapping[str, dict[str, Any]]) -> str:
    """Return the trials of each data set, as many for plain training as for each order, and which was chosen.

    The chosen one has the lowest product of its two errors, of energies and of forces, on the validation frames.
    """
    head = ("data, frames", "training", "trial", "validation: energy, forces", "test: energy, forces", "chosen")
    lines = []
    for data, n_train in TRIED.items():
        rows = [results.get(row.key) for row in PARTS[f"converged-trials-{data}"]()]
        if not all(rows):
            continue  # a choice among some of the trials would favour those that were run
        told = f"{SETS[data]}, {n_train}"
        for order in ("plain", "first", "antithetic"):
            trials = [row for row in rows if row is not None and row["loss"].startswith(order)]
            best = min(trials, key=_product)
            for row in trials:
                name = row["loss"].removeprefix(order).removesuffix(ENDED).strip(", ")
                name = name or ("rate × 1" if order == "plain" else "× 1")
                last, kind = row["validation"][row["best_epoch"] - 1], _energy(row)
                validation = f"{1e3 * last[f'{kind}_mae']:.1f}, {1e3 * last['forces_mae']:.1f}"
                test = f"{row['mae'][kind]:.1f}, {row['mae']['forces']:.1f}"
                lines.append([told, order, name, validation, test, "yes" if row is best else ""])
                told = ""
    return "\n".join(markdown_table(head, lines)) + "\n"


def _product(row: Mapping[str, Any]) -> float:
    """Return the product of the validation errors of energies and forces of the model that was kept."""
    last = row["validation"][row["best_epoch"] - 1]
    return float(last[f"{_energy(row)}_mae"] * last["forces_mae"])


def panels(cases: Found) -> Iterator[Dots]:
    """Yield the factors of energies and forces, of each seed that has both trainings."""
    shown = {case: methods for case, methods in cases.items() if len(methods) > 1 and "plain" in methods and case[3]}
    order = sorted(shown, key=lambda case: (case[2], case[0], case[1]))
    names = {case: f"{NAMES[case[2]]}, {SETS[case[0]]} {case[1]}" for case in order}
    for kind, label in (("energy", "Energies"), ("forces", "Forces")):
        values: dict[str, dict[str, list[float]]] = {}
        for case, name in names.items():
            for loss in ("first", "trapezoid", "antithetic", "curvature"):
                if factors := _factors(shown[case], loss, kind):
                    values.setdefault(loss, {})[name] = factors
        yield Dots(label, "factor", list(names.values()), values, 1.0, log=True, ticks=(0.5, 1, 2, 3))


def _factors(methods: Mapping[str, list[dict[str, Any]]], loss: str, kind: str) -> list[float]:
    plain = {row["seed"]: row for row in methods["plain"]}
    rows = [row for row in methods.get(loss, []) if row["seed"] in plain]
    names = [_energy(row) if kind == "energy" else kind for row in rows]
    return [plain[row["seed"]]["mae"][name] / row["mae"][name] for row, name in zip(rows, names, strict=True)]


def _energy(row: Mapping[str, Any]) -> str:
    """Return the name of the energy error: per atom where structures have unlike sizes."""
    return "energy_per_atom" if row["data"] in CRYSTALS else "energy"


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
