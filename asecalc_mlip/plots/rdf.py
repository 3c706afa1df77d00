"""Figure of radial distribution functions, a panel for each pair, or of h(r) of a molecule."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from asecalc_mlip.analysis.distances import DistanceHistogram
from asecalc_mlip.analysis.rdf import RDF
from asecalc_mlip.plots.style import GREY, INK, LEGEND, RED, new_figure, tidy

Function = RDF | DistanceHistogram


def rdf_figure(functions: Mapping[str, Function], reference: Mapping[str, Function] | None = None) -> Figure:
    """Draw one panel for each function, the one of the same name in `reference` shaded behind it."""
    columns = min(4, max(1, len(functions)))
    rows = -(-len(functions) // columns)
    figure = new_figure(4.0 * columns, 3.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, found) in zip(panels, functions.items(), strict=False):
        other = (reference or {}).get(name)
        if other is not None:
            axes.fill_between(other.r, _values(other), color=GREY, alpha=0.35, lw=0, label="reference")
        axes.plot(found.r, _values(found), color=RED, lw=1.4, label="these frames")
        axes.set_title("all atoms" if name == "all" else name, fontsize=10, color=INK)
        axes.set_xlabel("Distance r (Å)")
        axes.set_ylabel("g(r)" if isinstance(found, RDF) else "h(r) (1/Å)")
        axes.set_xlim(0.0, found.edges[-1])
        axes.set_ylim(bottom=0.0)
        tidy(axes)
    panels[0].legend(**LEGEND)
    for axes in panels[len(functions) :]:
        axes.set_axis_off()
    return figure


def _values(function: Function):
    return function.g if isinstance(function, RDF) else function.density
