"""Figure of a molecular dynamics run: temperature, energy, structure. Draws only; touches no global settings."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from asecalc_mlip.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SMALL, new_figure, running_mean, tidy


def md_figure(
    log: dict[str, np.ndarray],
    *,
    title: str,
    n_atoms: int,
    target_K: float | np.ndarray | None = None,
    structure=None,
    reference=None,
    error: str = "",
    broken_ps: float | None = None,
    broken_by: str = "",
    threshold_eV_per_A: float | None = None,
) -> Figure:
    """Draw panels side by side: temperature, energy, volume and pressure, spread of a committee, structure.

    Volume and pressure, and the spread, have panels in runs that log them.

    Parameters
    ----------
    log : dict of (n,) arrays
        Columns time_ps, temperature_K, epot_eV, etot_eV, conserved_eV; volume_A3 and pressure_GPa if the cell moves,
        spread_eV_per_A of a committee.
    title : str
        One line.
    n_atoms : int
        Energies are shown per atom.
    target_K : float or (n,) array, optional
        Temperature of the thermostat, drawn as a line.
    structure : DistanceHistogram or RDF, optional
        Of the run.
    reference : DistanceHistogram or RDF, optional
        Of the reference.
    error : str
        Between the two, with its unit, for the legend.
    broken_ps : float, optional
        Time at which the run broke, drawn as a vertical line.
    broken_by : str
        The rule that fired, with its pair, value, limit and time, written below the panels.
    threshold_eV_per_A : float, optional
        Of the spread, drawn as a line.
    """
    cell, spread = "volume_A3" in log, "spread_eV_per_A" in log
    more = int(cell) + int(spread)
    figure = new_figure(13.0 + 4.0 * more, 4.1, title)
    panels = list(figure.subplots(1, 3 + more))
    good = log["time_ps"] < (np.inf if broken_ps is None else broken_ps)  # a broken frame would set the scale
    if isinstance(target_K, np.ndarray):
        target_K = target_K[good]
    log = {name: values[good] for name, values in log.items()}
    _temperature(panels[0], log, target_K)
    _energy(panels[1], log, n_atoms)
    if cell:
        _cell(panels[2], log)
    if spread:
        _spread(panels[-2], log, threshold_eV_per_A)
    for axes in panels[:-1]:
        _time_axis(axes, log["time_ps"], broken_ps)
    _structure(panels[-1], structure, reference, error)
    for axes in panels:
        tidy(axes)
    if broken_by:
        figure.supxlabel(broken_by, color=RED, fontsize=9, x=0.01, ha="left")
    return figure


def _temperature(axes, log, target_K) -> None:
    time, temperature = log["time_ps"], log["temperature_K"]
    axes.plot(time, temperature, color=BLUE, lw=0.7, alpha=0.45, label="each frame")
    axes.plot(time, running_mean(temperature), color=BLUE, lw=2.0, label="running mean")
    if isinstance(target_K, np.ndarray):
        axes.plot(time, target_K, color=INK, lw=1.2, ls="--", label="thermostat")
    elif target_K is not None:
        axes.axhline(target_K, color=INK, lw=1.2, ls="--", label=f"thermostat {target_K:g} K")
    axes.set_ylabel("Temperature (K)")
    axes.set_ylim(bottom=0.0)
    _legend(axes)


def _energy(axes, log, n_atoms) -> None:
    time = log["time_ps"]
    shown = [("potential", log["epot_eV"], GREEN), ("total", log["etot_eV"], ORANGE)]
    if np.isfinite(log["conserved_eV"]).any() and not np.array_equal(log["conserved_eV"], log["etot_eV"]):
        shown.append(("conserved", log["conserved_eV"], INK))
    for name, energy, colour in shown:
        if len(energy):
            # Relative to the first frame: totals of 1e4 eV would hide fluctuations of 0.1 eV.
            axes.plot(time, 1e3 * (energy - energy[0]) / n_atoms, color=colour, lw=1.1, label=name)
    axes.set_ylabel("Energy − start (meV/atom)")
    _legend(axes)


def _cell(axes, log) -> None:
    """Draw the volume, and the running mean of the pressure on an axis of its own."""
    time, volume, pressure = log["time_ps"], log["volume_A3"], log["pressure_GPa"]
    axes.plot(time, volume, color=GREEN, lw=0.7, alpha=0.45)
    axes.plot(time, running_mean(volume), color=GREEN, lw=2.0, label="volume")
    axes.set_ylabel("Volume (Å³)")
    right = axes.twinx()
    right.plot(time, running_mean(pressure), color=ORANGE, lw=1.5, label="pressure, running mean")
    right.set_ylabel("Pressure (GPa)")
    right.tick_params(colors=INK, labelsize=9)
    right.spines[["top"]].set_visible(False)
    _legend(axes, [*axes.get_lines()[1:], *right.get_lines()])


def _spread(axes, log, threshold) -> None:
    time, spread = log["time_ps"], log["spread_eV_per_A"]
    axes.plot(time, spread, color=PINK, lw=0.7, alpha=0.6, label="each frame")
    axes.plot(time, running_mean(spread), color=PINK, lw=2.0, label="running mean")
    if threshold is not None:
        axes.axhline(threshold, color=INK, lw=1.2, ls="--", label=f"threshold {threshold:g}")
    axes.set_ylabel("Largest spread of forces (eV/Å)")
    axes.set_ylim(bottom=0.0)
    _legend(axes)


def _structure(axes, structure, reference, error) -> None:
    if structure is None:
        axes.text(0.5, 0.5, "no g(r): not periodic\nin three directions", ha="center", va="center", color=GREY)
        axes.set_axis_off()
        return
    is_rdf = hasattr(structure, "g")
    values = structure.g if is_rdf else structure.density
    if reference is not None:
        other = reference.g if is_rdf else reference.density
        axes.fill_between(reference.r, other, color=GREY, alpha=0.35, lw=0, label="reference data")
    label = f"this run, error {error}" if error else "this run"
    axes.plot(structure.r, values, color=RED, lw=1.3, label=label)
    axes.set_xlabel("Distance r (Å)")
    axes.set_ylabel("g(r)" if is_rdf else "h(r) (1/Å)")
    present = structure.r[values > 0]
    if len(present):
        axes.set_xlim(max(0.0, present[0] - 0.5), min(structure.edges[-1], present[-1] + 0.5))
    highest = max([*values, *(other if reference is not None else [])], default=0.0)
    axes.set_ylim(0.0, 1.05 * highest or 1.0)
    _legend(axes)


def _legend(axes, lines=None) -> None:
    """Put the legend over the panel, where no curve can run through it."""
    handles = {} if lines is None else {"handles": lines}
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, columnspacing=0.9, handlelength=1.1,
                borderaxespad=0.2, handletextpad=0.5, **handles, **SMALL)  # fmt: skip


def _time_axis(axes, time, broken_ps) -> None:
    axes.set_xlabel("Time (ps)")
    axes.locator_params(axis="x", nbins=6)
    end = broken_ps if broken_ps is not None else (time[-1] if len(time) else 0.0)
    if end > 0.0:
        axes.set_xlim(0.0, end if broken_ps is None else 1.04 * end)
    if broken_ps is not None:
        axes.axvline(broken_ps, color=RED, lw=2.0)
        axes.text(broken_ps, 0.99, "broke ", color=RED, ha="right", va="top", transform=axes.get_xaxis_transform())
