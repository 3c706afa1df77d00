"""Tables of the study of sparse data, from benchmarks/results/sparse.json; its figures are in sparse_figures.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from asecalc_mlip.files import write_text
from benchmarks.studies.markdown_tables import table
from benchmarks.studies.sparse_methods import HOT_FRAMES, METHODS
from benchmarks.studies.sparse_rows import (
    CONTROLLED,
    DATA,
    DYNAMICS,
    FEW_OF,
    KINDS,
    ORDERS,
    PARTS,
    PICOSECONDS,
    TRIALS,
    WEAKEST,
    Row,
)

__all__ = ["COPIES", "FIRST", "RECIPE", "groups_of", "pairs_of", "write_tables"]

Results = dict[str, dict[str, Any]]
STRUCTURES = {
    "PaiNN, xtb first": ("copies, atoms moved by up to 0.1 Å", 2000),
    "PaiNN, xtb first, 5 copies": ("copies, up to 0.1 Å", 500),
    "PaiNN, xtb first, 40 copies": ("copies, up to 0.1 Å", 4000),
    "PaiNN, xtb first, 0.2 Å": ("copies, up to 0.2 Å", 2000),
    "PaiNN, xtb first, 500 K": ("its dynamics at 500 K", HOT_FRAMES),
    "PaiNN, xtb first, 1500 K": ("its dynamics at 1500 K", HOT_FRAMES),
    "PaiNN, xtb first, 1500 K, corrected": ("its dynamics at 1500 K, labels corrected by the data", HOT_FRAMES),
    "PaiNN, xtb first, 1500 K in turn": (
        "its dynamics at 1500 K, 10 from each structure (`pretrain.temperature`)",
        1050,
    ),
    "PaiNN, xtb first, 3000 K": ("its dynamics at 3000 K", HOT_FRAMES),
    "PaiNN, xtb first, 75 % of steps": ("copies, up to 0.1 Å; three quarters of the steps", 2000),
}
ASKED = {
    "TensorNet": "nothing",
    "TensorNet, far": "a tenth of each batch, weight 1",
    "TensorNet, far, share 0.03": "three hundredths, weight 1",
    "TensorNet, far, weight 0.1": "a tenth, weight 0.1",
    "TensorNet, far, weight 0.01": "a tenth, weight 0.01",
}
COPIES = ", xtb first"
FIRST = ("", COPIES, ", xtb first, 1500 K", ", xtb first, 1500 K, corrected")
SETS = (
    *(("aspirin", n) for n in DATA["aspirin"].sizes),
    *(("ethanol", 50), ("ethanol", 950), *FEW_OF),
)
RECIPE = "TensorNet, corrected xtb first, far"
TAUGHT = {
    "xtb first": "copies",
    "xtb first, 1500 K": "dynamics at 1500 K",
    "xtb first, 1500 K, corrected": "the same, corrected",
}
# Sources of structures far from the data that a study tells of.
FAR = ("bonds", "two_step", "dynamics")
BESIDE = ("fine-tuned", *(f"fine-tuned, {name}" for name in (*ORDERS, *WEAKEST, "replay", "layer decay")))


def write_tables(results: Results, dynamics: Results, folder: Path) -> str:
    """Write a Markdown file for each question; return all tables."""
    made = {f"sparse_{name}.md": make(results) for name, make in TABLES.items()}
    made["sparse_dynamics.md"] = dynamics_table(dynamics)
    for name, text in made.items():
        write_text(folder / name, text + "\n")
    return "\n\n".join(f"{name}\n\n{text}" for name, text in made.items())


def few_table(results: Results) -> str:
    """Return the means over seeds of each training."""
    heads = ["data, frames", "training", "steps", "seeds", "energies, meV", "forces, meV/Å", "processor time"]
    cells = [
        [f"{data}, {n}", method, steps, len(rows), *_both(rows, 1), _cost(method, rows)]
        for (data, n, method, steps), rows in groups_of(results, *SETS)
    ]
    return "\n".join(
        [*table(heads, cells), "", _missing(results, "few", "field", "more", "recipe-others", "others-few", "control")]
    )


def weak_table(results: Results) -> str:
    """Return what each weak loss changes against plain fine-tuning of the same seeds."""
    heads = ["data, frames", "beside the labels", "seeds", "energies, meV", "forces, meV/Å", "change", "p"]
    cells = []
    grouped = dict(groups_of(results, ("aspirin", 50), *FEW_OF))
    for (data, n, method, steps), rows in grouped.items():
        plain = grouped.get((data, n, "fine-tuned", steps), [])
        if method not in BESIDE or not any((data, n, other, steps) in grouped for other in BESIDE[1:]):
            continue
        change, p = ("", "") if method == "fine-tuned" else _change(pairs_of(plain, rows))
        name = method.partition(", ")[2] or "nothing"
        cells.append([f"{data}, {n}", name, len(rows), *_both(rows, 2), change, p])
    return "\n".join([*table(heads, cells), "", _missing(results, "weak", "others-few")])


def trials_table(results: Results) -> str:
    """Return the validation errors by which learning rates and coefficients are chosen."""
    cells = []
    for row in TRIALS:
        if (found := results.get(row.key)) is not None:
            kinds = ("forces", "meV/Å", "meV/Å") if DATA[row.data].forces else ("energy", "meV/atom", "meV")
            errors = [f"{_validation(found):.2f} {kinds[1]}", f"{found['mae'][kinds[0]]:.1f} {kinds[2]}"]
            cells.append([f"{row.data}, {row.n_train}", row.method, *errors])
    lines = table(["data, frames", "training", "validation", "test"], cells)
    return "\n".join([*lines, "", _missing(results, "weak-trials")])


def teacher_table(results: Results) -> str:
    """Return plain training and training that begins with GFN2-xTB, seed by seed."""
    heads = ["frames", "network, steps", "structures of GFN2-xTB", "seed", "forces, meV/Å", "GFN2-xTB first", "change"]
    cells = []
    grouped = dict(groups_of(results, *(("aspirin", n) for n in DATA["aspirin"].sizes)))
    for (_, n, method, steps), rows in grouped.items():
        if method not in ("PaiNN", "TensorNet"):  # fine-tuned models have the steps on the teacher besides
            continue
        for kind, what in TAUGHT.items():
            for plain, other in pairs_of(rows, grouped.get(("aspirin", n, f"{method}, {kind}", steps), [])):
                before, after = plain["mae"]["forces"], other["mae"]["forces"]
                energies = f"{plain['mae']['energy']:.0f} → {other['mae']['energy']:.0f}"
                first = [n, f"{method}, {steps}", what, plain["seed"], f"{before:.1f}", f"{after:.1f}"]
                cells.append([*first, _percent(after / before - 1, 0), energies])
    lines = table([*heads, "energies, meV"], cells)
    return "\n".join([*lines, "", _missing(results, "teacher", "teacher-corrected", "teacher-sizes", "teacher-longer")])


def kinds_table(results: Results) -> str:
    """Return what other structures of the teacher, and more steps on them, make of one seed."""
    plain = results.get(Row("aspirin", 100, "PaiNN", 0, 10_000).key)
    cells = []
    for row in KINDS:
        if plain is None or (found := results.get(row.key)) is None:
            continue
        test, validation = found["mae"]["forces"], _validation(found)
        change = _percent(test / plain["mae"]["forces"] - 1, 0)
        what, number = STRUCTURES[row.method]
        cells.append([what, number, f"{validation:.1f}", f"{test:.1f}", change])
    lines = table(["structures of GFN2-xTB", "number", "validation, meV/Å", "test, meV/Å", "change"], cells)
    return "\n".join([*lines, "", _missing(results, "teacher-kinds")])


def curvature_table(results: Results) -> str:
    """Return what the curvature of a teacher changes, against plain training of the same seeds."""
    cells = []
    for n in (50, 100):
        grouped = {
            method: rows for (_, _, method, steps), rows in groups_of(results, ("aspirin", n)) if steps == 10_000
        }
        for method, rows in sorted(grouped.items()):
            if method != "PaiNN" and "curvature" not in method:
                continue
            validation = f"{np.mean([_validation(row) for row in rows]):.1f}"
            teacher, coefficient, change, p = "none", "", "", ""
            if method != "PaiNN":
                settings = METHODS[method]
                teacher, coefficient = settings["weak.teacher"], settings.get("weak.coefficient", 1)
                change, p = _change(pairs_of(grouped["PaiNN"], rows))
            cells.append([n, teacher, coefficient, len(rows), validation, *_both(rows, 1), change, p])
    heads = ["frames", "teacher", "coefficient", "seeds", "validation, meV/Å", "energies, meV", "forces, meV/Å"]
    lines = table([*heads, "change", "p"], cells)
    return "\n".join([*lines, "", _missing(results, "teacher-curvature")])


def control_table(results: Results) -> str:
    """Return what structures far from the data cost near them, and what they give far from them."""
    heads = ["far from the data", "seeds", "forces, meV/Å", "change (same seeds)", "energies, meV", *FAR]
    lines = []
    grouped = {method: rows for (_, _, method, _), rows in groups_of(results, ("ethanol", 950))}
    plain = grouped.get("TensorNet", [])
    for method in CONTROLLED:
        if not (rows := grouped.get(method, [])):
            continue
        pairs = pairs_of(plain, rows)
        change = "" if method == "TensorNet" or not pairs else _change(pairs)[0]
        cells = [ASKED.get(method, method), len(rows), _spread(_forces(rows), 2), change]
        cells.append(_spread([row["mae"]["energy"] for row in rows], 2))
        far = [row["far"] for row in rows if "far" in row]
        for source in FAR:
            cells.append(_spread([errors["forces"][source] for errors in far], 2) if far else "")
        cells.append(", ".join(str(len(errors["flags"])) for errors in far))
        lines.append(cells)
    return "\n".join([*table([*heads, "flags (each seed)"], lines), "", _missing(results, "control")])


def dynamics_table(results: Results) -> str:
    """Return how many trajectories of each training are stable, and for how long, at each temperature."""
    heads = ["data, frames", "training", "temperature", "models", "stable", "mean stable time", "ended by"]
    cells = []
    found: dict[tuple[str, int, str, int, int], list[Any]] = {}
    for row in results.values():
        found.setdefault((row["data"], row["n_train"], row["method"], row["temperature_K"], row["steps"]), []).append(
            row
        )
    for (data, n, method, temperature, _), rows in sorted(found.items()):
        times = [time for row in rows for time in row["stable_ps"]]
        failures: Counter[str] = sum((Counter(row["failures"]) for row in rows), Counter())
        why = ", ".join(f"{reason.replace('_', ' ')}: {count}" for reason, count in failures.most_common())
        stable = f"{sum(row['stable'] for row in rows)} of {len(times)}"
        length = f"{np.mean(times):.1f} of {PICOSECONDS[temperature]} ps"
        cells.append([f"{data}, {n}", method, f"{temperature} K", len(rows), stable, length, why])
    missing = sum(f"{row.key}/{temperature} K" not in results for row in DYNAMICS for temperature in PICOSECONDS)
    command = "`python benchmarks/studies/sparse_md.py` runs them"
    return "\n".join(
        [
            *table(heads, cells),
            "",
            f"Not run: {missing} of {len(PICOSECONDS) * len(DYNAMICS)} sets of 8 trajectories; {command}.",
        ]
    )


TABLES: dict[str, Callable[[Results], str]] = {
    "few": few_table,
    "weak": weak_table,
    "trials": trials_table,
    "teacher": teacher_table,
    "kinds": kinds_table,
    "curvature": curvature_table,
    "control": control_table,
}


def groups_of(results: Results, *wanted: tuple[str, int]) -> Iterator[tuple[tuple[str, int, str, int], list[Any]]]:
    """Rows of the data sets that are `wanted`, by data, frames, method and steps, those of all seeds together."""
    found: dict[tuple[str, int, str, int], list[Any]] = {}
    for row in results.values():
        if (row["data"], row["n_train"]) in wanted:
            steps = row["steps"] or DATA[row["data"]].steps
            found.setdefault((row["data"], row["n_train"], row["method"], steps), []).append(row)
    for key in sorted(found):
        yield key, sorted(found[key], key=lambda row: row["seed"])


def pairs_of(plain: Sequence[Any], others: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Rows of the same seeds."""
    by_seed = {row["seed"]: row for row in others}
    return [(row, by_seed[row["seed"]]) for row in plain if row["seed"] in by_seed]


def _change(pairs: Sequence[tuple[Any, Any]]) -> tuple[str, str]:
    """Return the mean change of the error in percent, and the p value of a paired t test where it has one.

    The error is that of the forces, or of the energies where there are no other labels.
    """
    kind = "forces" if "forces" in pairs[0][0]["mae"] else "energy"
    before, after = (np.array([row["mae"][kind] for row in rows]) for rows in zip(*pairs, strict=True))
    p = f"{ttest_rel(before, after).pvalue:.2g}" if len(pairs) > 2 else "one seed" if len(pairs) == 1 else "two seeds"
    return _percent((after / before - 1).mean(), 1), p


def _validation(row: dict[str, Any]) -> float:
    return min(error for _, error in row["curve"])


def _percent(value: float, digits: int) -> str:
    return f"{100 * value:+.{digits}f} %".replace("-", "−")


def _both(rows: Sequence[Any], digits: int) -> tuple[str, str]:
    """Return the errors of energies and forces as text."""
    energies = _spread([row["mae"]["energy"] for row in rows], 1)
    return energies, _spread(_forces(rows), digits) if "forces" in rows[0]["mae"] else "no labels"


def _forces(rows: Sequence[Any]) -> list[float]:
    return [row["mae"]["forces"] for row in rows]


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _cost(method: str, rows: Sequence[Any]) -> str:
    known = [row["cpu_seconds"] for row in rows if row["cpu_seconds"] is not None]
    # The first seed of a shared start pays for it.
    typical = np.max if METHODS[method].get("shared") else np.median
    return f"{typical(known) / 60:.1f} min" if known else "in parts"


def _missing(results: Results, *parts: str) -> str:
    rows: list[Row] = [row for part in parts for row in PARTS[part]()]
    missing, names = sum(row.key not in results for row in rows), " ".join(parts)
    command = f"`python benchmarks/studies/sparse.py run {names}`"
    if not missing:
        return f"All {len(rows)} trainings of {command} were run."
    return f"Of the {len(rows)} trainings of {command}, {missing} {'was' if missing == 1 else 'were'} not run."
