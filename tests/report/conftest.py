"""Small models whose reports take seconds."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk, molecule
from ase.io import write

from asecalc_mlip.checkpoint import save
from asecalc_mlip.report import measurements as pieces
from tests.cases import make_potential
from tests.figures import blank_figures
from tests.teacher import as_reference, labelled

HOSTILE = '<script>alert("x")</script>$\\frac{1}$ & <img src=http://a.b/c>'


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    """Curves of a few pairs tell as much as those of all."""
    monkeypatch.setattr(pieces, "MOST_PAIRS", 1)


@pytest.fixture(autouse=True)
def blank(request):
    """Figures are one pixel, but those of a test that takes `figures`."""
    if "figures" in request.fixturenames:
        yield
        return
    with blank_figures():
        yield


@pytest.fixture
def figures():
    """Figures are drawn."""


@pytest.fixture
def model(tmp_path):
    """A random model that pulls weakly, with a hostile card and a name like a formula; ethanol lies beside it."""
    path = tmp_path / "m$o$del.pt"
    potential = make_potential("painn", dtype=torch.float32)
    potential.scale = 0.0003
    card = {"name": HOSTILE, "licence": HOSTILE, "training_data": {HOSTILE: HOSTILE}, "temperatures_K": [100.0, 200.0]}
    save(path, potential, card=card)
    write(path.with_suffix(".xyz"), molecule("CH3CH2OH"))
    return path


@pytest.fixture
def crystals(tmp_path):
    """Twelve labelled frames of a cell of rock salt, with stress."""
    frames = []
    for seed in range(12):
        atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True)
        atoms.rattle(0.05, seed=seed)
        frames.append(labelled(atoms))
    path = tmp_path / "crystals.xyz"
    write(path, as_reference(frames))
    return path
