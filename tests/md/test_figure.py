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
