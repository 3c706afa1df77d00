"""Reference energies: each method gives what it says, and those that cannot belong to the data are refused."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import write

from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from tests.teacher import ATOM_ENERGY, as_reference, isolated_atoms, molecule_frames
from training.start.reference_energies import reference_energies


@pytest.fixture(scope="module")
def frames():
    """Three compositions of three elements."""
    return [atoms for name in ("CH3CH2OH", "CH4", "H2O") for atoms in molecule_frames(10, name=name)]


def test_isolated(tmp_path, frames):
    write(tmp_path / "atoms.xyz", as_reference(isolated_atoms()))
    found = reference_energies(frames, "isolated", isolated=tmp_path / "atoms.xyz")
    assert found.values == {z: ATOM_ENERGY[z] for z in (1, 6, 8)}
    assert found.residual_mean < -1 and "atoms.xyz" in found.source
    assert found.total(frames[0].numbers) == pytest.approx(2 * ATOM_ENERGY[6] + 6 * ATOM_ENERGY[1] + ATOM_ENERGY[8])


def test_isolated_atoms_in_the_units_of_the_data(tmp_path, frames):
    atoms = isolated_atoms()
    for atom in atoms:
        atom.info["energy"] /= units.Hartree
    write(tmp_path / "atoms.xyz", as_reference(atoms))
    path, reading = tmp_path / "atoms.xyz", {"energy_unit": "Hartree"}
    found = reference_energies(frames, "isolated", isolated=path, reading=reading)
    assert found.values == pytest.approx({z: ATOM_ENERGY[z] for z in (1, 6, 8)})


def test_a_file_serves_elements_that_have_no_isolated_atom_in_the_data(tmp_path, frames):
    """The data had hydrogen, and the file was not read."""
    write(tmp_path / "atoms.xyz", as_reference(isolated_atoms()))
    hydrogen = Atoms("H", info={"energy": -13.6})
    found = reference_energies(frames, "fit", isolated=tmp_path / "atoms.xyz", atoms=[hydrogen])
    assert found.values == {1: -13.6, 6: ATOM_ENERGY[6], 8: ATOM_ENERGY[8]} and not found.fitted
    assert found.source.startswith("isolated atoms in the data and in atoms.xyz for ")


def test_fit_recovers_exact_values(frames):
    shifted = [atoms.copy() for atoms in frames]
    for atoms in shifted:
        atoms.info["energy"] = sum({1: -15.0, 6: -1030.5, 8: -2045.25}[z] for z in atoms.numbers)
    found = reference_energies(shifted, "fit")
    assert found.values == pytest.approx({1: -15.0, 6: -1030.5, 8: -2045.25}, abs=1e-6)
    assert found.residual_rms < 1e-8 and found.source == "least squares on 30 energies"


def test_fit_of_one_composition_says_that_it_is_not_unique():
    frames = molecule_frames(10)
    found = reference_energies(frames, "fit")
    assert "fix only 1 of 3 values" in found.source
    assert abs(found.residual_mean) < 1e-9
    assert found.values[1] / found.values[8] == pytest.approx(6.0), "shortest solution: in proportion to the counts"


def test_given_and_zero(frames):
    found = reference_energies(frames, "given", given={"H": -13.6, 6: -1027.0, "8": -2041.0, "N": 0.0})
    assert found.values == {1: -13.6, 6: -1027.0, 8: -2041.0}
    zero = reference_energies(frames, "zero")
    assert set(zero.values.values()) == {0.0} and zero.method == "zero"


def test_other_level_of_theory_is_refused(frames):
    pseudo = isolated_atoms()
    for atoms in pseudo:
        atoms.info["energy"] *= 0.01
    with pytest.raises(DataError, match="another level of theory.*or use 'fit'"):
        reference_energies(frames, "isolated", isolated=pseudo)
    with pytest.raises(DataError, match="another level of theory"):
        reference_energies(frames, "given", given={"H": -0.5, "C": -37.8, "O": -75.0})


def test_missing_element_is_named(frames):
    with pytest.raises(DataError, match="contain O, for which"):
        reference_energies(frames, "isolated", isolated=isolated_atoms((1, 6)))


def test_an_isolated_atom_serves_an_element_that_no_energy_has(frames):
    more = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]])  # without a label
    found = reference_energies([*frames, more], "fit", atoms=isolated_atoms((11, 17)))
    assert found.values[11] == ATOM_ENERGY[11] and found.fitted == [1, 6, 8]


def test_bad_requests(frames):
    with pytest.raises(InputError, match="need a file"):
        reference_energies(frames, "isolated")
    with pytest.raises(InputError, match="need a table"):
        reference_energies(frames, "given")
    with pytest.raises(InputError, match="'Xq' is not an element"):
        reference_energies(frames, "given", given={"Xq": 1.0})
    with pytest.raises(InputError, match="known are isolated, fit"):
        reference_energies(frames, "guess")
    with pytest.raises(DataError, match="9 atoms"):
        reference_energies(frames, "isolated", isolated=frames)
    with pytest.raises(DataError, match="have the energy nan for H"):
        reference_energies(frames, "fit", atoms=[Atoms("H", info={"energy": np.nan})])
    bare = [atoms.copy() for atoms in frames[:2]]
    for atoms in bare:
        del atoms.info["energy"]
    with pytest.raises(DataError, match="no frame has an energy"):
        reference_energies(bare, "fit")
    assert "not tested" in reference_energies(bare, "zero").source


def test_report(frames):
    found = reference_energies(frames, "fit")
    assert "C -" in repr(found) and "eV/atom" in repr(found)
    assert len(found.table().splitlines()) == 5
    json.dumps(found.to_dict())


@pytest.mark.realdata
def test_real_isolated_atoms(data_file):
    frames = read_frames(data_file("rmd17_aspirin_test.xyz"), index=":50")
    found = reference_energies(frames, "isolated", isolated=data_file("isolated_atoms_ethanol.xyz"))
    assert -8 < found.residual_mean < -4
    assert found.residual_rms < 0.03
    relative = read_frames(data_file("qm22_malonaldehyde_ccsdt_energies_train.xyz"), index=":50")
    with pytest.raises(DataError, match="another level"):
        reference_energies(relative, "isolated", isolated=data_file("isolated_atoms_ethanol.xyz"))
    assert np.isfinite(reference_energies(relative, "zero").residual_rms)


def test_outliers_have_no_part_in_the_fit(frames):
    shifted = [atoms.copy() for atoms in frames]
    for atoms in shifted:
        atoms.info["energy"] = sum({1: -15.0, 6: -1030.5, 8: -2045.25}[z] for z in atoms.numbers)
    shifted[4].info["energy"] += 200.0
    found = reference_energies(shifted, "fit")
    assert found.values == pytest.approx({1: -15.0, 6: -1030.5, 8: -2045.25}, abs=1e-6)
    assert "without 1 that are far from the rest" in found.source
