"""Figure of radial distribution functions, a panel for each pair."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asecalc_mlip.analysis.rdf import RDF
from asecalc_mlip.plots.dynamics import GREY, RED, _tidy


def rdf_figure(rdfs: dict[str, RDF], reference: dict[str, RDF] | None = None) -> Figure:
    """One panel for each function of `rdfs`, the one of the same name in `reference` shaded behind it."""
    columns = min(4, max(1, len(rdfs)))
    rows = -(-len(rdfs) // columns)
    figure = Figure(figsize=(4.0 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, g) in zip(panels, rdfs.items(), strict=False):
        other = (reference or {}).get(name)
        if other is not None:
            axes.fill_between(other.r, other.g, color=GREY, alpha=0.35, lw=0, label="reference")
        axes.plot(g.r, g.g, color=RED, lw=1.4, label="these frames")
        axes.set_title("all atoms" if name == "all" else name, fontsize=10)
        axes.set_xlabel("Distance r (Å)")
        axes.set_ylabel("g(r)")
        axes.set_xlim(0.0, g.edges[-1])
        axes.set_ylim(bottom=0.0)
        _tidy(axes)
    panels[0].legend(frameon=False, fontsize=9)
    for axes in panels[len(rdfs) :]:
        axes.set_axis_off()
    return figure
