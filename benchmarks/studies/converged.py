"""Which results hold at convergence: the rows of both studies that were trained until their validation error stayed.

    python benchmarks/studies/piwsl_study.py run converged-aspirin    # and the other parts; eam_study.py likewise
    python benchmarks/studies/converged.py                                 # tables and figure of the page

From their JSON files in benchmarks/results, it writes converged_piwsl.md, converged_eam.md and converged.png there.
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
from benchmarks.studies.piwsl_rows import EPOCH  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
ENDED = ", to convergence"
LOSSES = ("plain", "first", "first × 0.1", "trapezoid", "antithetic", "curvature")
METHODS = {"plain": "plain", "EAM": "EAM first", "delta": "delta"}
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
    piwsl, eam = (found(json.loads((RESULTS / f"{name}_study.json").read_text())) for name in ("piwsl", "eam"))
    for name, cases, methods in (("piwsl", piwsl, LOSSES), ("eam", eam, tuple(METHODS))):
        text = table(cases, methods)
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
        for method in sorted(cases[case], key=methods.index):
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
