"""Tables and figures of the PIWSL study.

    python benchmarks/studies/piwsl_report.py  # reads results/piwsl_*.json, writes piwsl_study.md and figures

Errors are RMSE on the test frames, mean ± standard deviation over the seeds; figures show rows with all seeds.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.studies.markdown_tables import table  # noqa: E402
from benchmarks.studies.panels import Curve, Panel, curves_figure, survival_figure  # noqa: E402
from benchmarks.studies.piwsl_rows import SEEDS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
KINDS = {
    "painn": "conservative PaiNN",
    "painn-direct": "PaiNN with a force head",
    "schnet": "conservative SchNet",
    "escn-direct": "eSCN with a force head",
    "equiformer-direct": "EquiformerV2 with a force head",
    "equiformer": "conservative EquiformerV2",
    "spinconv-direct": "SpinConv with a force head",
    "painn 64": "conservative PaiNN 64",
    "painn 64, direct": "PaiNN 64 with a force head",
    "tensornet 64": "conservative TensorNet 64",
    "tensornet 64, direct": "TensorNet 64 with a force head",
}
Group = tuple[str, int, str, float, str]  # data, frames, model, force weight, loss


def main() -> None:
    """Write everything that the results allow."""
    every = grouped(json.loads((RESULTS / "piwsl_study.json").read_text()))
    groups = {group: rows for group, rows in every.items() if len(rows) == len(SEEDS)}
    text = "\n\n".join(tables(every))
    md = RESULTS / "piwsl_md.json"
    if md.exists():
        text += "\n\n" + dynamics(json.loads(md.read_text()))
    (RESULTS / "piwsl_study.md").write_text(text + "\n")
    print(text)
    sparse_figure(groups)
    epsilon_figure(groups)


def grouped(results: dict[str, dict[str, Any]]) -> dict[Group, list[dict[str, Any]]]:
    """Rows of the same settings, those of all seeds together."""
    groups: dict[Group, list[dict[str, Any]]] = defaultdict(list)
    for row in results.values():
        groups[row["data"], row["n_train"], row["model"], row["forces_weight"], row["loss"]].append(row)
    return groups


def tables(groups: dict[Group, list[dict[str, Any]]]) -> Iterator[str]:
    """One table for each data set, size and model."""
    for data, n_train, model, weight in sorted({group[:4] for group in groups}):
        rows = {group[4]: rows for group, rows in groups.items() if group[:4] == (data, n_train, model, weight)}
        labels = "" if weight else ", energies only"
        lines = [f"### {data}, {n_train} training frames, {KINDS[model]}{labels}", ""]
        heads = ["loss", "seeds", "energy, meV", "forces, meV/Å", "curl", "steps", "CPU s"]
        lines += table(heads, [_cells(loss, rows[loss]) for loss in sorted(rows, key=_order)])
        yield "\n".join(lines)


def _cells(loss: str, rows: list[dict[str, Any]]) -> list[str]:
    curl = [row["curl"] for row in rows]
    seconds = [row["cpu_seconds"] for row in rows if row["cpu_seconds"] is not None]
    return [
        loss,
        str(len(rows)),
        _mean([row["rmse"]["energy"] for row in rows]),
        _mean([row["rmse"]["forces"] for row in rows]) if "forces" in rows[0]["rmse"] else "",
        "" if None in curl else _mean(curl, 3),
        f"{np.mean([row['steps'] for row in rows]):.0f}",
        f"{np.mean(seconds):.0f}" if seconds else "",
    ]


def dynamics(results: dict[str, dict[str, Any]]) -> str:
    """Table of the trajectories, and the figure of survival."""
    runs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    length = max(row["picoseconds"] for row in results.values())
    models = Counter(key.rsplit("/", 1)[0] for key in results)
    for key, row in results.items():
        if models[key.rsplit("/", 1)[0]] < len(SEEDS):
            continue
        frames, model, loss = key.split("/")[:3]
        runs[f"{frames.split()[1]} frames, {KINDS[model]}"][loss].extend(row["stable_ps"])
    cells = []
    for name, losses in runs.items():
        for loss in sorted(losses, key=_order):
            times = losses[loss]
            stable = sum(time >= length for time in times)
            cells.append([name, loss, len(times), stable, f"{np.mean(times):.1f}"])
    ordered = {name: {loss: losses[loss] for loss in sorted(losses, key=_order)} for name, losses in runs.items()}
    survival_figure(
        ordered, length_ps=length, title="Aspirin at 500 K: trajectories still stable", path=RESULTS / "piwsl_md.png"
    )
    heads = ["model", "loss", "trajectories", "stable", "mean stable time, ps"]
    return "\n".join([f"### Dynamics of aspirin at 500 K, {length:g} ps", "", *table(heads, cells)])


def sparse_figure(groups: dict[Group, list[dict[str, Any]]]) -> None:
    """Errors against the number of training frames."""
    for data in ("aspirin", "ethanol"):
        panels = []
        for model in ("painn", "painn-direct"):
            for quantity, unit in (("energy", "meV"), ("forces", "meV/Å")):
                curves = list(_curves(groups, data, model, quantity))
                if curves:
                    title = KINDS[model]
                    panels.append(Panel(title, "training frames", f"{quantity} RMSE ({unit})", curves))
        if panels:
            title = f"{data.capitalize()}: test errors against the number of training frames"
            curves_figure(panels, title=title, path=RESULTS / f"piwsl_{data}.png")


def _curves(groups: dict[Group, list[dict[str, Any]]], data: str, model: str, quantity: str) -> Iterator[Curve]:
    for loss in ("plain", "plain, 2 x steps", "first", "trapezoid", "antithetic"):
        sizes = sorted(g[1] for g in groups if (g[0], g[2], g[3], g[4]) == (data, model, 100.0, loss))
        values = [[row["rmse"][quantity] for row in groups[data, n, model, 100.0, loss]] for n in sizes]
        if len(sizes) > 1:
            yield Curve(loss, sizes, [np.mean(v) for v in values], [np.std(v) for v in values])


def epsilon_figure(groups: dict[Group, list[dict[str, Any]]]) -> None:
    """Errors against epsilon, for each order, at 100 frames of aspirin; the line is the plain training."""
    panels = []
    for model in ("painn", "painn-direct"):
        for quantity, unit in (("energy", "meV"), ("forces", "meV/Å")):
            curves = []
            for order in ("first", "trapezoid", "antithetic"):
                points = {0.05: order} | {e: f"{order}, epsilon {e:g}" for e in (0.005, 0.02, 0.1)}
                found = {e: groups.get(("aspirin", 100, model, 100.0, name)) for e, name in sorted(points.items())}
                values = {e: [row["rmse"][quantity] for row in rows] for e, rows in found.items() if rows}
                if len(values) > 1:
                    means, spreads = [np.mean(v) for v in values.values()], [np.std(v) for v in values.values()]
                    curves.append(Curve(order, list(values), means, spreads))
            plain = groups.get(("aspirin", 100, model, 100.0, "plain"))
            if curves and plain:
                level = float(np.mean([row["rmse"][quantity] for row in plain]))
                panels.append(Panel(KINDS[model], "ε (Å)", f"{quantity} RMSE ({unit})", curves, level))
    if panels:
        title = "Aspirin, 100 frames: errors against ε (dashed: plain training)"
        curves_figure(panels, title=title, path=RESULTS / "piwsl_epsilon.png")


def _mean(values: list[float], digits: int = 1) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values):.{digits}f}"


def _order(loss: str) -> tuple[bool, str]:
    return (not loss.startswith("plain"), loss)


if __name__ == "__main__":
    main()
