"""The figure of a run: its legend names the reference and the error with its unit."""

from types import SimpleNamespace

import numpy as np
import pytest

from asecalc_mlip import md
from asecalc_mlip.md.comparison import to_draw
from asecalc_mlip.plots.dynamics import md_figure


@pytest.mark.parametrize(("model", "h", "error"), [("silica.pt", None, "0 %"), ("ethanol_painn.pt", 0.1234, "0.123")])
def test_the_legend_has_the_error_of_the_summary(model, h, error):
    found = md.resolve(model)
    atoms, reference = found.atoms, found.reference
    run = SimpleNamespace(
        atoms=atoms, start=atoms, reference=reference, histogram=getattr(reference, "histogram", None)
    )
    rdfs = reference.rdfs_for(atoms) if h is None else {}
    shown, other, told = to_draw(run, rdfs, h)
    assert told == error
    names = ("time_ps", "temperature_K", "epot_eV", "etot_eV", "conserved_eV")
    log = {name: np.arange(3.0) for name in names}
    axes = md_figure(log, title="run", n_atoms=9, structure=shown, reference=other, error=told).axes[-1]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["reference data", f"this run, error {error}"]


@pytest.mark.parametrize("cell", [False, True])
@pytest.mark.parametrize(("spread", "threshold"), [(None, None), ([0.1, 0.3, 0.2], None), ([0.1, 0.3, 0.2], 0.25)])
def test_the_spread_of_a_committee_has_a_panel(spread, threshold, cell):
    names = ["time_ps", "temperature_K", "epot_eV", "etot_eV", "conserved_eV", *(["volume_A3", "pressure_GPa"] * cell)]
    log = {name: np.arange(3.0) for name in names}
    if spread is not None:
        log["spread_eV_per_A"] = np.array(spread)
    figure = md_figure(log, title="run", n_atoms=9, threshold_eV_per_A=threshold)
    panels = [
        axes for axes in figure.axes if axes.get_subplotspec() is not None and axes.get_ylabel() != "Pressure (GPa)"
    ]
    labels = [axes.get_ylabel() for axes in panels]
    assert len(panels) == 3 + cell + (spread is not None)
    assert ("Largest spread of forces (eV/Å)" in labels) == (spread is not None)
    if spread is not None:
        lines = panels[-2].get_lines()
        np.testing.assert_allclose(lines[0].get_ydata(), spread)
        assert [line.get_label() for line in lines[2:]] == ([] if threshold is None else ["threshold 0.25"])
        assert panels[-2].get_xlabel() == "Time (ps)"
