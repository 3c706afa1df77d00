"""Figures of the speed benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["comparison", "size_scaling"]

_COLORS = {"schnetpack": "#9aa4ad", "ours": "#1f5a99"}


def comparison(rows: Mapping[str, Mapping[str, Any]], *, path: str | Path) -> None:
    """Bars of ms per step, two threads, one panel per architecture; rows as in benchmarks/results/speed.json."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for k, architecture in enumerate(("painn", "schnet")):
        axes = figure.add_subplot(1, 2, k + 1)
        chosen = {n: r for n, r in rows.items() if n.startswith(architecture) and n.endswith("2 threads")}
        names = [name.split(", ")[1] for name in chosen]
        for shift, side in ((-0.2, "schnetpack"), (0.2, "ours")):
            label = {"schnetpack": "SchNetPack SpkCalculator", "ours": "PIWSLCalculator"}[side]
            values = [row[f"{side}_ms"] for row in chosen.values()]
            bars = axes.bar([x + shift for x in range(len(names))], values, 0.38, color=_COLORS[side], label=label)
            texts = [_number(v) for v in values]
            if side == "ours":
                texts = [f"{_number(v)}\n{row['ratio']:.1f}×" for v, row in zip(values, chosen.values(), strict=True)]
            axes.bar_label(bars, texts, fontsize=7, padding=2)
        axes.set_yscale("log")
        axes.set_ylim(top=3 * axes.get_ylim()[1])
        axes.set_xticks(range(len(names)), names, fontsize=8)
        title = {"painn": "PaiNN", "schnet": "SchNet"}[architecture]
        axes.set(ylabel="ms per energy + forces", title=f"{title} 128 × 3, float32, 2 threads")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left", fontsize=8)
    figure.savefig(path, dpi=150)


def size_scaling(rows: Mapping[str, Mapping[str, Any]], *, path: str | Path) -> None:
    """Time per step and memory against the number of atoms; rows as in benchmarks/results/speed_scaling.json."""
    sizes = sorted((row for row in rows.values() if "atoms" in row), key=lambda row: row["atoms"])
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    for k, (key, label) in enumerate((("ours_ms", "ms per energy + forces"), ("peak_memory_GB", "peak memory / GB"))):
        axes = figure.add_subplot(1, 2, k + 1)
        axes.plot([row["atoms"] for row in sizes], [row[key] for row in sizes], "o-", color=_COLORS["ours"], ms=4)
        axes.set(xscale="log", yscale="log", xlabel="atoms (α-quartz)", ylabel=label)
        axes.grid(True, color="#e6e9ec", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
