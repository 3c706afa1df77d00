"""Tables and figures of the EAM study.

    python benchmarks/eam_report.py        # reads benchmarks/results/eam_*.json, writes eam_study.md and figures

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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.eam_rows import METHODS, MODELS, SEEDS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
NAMES = {"painn": "PaiNN", "cgcnn": "CGCNN", "torchmd_et": "TorchMD-ET"}
DATA_NAMES = {"silica": "silica zeolites", "limno": "Li-Mn-O electrodes", "tio2": "TiO2"}
Group = tuple[str, int, str, str]  # data, frames, model, method
Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Write everything that the results allow."""
    groups = grouped(json.loads((RESULTS / "eam_study.json").read_text()))
    text = "\n\n".join(errors(groups))
    (RESULTS / "eam_study.md").write_text(text + "\n")
    print(text)


def grouped(results: Rows) -> dict[Group, list[dict[str, Any]]]:
    """Rows of the same settings, all seeds there."""
    groups: dict[Group, list[dict[str, Any]]] = defaultdict(list)
    for row in results.values():
        groups[row["data"], row["n_train"], row["model"], row["method"]].append(row)
    return {group: rows for group, rows in groups.items() if len(rows) == len(SEEDS)}


def errors(groups: dict[Group, list[dict[str, Any]]]) -> Iterator[str]:
    """One table for each data set and size."""
    for data, n_train in sorted({group[:2] for group in groups}):
        lines = [f"### {DATA_NAMES[data]}, {n_train} training frames", ""]
        lines += ["| model | method | energy, meV/atom | forces, meV/Å | stress, meV/Å³ | steps | CPU s |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for _, _, model, method in _in_order(g for g in groups if g[:2] == (data, n_train)):
            rows = groups[data, n_train, model, method]
            mae = {name: [row["mae"][name] for row in rows] for name in rows[0]["mae"]}
            stress = _mean(mae["stress"], 2) if "stress" in mae else ""
            seconds = f"{np.mean([row['cpu_seconds'] for row in rows]):.0f}"
            cells = [_mean(mae["energy_per_atom"]), _mean(mae["forces"]), stress, str(rows[0]["steps"]), seconds]
            lines.append(f"| {NAMES[model]} | {method} | {' | '.join(cells)} |")
        yield "\n".join(lines)


def _in_order(groups: Any) -> list[Group]:
    return sorted(groups, key=lambda g: (list(MODELS).index(g[2]), METHODS.index(g[3])))


def _mean(values: list[float], digits: int = 1) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


if __name__ == "__main__":
    main()
