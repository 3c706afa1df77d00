"""A model and what belongs to it: opened once, the reference in the right order, settings it suggests."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.constraints import FixBondLength
from ase.io import write

from asecalc_mlip import checkpoint, md
from asecalc_mlip.analysis import ContactReference, MoleculeReference, PeriodicReference
from asecalc_mlip.errors import CheckpointError, InputError
from tests.md import toys
from tests.md.commands import call
from tests.md.models import random_model


@pytest.fixture
def loads(monkeypatch):
    """Files that are loaded, in order."""
    found, load = [], checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda path: (found.append(Path(path).name), load(path))[1])
    return found


def frames(spread, n=12):
    rng = np.random.default_rng(1)
    made = [toys.ethanol() for _ in range(n)]
    for atoms in made:
        atoms.positions += spread * rng.standard_normal((9, 3))
    return made


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A model with its structure, in the working directory."""
    monkeypatch.chdir(tmp_path)
    random_model(tmp_path / "own.pt")
    write("own.xyz", toys.ethanol())
    return tmp_path


def with_reference(reference, card=None):
    model = checkpoint.load("own.pt")
    content = None if reference is None else reference.to_dict()
    checkpoint.save("own.pt", model.potential, card=card or model.card, reference=content)


def test_a_shipped_model_brings_structure_reference_and_settings():
    found = md.resolve("silica.pt")
    assert found.atoms.get_chemical_formula().startswith("O") and found.atoms is not found.atoms
    assert isinstance(found.reference, PeriodicReference)
    settings = found.settings()
    assert (settings.protocol, settings.temperature_K, settings.timestep_fs) == ("eam-silica", 2000.0, 2.0)
    assert found.settings(temperature_K=300.0).protocol is None
    assert found.settings("npt").temperature_K == 300.0  # its protocol is for nvt
    assert len(found.identity["model_sha256"]) == 64


def test_the_reference_is_the_given_one_else_that_in_the_model_else_the_one_beside(own):
    MoleculeReference.from_frames(frames(0.01), "beside").save("own.reference.json")
    assert md.resolve("own.pt").reference.source == "beside"
    with_reference(MoleculeReference.from_frames(frames(0.02), "inside"))
    assert md.resolve("own.pt").reference.source == "inside"
    write("given.xyz", frames(0.03), format="extxyz")
    assert md.resolve("own.pt", reference="given.xyz").reference.source == "given.xyz"
    given = MoleculeReference.from_frames(frames(0.03), "handed over")
    assert md.resolve("own.pt", reference=given).reference is given


def test_a_reference_that_does_not_fit_is_left_out_unless_it_was_given(own, caplog):
    with_reference(MoleculeReference.from_frames(molecule("C6H6"), "benzene"))
    md.resolve("own.pt").settings()
    left = md.resolve("own.pt").reference
    assert isinstance(left, ContactReference) and left.closest["C-H"] == pytest.approx(1.09, abs=0.01)
    told = "it is for C6H6; where that was the only molecule in the training, the forces on C2H6O are wrong"
    assert f"reference in own.pt does not fit the structure ({told})" in caplog.text
    MoleculeReference.from_frames(molecule("C6H6"), "benzene").save("benzene.json")
    with pytest.raises(InputError, match="reference benzene.json does not fit"):
        _ = md.resolve("own.pt", reference="benzene.json").reference


def test_atoms_in_another_order_are_no_other_molecule(own, caplog):
    other = frames(0.01)[0][::-1]
    with_reference(MoleculeReference.from_frames([other], "reversed"))
    _ = md.resolve("own.pt").reference
    assert f"(the order of its {len(other)} atoms is another one)" in caplog.text


def test_a_temperature_on_the_card_is_what_a_run_begins_with(own):
    with_reference(None, card={"temperature_K": 321.0})
    found = md.resolve("own.pt")
    assert found.settings().temperature_K == 321.0 and found.settings("nve").temperature_K == 321.0
    assert found.settings(temperature_K=400.0).temperature_K == 400.0
    assert found.settings(protocol="md17").temperature_K == 500.0


def test_what_is_missing_is_named(own):
    with pytest.raises(CheckpointError, match="nowhere.pt"):
        md.resolve("nowhere.pt")
    Path("own.xyz").unlink()
    found = md.resolve("own.pt")
    assert found.settings().steps == 20000
    with pytest.raises(InputError, match="comes without a start structure"):
        _ = found.atoms


def test_any_calculator_stands_in_for_a_model():
    found = md.resolve(structure=toys.copper(), calculator=(calculator := EMT()))
    assert found.calculator() is calculator and found.identity == {} and found.card == {}
    assert found.reference is None and md.run_md  # nothing is loaded


def test_a_model_is_opened_once(own, loads):
    """For a run, its card and the settings; for all runs of a campaign, of which eight had opened it eleven times."""
    assert call("nvt", "own.pt", "--steps", "0", "--no-bond-rule", "-o", "run").exit_code == 0
    assert loads == ["own.pt"]
    loads.clear()
    planned = md.plan_campaign(["own.pt"], temperatures_K=(100.0, 200.0), seeds=range(4), output="many")
    assert len(planned.runs) == 8 and loads == ["own.pt"]
    loads.clear()
    planned = md.plan_campaign(["own.pt"], seeds=range(8), output="others")
    assert len(planned.runs) == 8 and loads == ["own.pt"]


def test_asking_for_settings_changes_nothing():
    found = md.resolve("silica.pt")
    given = {"temperature_K": None, "protocol": None, "steps": 10}
    first = found.settings("nvt", **given)
    assert given == {"temperature_K": None, "protocol": None, "steps": 10}
    assert found.settings("nvt", **given) == first


def test_the_example_of_the_package_runs(tmp_path, monkeypatch, capsys, figure):
    monkeypatch.chdir(tmp_path)
    lines = [line.strip().removeprefix(">>> ") for line in md.__doc__.splitlines() if line.strip().startswith(">>> ")]
    assert len(lines) == 7
    exec("\n".join(lines).replace("steps=2000", "steps=40"), {})
    assert "Stable for all 0.02 ps" in capsys.readouterr().out
    assert (tmp_path / "run" / "figure.png").exists()


def test_what_cannot_run_is_told_first_and_alone(own):
    """Not after warnings about the reference and the name of a folder that does not come."""
    with_reference(MoleculeReference.from_frames(molecule("C6H6"), "benzene"))
    write("other.xyz", molecule("SiH4"))
    held = toys.ethanol()
    held.set_constraint(FixBondLength(0, 1))
    write("held.traj", held)
    for name, part in (("other.xyz", "does not know the element Si"), ("held.traj", "run ase.md with the model")):
        result = call("nvt", "own.pt", name, "--steps", 10)
        assert result.exit_code == 2 and part in result.stderr
        assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")


def test_a_complete_run_of_another_structure_is_not_taken_for_the_one_asked_for(own):
    other = toys.ethanol()
    other.positions[8, 0] += 0.01
    write("several.xyz", [toys.ethanol(), other])
    run = ("nvt", "own.pt", "--steps", 2, "--interval", 2, "--output", "run")
    assert call(run[0], run[1], "several.xyz@0", *run[2:]).exit_code == 0
    result = call(run[0], run[1], "several.xyz@1", *run[2:])
    assert result.exit_code == 2 and "start structure is not the one of the run in run: give" in result.stderr
    for same in ("several.xyz@0", "gone.xyz"):
        result = call(run[0], run[1], same, *run[2:])
        assert result.exit_code == 0 and "was complete already" in result.stdout
