"""Figures of the speed benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import BLUE, GREY, INK, LINE, SMALL, new_figure, plain, tidy
from asecalc_mlip.units import threads_text

__all__ = ["bench_report", "comparison", "costs", "peers", "size_scaling"]

COLOURS = {"schnetpack": GREY, "ours": BLUE}
_OURS = "PIWSLCalculator, PaiNN"
_GIGABYTES = (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 50, 100)


def comparison(rows: Mapping[str, Mapping[str, Any]], *, path: str | Path) -> None:
    """Draw bars of ms per step, two threads, one panel per architecture; rows as in benchmarks/results/speed.json."""
    figure = new_figure(10, 4.2)
    for k, architecture in enumerate(("painn", "schnet")):
        axes = figure.add_subplot(1, 2, k + 1)
        chosen = {n: r for n, r in rows.items() if n.startswith(architecture) and n.endswith("2 threads")}
        if not chosen:
            continue
        names = [name.split(", ")[1] for name in chosen]
        for shift, side in ((-0.2, "schnetpack"), (0.2, "ours")):
            label = {"schnetpack": "SchNetPack SpkCalculator", "ours": "PIWSLCalculator"}[side]
            values = [row[f"{side}_ms"] for row in chosen.values()]
            bars = axes.bar([x + shift for x in range(len(names))], values, 0.38, color=COLOURS[side], label=label)
            texts = [_number(v) for v in values]
            if side == "ours":
                texts = [f"{_number(v)}\n{row['ratio']:.1f}×" for v, row in zip(values, chosen.values(), strict=True)]
            axes.bar_label(bars, texts, fontsize=7, padding=2)
        axes.set_yscale("log")
        axes.set_ylim(top=3 * axes.get_ylim()[1])
        axes.set_xticks(range(len(names)), names, fontsize=8)
        title = {"painn": "PaiNN", "schnet": "SchNet"}[architecture]
        axes.set(ylabel="ms per energy + forces", title=f"{title} 128 × 3, float32, 2 threads")
        tidy(axes)
        axes.legend(**SMALL, loc="upper left")
    save_figure(figure, path)


def size_scaling(rows: Mapping[str, Mapping[str, Any]], *, path: str | Path) -> None:
    """Time per step and memory against the number of atoms; rows as in benchmarks/results/speed_scaling.json."""
    sizes = sorted((row for row in rows.values() if "ours_ms" in row), key=lambda row: row["atoms"])
    if not sizes:
        return
    figure = new_figure(8.5, 3.8)
    for k, (key, label) in enumerate((("ours_ms", "ms per energy + forces"), ("peak_memory_GB", "peak memory (GB)"))):
        axes = figure.add_subplot(1, 2, k + 1)
        axes.plot([row["atoms"] for row in sizes], [row[key] for row in sizes], "o-", color=COLOURS["ours"], ms=4)
        axes.set(xscale="log", yscale="log", xlabel="atoms (α-quartz)", ylabel=label)
        if key == "peak_memory_GB":
            axes.set_yticks(_GIGABYTES, [f"{size:g}" for size in _GIGABYTES])
            axes.yaxis.set_minor_formatter(NullFormatter())
            low, high = min(row[key] for row in sizes), max(row[key] for row in sizes)
            axes.set_ylim(0.8 * low, 1.25 * high)
        tidy(axes)
    save_figure(figure, path)


def costs(rows: Mapping[str, Mapping[str, Any]], *, path: str | Path, threads: int = 1) -> None:
    """Draw ms per call and training step of every architecture; rows as in benchmarks/results/architectures.json."""
    calls, steps = (rows.get(f"{what}, {threads} threads", {}) for what in ("aspirin", "training step"))
    names = sorted((name for name in steps if name != "machine"), key=lambda name: float(steps[name]["ms"]))
    if not names:
        return
    figure = new_figure(9.5, 1.2 + 0.3 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    for shift, engine, colour in ((-0.2, "auto", BLUE), (0.2, "eager", GREY)):
        there = [(k, calls[f"{name}, {engine}"]["ms"]) for k, name in enumerate(names) if f"{name}, {engine}" in calls]
        label = {"auto": "engine of “auto”", "eager": "autograd"}[engine]
        bars = left.barh([k + shift for k, _ in there], [ms for _, ms in there], 0.38, color=colour, label=label)
        left.bar_label(bars, [_number(ms) for _, ms in there], fontsize=7, padding=2)
    bars = right.barh(range(len(names)), [steps[name]["ms"] for name in names], 0.6, color=BLUE)
    right.bar_label(bars, [_number(steps[name]["ms"]) for name in names], fontsize=7, padding=2)
    left.set(xlabel="ms per energy + forces, aspirin")
    right.set(xlabel="ms per training step, 10 aspirins")
    # Older rows of steps have no number of parameters; those of calls do.
    sizes = [{**calls.get(f"{name}, eager", {}), **steps[name]}.get("parameters") for name in names]
    labels = [n if size is None else f"{n}  ({size / 1000:.0f} k)" for n, size in zip(names, sizes, strict=True)]
    left.set_yticks(range(len(names)), labels, fontsize=8)
    left.invert_yaxis()
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlim(right=3 * axes.get_xlim()[1])
    tidy(left, right)
    left.legend(**SMALL, loc="upper right")
    save_figure(figure, path)


def peers(rows: Mapping[str, Mapping[str, Any]], *, path: str | Path, threads: int = 2) -> None:
    """Draw bars of ms per step, one panel per structure, ours first; rows as in benchmarks/results/speed_peers.json."""
    chosen = [
        (name.split(", ")[0], name.split(", ")[1], row) for name, row in rows.items() if row["threads"] == threads
    ]
    if not chosen:
        return peers(rows, path=path, threads=next(iter(rows.values()))["threads"])
    systems = sorted({system: row["atoms"] for _, system, row in chosen}.items(), key=lambda item: item[1])
    names = list(dict.fromkeys(name for name, _, _ in chosen))
    figure = new_figure(2.6 + 2.25 * len(systems), 1.5 + 0.47 * len(names))
    panels = figure.subplots(1, len(systems), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (system, atoms) in zip(panels, systems, strict=True):
        _peer_panel(axes, names, {name: row for name, where, row in chosen if where == system})
        axes.set_title(f"{system.split()[0]}, {atoms} atoms", fontsize=10, color=INK)
    sizes = {name: row["peer"] for name, _, row in chosen}
    labels = [f"{_OURS}\n{_peer_size(chosen[0][2]['ours'])}", *(f"{name}\n{_peer_size(sizes[name])}" for name in names)]
    panels[0].set_yticks(range(len(labels)), labels, fontsize=8)
    panels[0].get_yticklabels()[0].set(color=COLOURS["ours"], fontweight="bold")
    panels[0].invert_yaxis()
    figure.supxlabel(
        f"ms per energy + forces, neighbour list included; float32, CPU, {threads_text(threads)}", fontsize=9
    )
    save_figure(figure, path)


def bench_report(report: Mapping[str, Any], *, path: str | Path) -> None:
    """Draw a `BenchReport.to_dict()`: structures, and scaling and batches where they are."""
    panels = [name for name in ("structures", "scaling", "batches") if report[name]]
    figure = new_figure(1.0 + 4.2 * len(panels), 3.8)
    draw = {"structures": _structure_panel, "scaling": _scaling_panel, "batches": _batch_panel}
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw[name](axes, report[name])
        tidy(axes)
    model, machine = report["model"], report["machine"]
    figure.suptitle(plain(f"{model['name']}: {model['engine']}, {model['dtype']}; {machine['processor']}"), fontsize=10)
    save_figure(figure, path)


def _peer_panel(axes: Any, names: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> None:
    ours = float(np.median([row["ours_ms"] for row in rows.values()]))
    axes.barh(0, ours, 0.62, color=COLOURS["ours"])
    axes.text(ours, 0, f" {_number(ours)}", va="center", fontsize=8, color=COLOURS["ours"], fontweight="bold")
    for k, name in enumerate(names, start=1):
        if name not in rows:
            axes.text(
                0.02, k, "not measured", va="center", fontsize=7, color=GREY, transform=axes.get_yaxis_transform()
            )
            continue
        axes.barh(k, rows[name]["peer_ms"], 0.62, color=COLOURS["schnetpack"])
        text = f" {_number(rows[name]['peer_ms'])}  ({_ratio(rows[name]['ratio'])})"
        axes.text(rows[name]["peer_ms"], k, text, va="center", fontsize=8, color=INK)
    axes.set_xscale("log")
    # Room for the labels beside the bars.
    longest = max(row["peer_ms"] for row in rows.values())
    axes.set_xlim(0.5, max(axes.get_xlim()[1], 60 * longest))
    axes.set_xticks([1, 100, 10_000], ["1", "100", "10 000"])
    axes.set_xticks([10, 1000, 100_000], [], minor=True)
    axes.grid(True, axis="x", which="both", color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _peer_size(peer: Mapping[str, Any]) -> str:
    return f"{peer['parameters'] / 1e6:.1f} M parameters, {peer['cutoff']:g} Å"


def _structure_panel(axes: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    x, ours = np.arange(len(rows)), [row["ours_ms"] for row in rows.values()]
    against = all("ratio" in row for row in rows.values())
    bars = axes.bar(x + (0.2 if against else 0.0), ours, 0.38, color=COLOURS["ours"], label="PIWSLCalculator")
    axes.bar_label(bars, [_number(value) for value in ours], fontsize=8, padding=2)
    if against:
        theirs = [row["schnetpack_ms"] for row in rows.values()]
        bars = axes.bar(x - 0.2, theirs, 0.38, color=COLOURS["schnetpack"], label="SchNetPack")
        axes.bar_label(bars, [_number(value) for value in theirs], fontsize=8, padding=2)
        axes.legend(**SMALL, loc="upper left")
    axes.set(yscale="log", ylabel="ms per energy + forces")
    axes.set_ylim(top=4 * axes.get_ylim()[1])
    names = [f"{Path(name).stem}\n{row['atoms']} atoms" for name, row in rows.items()]
    axes.set_xticks(x, names, fontsize=8)


def _scaling_panel(axes: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    axes.plot([r["atoms"] for r in rows.values()], [r["ours_ms"] for r in rows.values()], "o-", color=COLOURS["ours"])
    axes.set(xscale="log", yscale="log", xlabel="atoms", ylabel="ms per energy + forces")
    atoms = sorted({row["atoms"] for row in rows.values()})
    axes.set_xticks(atoms, [f"{n}" for n in atoms])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _batch_panel(axes: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    rates = [row["molecules_per_second"] for row in rows.values()]
    bars = axes.bar(range(len(rows)), rates, 0.6, color=COLOURS["ours"])
    axes.bar_label(bars, [f"{rate:.0f}" for rate in rates], fontsize=8, padding=2)
    axes.set_xticks(range(len(rows)), [str(row["batch"]) for row in rows.values()])
    axes.set(xlabel="structures at once", ylabel="structures per second")


def _ratio(value: float) -> str:
    return f"{value:.0f}×" if value >= 10 else f"{value:.1f}×"


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u2009") if value >= 100 else f"{value:.3g}"
