"""Archives and databases: units that they state, and content that is damaged or of another kind."""

import sqlite3

import numpy as np
import pytest
from ase import Atoms, units
from ase.db import connect
from ase.io import write

from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError

GOOD = {
    "z": np.array([1, 9]),
    "R": np.arange(12.0).reshape(2, 2, 3),
    "E": np.array([-1.0, -2.0]),
    "F": np.ones((2, 2, 3)),
}


def test_an_archive_of_sgdml_is_read_in_the_units_that_it_states(tmp_path):
    np.savez(tmp_path / "a.npz", **GOOD, e_unit="eV", r_unit=np.bytes_("Ang"))
    assert read_frames(tmp_path / "a.npz")[0].info["energy"] == -1.0
    assert read_frames(tmp_path / "a.npz", energy_unit="Hartree")[0].info["energy"] == -units.Hartree
    np.savez(tmp_path / "a.npz", **GOOD, e_unit="au", r_unit="au")
    frame = read_frames(tmp_path / "a.npz")[0]
    assert frame.positions[0, 1] == units.Bohr and frame.arrays["forces"][0, 0] == units.Hartree / units.Bohr
    np.savez(tmp_path / "a.npz", **GOOD, e_unit="erg")
    with pytest.raises(InputError, match="'erg'; known are ev"):
        read_frames(tmp_path / "a.npz")


def test_an_archive_of_a_periodic_system_is_not_taken_for_molecules(tmp_path):
    np.savez(tmp_path / "a.npz", **GOOD, lattice=5 * np.eye(3))
    with pytest.raises(InputError, match="lattice.*extended XYZ"):
        read_frames(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"old_indices": np.array([np.nan, 1.0])}, "old_indices"),
        ({"z": np.array([[1], [9]])}, "shapes do not fit"),
        ({"z": np.array(1)}, "shapes do not fit"),
        ({"R": np.array(1.0)}, "shapes do not fit"),
        ({"z": np.array([1.5, 9.0])}, "no whole numbers"),
    ],
)
def test_arrays_that_are_no_frames(tmp_path, wrong, message):
    np.savez(tmp_path / "a.npz", **{**GOOD, **wrong})
    with pytest.raises(DataError, match=message):
        read_frames(tmp_path / "a.npz")


@pytest.mark.parametrize("metadata", ["[]", '{"_property_unit_dict": []}', '{"_distance_unit": 3}'])
def test_metadata_of_a_database_that_are_none(tmp_path, metadata):
    with connect(tmp_path / "a.db") as database:
        database.write(Atoms("HF", [[0, 0, 0], [0, 0, 0.9]]))
        database.metadata = {"some": "thing"}
    with sqlite3.connect(tmp_path / "a.db") as base:
        base.execute("update information set value = ? where name = 'metadata'", (metadata,))
    with pytest.raises(InputError):
        read_frames(tmp_path / "a.db")


@pytest.mark.parametrize("index", ["::0", "-2::0", f":{10**30}", str(10**30)])
def test_an_index_that_no_file_has(tmp_path, index):
    write(tmp_path / "a.xyz", Atoms("HF", [[0, 0, 0], [0, 0, 0.9]]))
    with pytest.raises(InputError, match="index"):
        read_frames(tmp_path / "a.xyz", index=index)
