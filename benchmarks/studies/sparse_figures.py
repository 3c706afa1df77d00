"""Figures of the study of sparse data: validation errors, stable times, and what PIWSL changes in fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import COLOURS, LEGEND, new_figure, tidy
from benchmarks.studies.dots import Dots, dots_figure
from benchmarks.studies.panels import survival_figure
from benchmarks.studies.sparse_report import COPIES, FIRST, RECIPE, groups_of, pairs_of
from benchmarks.studies.sparse_rows import FEW_OF, PICOSECONDS

__all__ = ["write_figures"]

Results = dict[str, dict[str, Any]]
HOT_K = 1200
HOTTER = "TensorNet, corrected xtb first, 1200 K, far"
# Of one table each; the others are between them.
SURVIVORS = {
    50: (
        "TensorNet",
        "TensorNet, first",
        "fine-tuned",
        "fine-tuned, first",
        RECIPE,
        "fine-tuned, xtb first, 1500 K, far",
    ),
    100: ("PaiNN", "PaiNN, xtb first, 1500 K in turn", RECIPE, HOTTER, "fine-tuned, xtb first, far"),
}
SETS = {"3bpa": "3BPA", "limno": "Li-Mn oxide", "tio2": "TiO2", "formic-acid-dimer": "formic acid dimer"}
NAMED = {RECIPE: "our recipe (corrected xtb first, far)", HOTTER: "our recipe, frames at 1200 K"}
# Coefficients that the trials on aspirin chose.
CHOSEN = {"first": "first × 0.1", "antithetic": "antithetic × 0.01"}


def write_figures(results: Results, dynamics: Results, folder: Path) -> None:
    """Write all figures."""
    save_figure(curves_figure(results), folder / "sparse_curves.png")
    title = f"Aspirin at {HOT_K} K: trajectories still stable (their number in brackets)"
    survival_figure(survivors(dynamics), length_ps=PICOSECONDS[HOT_K], title=title, path=folder / "sparse_dynamics.png")
    title = "What PIWSL changes in fine-tuning: small dots are seeds"
    dots_figure(weak_panels(results), title=title, path=folder / "sparse_weak.png")


def survivors(dynamics: Results) -> dict[str, dict[str, list[float]]]:
    """Return the stable times of aspirin at the high temperature, ps: panel → training → one for each trajectory."""
    found: dict[str, dict[str, list[float]]] = {}
    hot = [row for row in dynamics.values() if (row["data"], row["temperature_K"]) == ("aspirin", HOT_K)]
    for n, methods in SURVIVORS.items():
        for method in methods:
            for row in hot:
                if (row["n_train"], row["method"]) == (n, method):
                    label = NAMED.get(method, method)
                    found.setdefault(f"{n} frames", {}).setdefault(label, []).extend(row["stable_ps"])
    return found


def weak_panels(results: Results) -> list[Dots]:
    """Return the change of the error by the chosen coefficients: percent for forces, a factor for energies alone."""
    grouped = dict(groups_of(results, ("aspirin", 50), *FEW_OF))
    values: dict[str, dict[str, dict[str, list[float]]]] = {"forces": {}, "energy": {}}
    for (data, n, method, steps), rows in grouped.items():
        name = {f"fine-tuned, {chosen}": order for order, chosen in CHOSEN.items()}.get(method)
        pairs = pairs_of(grouped.get((data, n, "fine-tuned", steps), []), rows)
        if name is None or not pairs:
            continue
        kind = "forces" if "forces" in rows[0]["mae"] else "energy"
        ratios = [after["mae"][kind] / before["mae"][kind] for before, after in pairs]
        shown = [100 * (ratio - 1) for ratio in ratios] if kind == "forces" else ratios
        values[kind].setdefault(name, {})[f"{SETS.get(data, data)}, {n}"] = shown
    names = {
        kind: list(dict.fromkeys(row for of_loss in found.values() for row in of_loss))
        for kind, found in values.items()
    }
    ordered = {kind: {name: found[name] for name in CHOSEN if name in found} for kind, found in values.items()}
    return [
        Dots("Forces", "change of the error, %", names["forces"], ordered["forces"], 0.0),
        Dots(
            "Energies of CCSD(T) alone",
            "error over that of plain fine-tuning",
            names["energy"],
            ordered["energy"],
            1.0,
            log=True,
            ticks=(1, 2, 5, 10),
        ),
    ]


def curves_figure(results: Results) -> Figure:
    """Draw the validation errors of the forces against steps: 50 frames of aspirin, and 100 with a teacher."""
    figure = new_figure(9.5, 4.2, "Forces on validation frames of aspirin, one line for each training")
    left, right = figure.subplots(1, 2)
    for axes, n, names in (
        (
            left,
            50,
            ("TensorNet", *(f"fine-tuned{first}" for first in (*FIRST[:3], ", xtb first, 1500 K, far")), RECIPE),
        ),
        (
            right,
            100,
            tuple(f"{network}{first}" for network in ("TensorNet", "PaiNN") for first in FIRST if first != COPIES),
        ),
    ):
        for name, colour in zip(names, COLOURS, strict=False):
            rows = [r for r in results.values() if (r["data"], r["n_train"], r["method"]) == ("aspirin", n, name)]
            for k, row in enumerate(rows):
                steps, errors = np.array(row.get("curve") or [[np.nan, np.nan]]).T
                axes.plot(steps, errors, color=colour, lw=1.3, label=name if k == 0 else None)
        axes.set(xscale="log", yscale="log", xlabel="gradient steps on the labels", title=f"{n} frames")
        axes.set_yticks([20, 30, 40, 60, 80, 120, 200, 400, 800], minor=False)
        axes.set_yticks([], minor=True)
        axes.xaxis.set_minor_formatter(NullFormatter())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_ylim(20, 800)
        axes.legend(**LEGEND)
    left.set_ylabel("mean absolute error, meV/Å")
    tidy(left, right)
    return figure
