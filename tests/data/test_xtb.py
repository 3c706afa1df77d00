"""Data from GFN2-xTB: labels are those of tblite, and a run that was killed goes on bit for bit."""

import re
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian
from ase.io import write

from asecalc_mlip.data.census import census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.xtb import XtbSettings, make_dataset, xtb_calculator
from asecalc_mlip.errors import DataError, InputError

SHORT = XtbSettings(equilibration_fs=10, spacing_fs=2)


def test_settings_are_checked():
    for wrong in ({"temperature_K": -1}, {"timestep_fs": 20}, {"spacing_fs": 0.1}):
        with pytest.raises(InputError):
            XtbSettings(**wrong)


@pytest.fixture(scope="module")
def water():
    pytest.importorskip("tblite", reason="needs the extra xtb: pip install 'asecalc-mlip[xtb]'")
    return molecule("H2O")


@pytest.fixture(scope="module")
def whole(water, tmp_path_factory):
    """A data set made in one go."""
    path = tmp_path_factory.mktemp("xtb") / "deep" / "water.xyz"
    return make_dataset(water, path, n_frames=3, settings=SHORT, progress=False)


def test_labels_are_those_of_tblite(whole):
    frames = read_frames(whole)
    found = census(frames)
    found.require({"energy": 1, "forces": 1})
    assert str(found) == "energy 3/3, forces 3/3, stress 0/3"
    atoms = frames[2].copy()
    atoms.calc = xtb_calculator(SHORT)
    assert atoms.get_potential_energy() == pytest.approx(frames[2].info["energy"], abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), frames[2].arrays["forces"], atol=1e-5)
    info = frames[2].info
    assert (info["method"], info["temperature_K"], info["seed"], info["time_fs"]) == ("GFN2-xTB", 500.0, 0, 14.0)
    assert info["tblite"].startswith("v") and (info["charge"], info["multiplicity"]) == (0, 1)


@pytest.mark.parametrize("rest", ["", "3\nProperties=species:S:1:po", "3\n"], ids=["between frames", "in one", "early"])
def test_continues_bit_for_bit(whole, water, tmp_path, rest):
    path = make_dataset(water, tmp_path / "w.xyz", n_frames=2, settings=SHORT, progress=False)
    with open(path, "a") as file:
        file.write(rest)  # killed while writing
    make_dataset(water, path, n_frames=3, settings=SHORT, progress=False)
    assert path.read_bytes() == whole.read_bytes()


def test_a_last_number_that_was_cut_off_is_no_frame(whole, water, tmp_path):
    path = tmp_path / "w.xyz"
    path.write_bytes(whole.read_bytes()[:-5])
    make_dataset(water, path, n_frames=3, settings=SHORT, progress=False)
    assert path.read_bytes() == whole.read_bytes()


def test_a_file_of_something_else_is_not_emptied(water, tmp_path):
    path = tmp_path / "notes.xyz"
    path.write_text("my notes\n")
    with pytest.raises(InputError, match=r"notes\.xyz is no file of labelled structures"):
        make_dataset(water, path, n_frames=1, settings=SHORT, progress=False)
    assert path.read_text() == "my notes\n"


def test_complete_file_is_left_alone(whole, water):
    before = whole.read_bytes()
    for settings in (SHORT, replace(SHORT, equilibration_fs=10.0, spacing_fs=2.0)):
        make_dataset(water, whole, n_frames=3, settings=settings, progress=False)
        assert whole.read_bytes() == before


def test_other_run_is_refused(whole, water):
    other = XtbSettings(equilibration_fs=10, spacing_fs=2, temperature_K=300)
    with pytest.raises(InputError, match=r"another run \(temperature_K=500.0 there, 300.0 now\)"):
        make_dataset(water, whole, n_frames=4, settings=other, progress=False)
    with pytest.raises(InputError, match=r"another run \(frame 2 at 14 fs there, at 24.0 fs now\)"):
        make_dataset(water, whole, n_frames=4, settings=replace(SHORT, equilibration_fs=20.0), progress=False)
    with pytest.raises(InputError, match="H2O there, CH4 now"):
        make_dataset(molecule("CH4"), whole, n_frames=4, settings=SHORT, progress=False)


def test_another_start_of_the_same_atoms_is_refused(whole, water, tmp_path):
    moved, periodic = water.copy(), water.copy()
    moved.positions[2, 0] += 0.1
    periodic.center(vacuum=5)
    for start in (moved, periodic):
        with pytest.raises(InputError, match="another run .its start structure has other positions or another cell"):
            make_dataset(start, whole, n_frames=4, settings=SHORT, progress=False)
    older = tmp_path / "older.xyz"  # does not say of its start
    older.write_text(re.sub(r" start=\w+", "", whole.read_text()))
    assert "start" not in read_frames(older)[2].info
    frames = read_frames(make_dataset(water, older, n_frames=4, settings=SHORT, progress=False))
    assert len(frames) == 4 and frames[3].info["start"] == read_frames(whole)[0].info["start"]


def test_the_start_states_its_charge_and_multiplicity(water, tmp_path):
    hydroxide, radical, oxygen = molecule("OH"), molecule("OH"), molecule("O2")
    hydroxide.info["charge"] = -1
    oxygen.info["multiplicity"] = 3
    start = tmp_path / "start.xyz"
    for atoms, options, state in (
        (hydroxide, {}, (-1, 1)),
        (radical, {}, (0, 2)),  # neither: neutral, the lowest spin
        (oxygen, {}, (0, 3)),
        (oxygen, {"multiplicity": 1}, (0, 1)),
    ):
        start.unlink(missing_ok=True)
        write(start, atoms)
        output = tmp_path / f"{state}.xyz"
        frame = read_frames(make_dataset(start, output, n_frames=1, settings=replace(SHORT, **options)))[0]
        assert (frame.info["charge"], frame.info["multiplicity"]) == state
        frame.calc = xtb_calculator(replace(SHORT, charge=state[0], multiplicity=state[1]))
        assert frame.get_potential_energy() == pytest.approx(frame.info["energy"], abs=1e-6)
    with pytest.raises(InputError, match="another run .charge=-1 there, 0 now; multiplicity=1 there, 2 now"):
        make_dataset(radical, tmp_path / "(-1, 1).xyz", n_frames=2, settings=SHORT)


def test_failed_calculation_keeps_the_frames_before_it(water, tmp_path, monkeypatch):
    from tblite.ase import TBLite

    path = make_dataset(water, tmp_path / "a.xyz", n_frames=1, settings=SHORT, progress=False)
    monkeypatch.setattr(TBLite, "calculate", lambda *_: (_ for _ in ()).throw(RuntimeError("not converged")))
    with pytest.raises(DataError, match=r"frame 1 \(not converged\).*lower the temperature"):
        make_dataset(water, path, n_frames=2, settings=SHORT, progress=False)
    assert len(read_frames(path)) == 1


def test_wrong_input_is_told(water, tmp_path):
    with pytest.raises(InputError, match="H2O with charge 1 has 9 electrons.*multiplicity 1"):
        make_dataset(water, tmp_path / "a.xyz", settings=XtbSettings(charge=1, multiplicity=1))
    with pytest.raises(InputError, match="no such file"):
        make_dataset(tmp_path / "absent.xyz", tmp_path / "b.xyz")
    (tmp_path / "bad.xyz").write_text("hello")
    with pytest.raises(InputError, match="bad.xyz cannot be read"):
        make_dataset(tmp_path / "bad.xyz", tmp_path / "b.xyz")


def test_nothing_is_printed(water, tmp_path, capfd):
    make_dataset(water, tmp_path / "a.xyz", n_frames=1, settings=SHORT, progress=False)
    assert capfd.readouterr() == ("", "")


def test_fixed_atoms_stay_and_other_constraints_are_refused(water, tmp_path):
    start = water.copy()
    start.set_constraint([FixAtoms([0]), FixCartesian([1], mask=(True, False, False))])
    frames = read_frames(make_dataset(start, tmp_path / "fixed.xyz", n_frames=2, settings=SHORT, progress=False))
    assert all(np.array_equal(atoms.positions[0], water.positions[0]) for atoms in frames)
    assert all(atoms.positions[1, 0] == water.positions[1, 0] for atoms in frames)
    assert np.abs(frames[1].positions - frames[0].positions)[1:].max() > 1e-3
    assert np.abs(frames[0].arrays["forces"][0]).max() > 0
    with pytest.raises(InputError, match="fixed="):
        make_dataset(water, tmp_path / "fixed.xyz", n_frames=3, settings=SHORT, progress=False)
    start.set_constraint(FixBondLengths([[0, 1]]))
    with pytest.raises(InputError, match="FixBondLength"):
        make_dataset(start, tmp_path / "bonds.xyz", n_frames=1, settings=SHORT, progress=False)
