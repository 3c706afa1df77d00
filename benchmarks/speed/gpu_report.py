"""Table and figure of what gpu.py measured, and how it stands to what the project wants of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from asecalc_mlip.engine.base import EngineName
from asecalc_mlip.files import replacing
from asecalc_mlip.plots.style import COLOURS, LEGEND, new_figure, tidy

__all__ = ["report", "verdicts"]

ENGINES = get_args(EngineName)


@dataclass(frozen=True)
class Goal:
    """One thing that is to be shown: a number from the rows, or None where they are missing, and its bound."""

    text: str
    value: Callable[[dict[str, Any]], float | None]
    bound: float
    at_most: bool = True


def verdicts(done: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each goal with its number and whether it is reached; None where it is not measured."""
    found = []
    for goal in GOALS:
        value = goal.value(done)
        reached = None if value is None else (value <= goal.bound if goal.at_most else value >= goal.bound)
        found.append({"goal": goal.text, "value": value, "bound": goal.bound, "reached": reached})
    return found


def report(done: dict[str, Any], folder: Path) -> None:
    """Write gpu_check.md and gpu_check.png."""
    with replacing(folder / "gpu_check.md") as temporary:
        temporary.write_text("\n".join(_page(done)) + "\n")
    if any(_calls(done)):
        with replacing(folder / "gpu_check.png") as temporary:
            _figure(done, temporary)


def _page(done: dict[str, Any]) -> list[str]:
    machine = done.get("machine", {})
    device = machine.get("device")
    lines = ["# GPU check", "", f"Device: {device or 'not measured'}. torch {machine.get('torch', '-')}."]
    lines += ["", "| goal | bound | measured | reached |", "|---|---|---|---|"]
    words = {True: "yes", False: "no", None: "not measured"}
    for one in verdicts(done):
        value = "not measured" if one["value"] is None else f"{one['value']:.4g}"
        lines.append(f"| {one['goal']} | {one['bound']:g} | {value} | {words[one['reached']]} |")
    lines += ["", "| row | numbers |", "|---|---|"]
    for key, row in done.items():
        shown = {name: _number(value) for name, value in row.items() if name != "row_s" and value is not None}
        lines.append(f"| {key} | {', '.join(f'{name} {value}' for name, value in shown.items())} |")
    return lines


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")


def _figure(done: dict[str, Any], path: Path) -> None:
    figure = new_figure(9, 3.6, f"PaiNN on {done.get('machine', {}).get('device', 'an unknown device')}, float32")
    left, right = figure.subplots(1, 2)
    panels = (
        (left, _calls(done), "atoms", "ms per call"),
        (right, _batches(done), "aspirins at once", "atoms per second"),
    )
    for axes, curves, x, y in panels:
        for engine, points in curves.items():
            colour = COLOURS[ENGINES.index(engine) % len(COLOURS)]
            axes.loglog(*zip(*sorted(points), strict=True), "o-", label=engine, color=colour, ms=4)
        axes.set(xlabel=x, ylabel=y)
        axes.legend(**LEGEND)
    tidy(left, right)
    figure.savefig(path, format="png", dpi=150)


def _calls(done: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for key, row in done.items():
        parts = key.split(", ")
        if parts[:2] == ["call", "painn"] and parts[4] == "float32" and "ms" in row:
            found.setdefault(parts[3], []).append((row["atoms"], row["ms"]))
    return found


def _batches(done: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for key, row in done.items():
        if key.startswith("batch, painn, ") and "ms" in row:
            _, _, size, engine = key.split(", ")
            found.setdefault(engine, []).append((int(size.split()[0]), row["atoms_per_s"]))
    return found


def _least(done: dict[str, Any], start: str, name: str) -> float | None:
    """Smallest number of a kind among the rows of engines for a GPU."""
    values = [row[name] for key, row in done.items() if key.startswith(start) and "eager" not in key and name in row]
    return min(values, default=None)


def _most(done: dict[str, Any], starts: tuple[str, ...], name: str) -> float | None:
    return max((row[name] for key, row in done.items() if key.startswith(starts) and name in row), default=None)


def _over_eager(done: dict[str, Any]) -> float | None:
    eager = done.get("call, painn, aspirin, eager, float32", {}).get("ms")
    ours = _least(done, "call, painn, aspirin, ", "ms")
    return None if eager is None or ours is None else eager / ours


def _parity(done: dict[str, Any]) -> float | None:
    exact = {key: row for key, row in done.items() if "tf32" not in key and "bf16" not in key}
    return _most(exact, ("call, ", "shipped, "), "energy_error_eV_per_atom")


def _training_parity(done: dict[str, Any]) -> float | None:
    return _most(done, ("training parity, ",), "gradient_error")


GOALS = (
    Goal("aspirin, ms per call", lambda done: _least(done, "call, painn, aspirin, ", "ms"), 0.5),
    Goal("aspirin, times eager", _over_eager, 5.0, at_most=False),
    Goal("quartz of 2 025 atoms, ms per call", lambda done: _least(done, "call, painn, quartz-2025, ", "ms"), 1.0),
    Goal("batches, atoms per second", lambda done: _most(done, ("batch, ",), "atoms_per_s"), 5e6, at_most=False),
    Goal("float32, largest error of an energy, eV per atom", _parity, 1e-6),
    Goal("training, relative error of the gradient by weights", _training_parity, 1e-4),
    Goal("tests marked gpu that fail", lambda done: _most(done, ("tests ",), "tests_failed"), 0),
)
