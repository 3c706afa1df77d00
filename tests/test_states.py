"""Charge and spin that structures state and models do not read: told once, unless they are those of the data."""

import warnings

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from asecalc_mlip import CommitteeCalculator, PIWSLCalculator, checkpoint
from asecalc_mlip.calculators.states import state_of_all, stated_state
from asecalc_mlip.report import ReportSettings
from asecalc_mlip.report.subject import subject_of
from tests.md import toys
from tests.md.commands import call
from tests.md.models import random_model
from training.results.card import conditions_of


def stating(charges=None, **info):
    atoms = toys.ethanol()
    atoms.info.update(info)
    if charges is not None:
        atoms.set_initial_charges(charges)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "state"),
    [
        (stating(), {}),
        (stating(charge=0, spin=1, multiplicity=1), {}),
        (stating(charge=0, spin=0), {}),
        (stating(charge=-1), {"charge": -1}),
        (stating(total_charge=1, spin_multiplicity=2), {"charge": 1, "multiplicity": 2}),
        (stating(spin=2), {"spin": 2}),
        (stating(charge="anion"), {}),
        (stating(charge=float("nan")), {}),
        (stating(np.full(9, 1 / 9)), {"charge": 1}),
        (stating(np.linspace(-1, 1, 9)), {}),  # partial charges of a neutral molecule
        (stating(np.full(9, 1 / 9), charge=0), {}),
    ],
)
def test_what_a_structure_states(atoms, state):
    assert stated_state(atoms) == state


def test_a_calculator_warns_once_and_names_it(tmp_path):
    path = random_model(tmp_path / "model.pt")
    told = "model.pt does not read the charge 1 and multiplicity 2 of the structure"
    for ask in ("get_forces", "evaluate"):
        calc = PIWSLCalculator.load(path, device="cpu")
        with pytest.warns(UserWarning, match=told) as caught:
            for _ in range(3):
                atoms = stating(charge=1, multiplicity=2)
                calc.evaluate([atoms]) if ask == "evaluate" else calc.get_forces(atoms)
        assert len(caught) == 1
    with pytest.warns(UserWarning, match="charge -1"):
        CommitteeCalculator.load([path, path], device="cpu").get_forces(stating(charge=-1))


def test_the_state_of_the_data_is_no_news(tmp_path):
    frames = [stating(charge=-1), stating(charge=-1, spin=1)]
    conditions = conditions_of(frames)
    assert conditions["electronic_state"] == {"charge": -1}
    assert state_of_all([*frames, molecule("H")]) == {"charge": -1} and state_of_all([*frames, stating()]) == {}
    model = checkpoint.load(random_model(tmp_path / "model.pt"))
    checkpoint.save(tmp_path / "anion.pt", model.potential, card=conditions)
    calc = PIWSLCalculator.load(tmp_path / "anion.pt", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_forces(stating(charge=-1))
        calc.get_forces(stating())
    with pytest.warns(UserWarning, match=r"the charge 1 of the structure.*training data \(charge -1\)"):
        calc.evaluate([stating(charge=1)])


def test_commands_tell_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random_model(tmp_path / "model.pt")
    random_model(tmp_path / "other.pt", {1: -13.5, 6: -1000.0, 8: -2000.0})
    write("start.xyz", [stating(charge=1), stating(charge=-1), stating(charge=1), stating()])
    given = ("--structure", "start.xyz@0", "--steps", 3, "--interval", 1, "--timestep", 0.01, "--no-bond-rule")
    for models in (("model.pt",), ("--model", "model.pt", "--model", "other.pt")):
        with pytest.warns(UserWarning, match="does not read the charge 1") as caught:
            assert call("nvt", *models, *given, "-o", f"run{len(models)}").exit_code == 0
        assert len(caught) == 1
    given = ("model.pt", "--structure", "start.xyz", "--starts", 4, "--steps", 0, "--no-bond-rule", "--seeds", 2)
    result = call("campaign", *given, "-o", "many")
    assert result.exit_code == 0
    assert [result.stderr.count(f"does not read the charge {charge} of") for charge in (1, -1)] == [1, 1]
    with pytest.warns(UserWarning, match="does not read the charge 1") as caught:
        subject_of(ReportSettings("model.pt", structure="start.xyz@0", device="cpu"))
    assert len(caught) == 1
