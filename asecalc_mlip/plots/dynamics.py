"""Figure of a molecular dynamics run: temperature, energy, structure. Draws only; touches no global settings."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe-Ito colours: distinguishable with colour-vision deficiency and in grey.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"
INK = "#222222"


def md_figure(
    log: dict[str, np.ndarray],
    *,
    title: str,
    n_atoms: int,
    target_K: float | None = None,
    structure=None,
    reference=None,
    reference_name: str = "",
    error: float | None = None,
    broken_ps: float | None = None,
) -> Figure:
    """Three panels side by side.

    Parameters
    ----------
    log : columns time_ps, temperature_K, epot_eV, etot_eV, conserved_eV, each an (n,) array
    title : one line
    n_atoms : energies are shown per atom
    target_K : temperature of the thermostat, drawn as a line
    structure : `DistanceHistogram` or `RDF` of the run, or None
    reference : the same of the reference, or None
    reference_name, error : for the legend
    broken_ps : time at which the run broke, drawn as a vertical line
    """
    figure = Figure(figsize=(13.0, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, color=INK)
    left, middle, right = figure.subplots(1, 3)
    good = log["time_ps"] < (np.inf if broken_ps is None else broken_ps)  # a broken frame would set the scale
    log = {name: values[good] for name, values in log.items()}
    _temperature(left, log, target_K)
    _energy(middle, log, n_atoms)
    for axes in (left, middle):
        _time_axis(axes, log["time_ps"], broken_ps)
    _structure(right, structure, reference, reference_name, error)
    for axes in (left, middle, right):
        _tidy(axes)
    return figure


def figure_bytes(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG file in memory."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    return buffer.getvalue()


def _temperature(axes, log, target_K) -> None:
    time, temperature = log["time_ps"], log["temperature_K"]
    axes.plot(time, temperature, color=BLUE, lw=0.7, alpha=0.45, label="each frame")
    axes.plot(time, _running_mean(temperature), color=BLUE, lw=2.0, label="running mean")
    if target_K is not None:
        axes.axhline(target_K, color=INK, lw=1.2, ls="--", label=f"thermostat {target_K:g} K")
    axes.set_ylabel("Temperature (K)")
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="lower right", **_LEGEND)


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
    axes.legend(loc="best", **_LEGEND)


def _structure(axes, structure, reference, reference_name, error) -> None:
    if structure is None:
        axes.text(0.5, 0.5, "no g(r): not periodic\nin three directions", ha="center", va="center", color=GREY)
        axes.set_axis_off()
        return
    is_rdf = hasattr(structure, "g")
    values = structure.g if is_rdf else structure.density
    if reference is not None:
        other = reference.g if is_rdf else reference.density
        axes.fill_between(reference.r, other, color=GREY, alpha=0.35, lw=0, label=_short(reference_name))
    label = "this run" if error is None else f"this run, error {error:.3f}"
    axes.plot(structure.r, values, color=RED, lw=1.3, label=label)
    axes.set_xlabel("Distance r (Å)")
    axes.set_ylabel("g(r)" if is_rdf else "h(r) (1/Å)")
    present = structure.r[values > 0]
    if len(present):
        axes.set_xlim(max(0.0, present[0] - 0.5), min(structure.edges[-1], present[-1] + 0.5))
    highest = max([*values, *(other if reference is not None else [])], default=0.0)
    axes.set_ylim(0.0, 1.25 * highest or 1.0)  # room for the legend above the peaks
    axes.legend(loc="upper right", **_LEGEND)


def _time_axis(axes, time, broken_ps) -> None:
    axes.set_xlabel("Time (ps)")
    end = broken_ps if broken_ps is not None else (time[-1] if len(time) else 0.0)
    if end > 0.0:
        axes.set_xlim(0.0, end if broken_ps is None else 1.04 * end)
    if broken_ps is not None:
        axes.axvline(broken_ps, color=RED, lw=2.0)
        axes.text(broken_ps, 0.99, "broke ", color=RED, ha="right", va="top", transform=axes.get_xaxis_transform())


_LEGEND = {"frameon": False, "fontsize": 9}


def _tidy(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(True, color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over a tenth of the run, narrower at the ends, NaN where the values are."""
    half = max(1, len(values) // 20)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / np.maximum(high - low, 1)


def _short(name: str, limit: int = 34) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"
