"""Figures of probes: phonons, equation of state, elastic constants, vibrations, scans. Draws only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from asecalc_mlip.files import save_figure
from asecalc_mlip.plots.style import BLUE, COLOURS, GREY, INK, LEGEND, ORANGE, RED, new_figure, tidy

if TYPE_CHECKING:
    from asecalc_mlip.probes.elastic import ElasticConstants
    from asecalc_mlip.probes.eos import EquationOfState
    from asecalc_mlip.probes.phonons import PhononResult
    from asecalc_mlip.probes.scans import Scan
    from asecalc_mlip.probes.vibrations import Vibrations

__all__ = ["elastic_figure", "eos_figure", "phonon_figure", "scan_figure", "vibration_figure"]

NAMES = {"G": "Γ", "GAMMA": "Γ"}


def phonon_figure(results: Sequence[PhononResult], *, path: str | Path, title: str = "") -> None:
    """Draw bands of one or several models over one another, density of states, heat capacity.

    Paths of several models are scaled to that of the first, whose cell may differ a little.
    """
    figure = new_figure(12.5, 4.4, title)
    bands, dos, heat = figure.subplots(1, 3, width_ratios=[2.6, 1.0, 1.3])
    first = results[0]
    length = first.path_1_per_A[-1]
    for k, one in enumerate(results):
        colour = COLOURS[k % len(COLOURS)]
        scaled = one.path_1_per_A * length / one.path_1_per_A[-1]
        jumps = (np.abs(np.diff(one.qpoints, axis=0)).max(axis=1) > 1e-6) & (np.diff(one.path_1_per_A) < 1e-9)
        gaps = np.flatnonzero(jumps) + 1  # where the path goes on elsewhere; no line across
        lines = bands.plot(
            np.insert(scaled, gaps, np.nan), np.insert(one.frequencies_THz, gaps, np.nan, axis=0), color=colour, lw=1.2
        )
        lines[0].set_label(one.model)
        dos.plot(one.dos_per_THz, one.dos_frequencies_THz, color=colour, lw=1.4)
        heat.plot(one.temperatures_K, one.heat_capacity_J_per_K_mol, color=colour, lw=1.8)
    ticks, names = _merged(first.label_positions_1_per_A, first.labels)
    bands.set_xticks(ticks, names)
    for tick in ticks:
        bands.axvline(tick, color=GREY, lw=0.6)
    lowest = min(one.lowest_THz for one in results)
    for axes in (bands, dos):
        axes.axhline(0.0, color=RED if lowest < -0.05 else GREY, lw=1.0)
        low = min(lowest, min(float(one.frequencies_THz.min()) for one in results))
        axes.set_ylim(1.05 * low if low < -0.05 else 0.0, 1.05 * max(float(r.frequencies_THz.max()) for r in results))
    bands.set_xlim(0.0, length)
    bands.set_ylabel("Frequency (THz; imaginary below 0)")
    dos.set_xlim(left=0.0)
    dos.set_xlabel("Density of states (1/THz)")
    heat.set(xlabel="Temperature (K)", ylabel="C$_v$ (J/K per mol of primitive cells)")
    heat.set_ylim(bottom=0.0)
    for axes in (bands, dos, heat):
        tidy(axes)
    bands.grid(False, axis="x")
    figure.legend(*bands.get_legend_handles_labels(), loc="outside lower center", ncols=4, **LEGEND)
    save_figure(figure, path)


def eos_figure(results: Sequence[EquationOfState], *, path: str | Path, title: str = "") -> None:
    """Draw energy per atom over volume per atom, relative to each model's own minimum."""
    figure = new_figure(6.0, 4.4, title)
    axes = figure.subplots()
    for k, one in enumerate(results):
        colour, n = COLOURS[k % len(COLOURS)], one.n_atoms
        fine = np.linspace(one.volumes_A3.min(), one.volumes_A3.max(), 200)
        label = f"{one.model}: V0 {one.equilibrium_volume_A3 / n:.3f} Å³, B0 {one.bulk_modulus_GPa:.1f} GPa"
        axes.plot(fine / n, 1e3 * (one.curve(fine) - one.equilibrium_energy_eV) / n, color=colour, lw=1.6, label=label)
        shown = 1e3 * (one.energies_eV - one.equilibrium_energy_eV) / n
        axes.plot(one.volumes_A3 / n, shown, "o", ms=5, mfc="white", mec=colour)
    axes.set(xlabel="Volume (Å³/atom)", ylabel="Energy − E0 (meV/atom)")
    axes.legend(loc="upper center", **LEGEND)
    tidy(axes)
    save_figure(figure, path)


def elastic_figure(result: ElasticConstants, *, path: str | Path, title: str = "") -> None:
    """Draw the matrix of elastic constants as numbers on colours."""
    figure = new_figure(5.6, 5.0, title)
    axes = figure.subplots()
    c = result.constants_GPa
    largest = float(np.abs(c).max())
    image = axes.imshow(c, cmap="RdBu_r", vmin=-largest, vmax=largest)
    for i in range(6):
        for j in range(6):
            shade = "white" if abs(c[i, j]) > 0.6 * largest else INK
            text = f"{c[i, j]:.0f}" if abs(c[i, j]) >= 10 else f"{c[i, j]:.1f}"
            axes.text(j, i, "0" if abs(c[i, j]) < 0.05 else text, ha="center", va="center", color=shade, fontsize=9)
    axes.set_xticks(range(6), ["xx", "yy", "zz", "yz", "xz", "xy"])
    axes.set_yticks(range(6), ["xx", "yy", "zz", "yz", "xz", "xy"])
    figure.colorbar(image, ax=axes, shrink=0.8, label="C (GPa)")
    save_figure(figure, path)


def vibration_figure(results: Sequence[Vibrations], *, path: str | Path, title: str = "") -> None:
    """Draw a row of sticks for each model, imaginary frequencies in red below zero."""
    figure = new_figure(9.0, 1.4 + 1.3 * len(results), title)
    grid = figure.subplots(len(results), 1, squeeze=False, sharex=True)[:, 0]
    for k, (axes, one) in enumerate(zip(grid, results, strict=True)):
        f = one.frequencies_cm1
        axes.vlines(f[f >= 0], 0, 1, color=COLOURS[k % len(COLOURS)], lw=1.2)
        axes.vlines(f[f < 0], 0, 1, color=RED, lw=1.8)
        axes.set_yticks([])
        axes.set_ylim(0, 1.35)
        text = f"{one.model}, {one.method}"
        axes.text(0.99, 0.97, text, transform=axes.transAxes, ha="right", va="top", fontsize=9, color=INK)
        axes.axvline(0.0, color=GREY, lw=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
    grid[-1].set_xlabel("Wavenumber (cm⁻¹; imaginary below 0)")
    save_figure(figure, path)


def scan_figure(scans: Sequence[Scan], *, path: str | Path, title: str = "") -> None:
    """Draw energy (left axis) and generalised force (right axis) of each scan in a panel of its own."""
    columns = min(4, len(scans))
    rows = -(-len(scans) // columns)
    figure = new_figure(3.6 * columns + 0.6, 2.9 * rows + 0.5, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, scan in zip(grid.flat, scans, strict=False):
        axes.plot(scan.values, scan.energies_eV, color=BLUE, lw=1.6)
        axes.axvline(scan.start, color=GREY, lw=0.8, ls="--")
        axes.set_title(scan.label, fontsize=10, color=INK)
        axes.set_xlabel(f"{scan.kind.capitalize()} ({scan.unit})", fontsize=9)
        tidy(axes)
        other = axes.twinx()
        other.plot(scan.values, scan.forces, color=ORANGE, lw=1.0)
        other.tick_params(colors=ORANGE, labelsize=8)
        other.spines[["top"]].set_visible(False)
    for axes in grid.flat[len(scans) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("Energy (eV)", color=BLUE)
    unit = "eV/Å" if scans[0].kind == "bond" else "eV/degree"
    lines = [Line2D([], [], color=BLUE, label="energy"), Line2D([], [], color=ORANGE, label=f"force ({unit}, right)")]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, **LEGEND)
    save_figure(figure, path)


def _merged(positions: np.ndarray, labels: Sequence[str]) -> tuple[list[float], list[str]]:
    """Merge special points at one place under one name, as K|U."""
    ticks: list[float] = []
    names: list[str] = []
    for at, label in zip(positions, labels, strict=True):
        label = NAMES.get(label, label)
        if ticks and abs(at - ticks[-1]) < 1e-9:
            names[-1] = f"{names[-1]}|{label}"
        else:
            ticks.append(float(at))
            names.append(label)
    return ticks, names
