"""Folders of DeePMD: labels as they are, signs of the virial, and what is missing or of another form."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from click.testing import CliRunner

from asecalc_mlip.cli import main
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError


def frames(n=3):
    rng = np.random.default_rng(0)
    made = [bulk("CuAu", "rocksalt", a=5.0) * (2, 1, 1) for _ in range(n)]
    for atoms in made:
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
        atoms.calc = EMT()
    return made


def system(folder, made, sets=2):
    """Write frames as DeePMD keeps them; the virial is −V times the stress."""
    folder.mkdir()
    (folder / "type.raw").write_text("\n".join("1 0 1 0".split()))
    (folder / "type_map.raw").write_text("Au\nCu\n")
    for k in range(sets):
        part = made[k::sets]
        (folder / f"set.{k:03d}").mkdir()
        virials = [-atoms.get_volume() * atoms.get_stress(voigt=False).reshape(9) for atoms in part]
        arrays = {
            "coord": [atoms.positions.reshape(-1) for atoms in part],
            "box": [atoms.cell.array.reshape(9) for atoms in part],
            "energy": [atoms.get_potential_energy() for atoms in part],
            "force": [atoms.get_forces().reshape(-1) for atoms in part],
            "virial": virials,
        }
        for name, values in arrays.items():
            np.save(folder / f"set.{k:03d}" / f"{name}.npy", np.array(values))


def test_a_system_is_converted_with_its_stress(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = frames()
    system(tmp_path / "alloy", made)
    result = CliRunner().invoke(main, ["data", "convert", "alloy", "alloy.xyz"])
    assert result.exit_code == 0 and "energy 3/3, forces 3/3, stress 3/3" in result.output
    for found, atoms in zip(read_frames("alloy.xyz"), [made[0], made[2], made[1]], strict=True):
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols() and found.pbc.all()
        np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-6)
        np.testing.assert_allclose(found.cell.array, atoms.cell.array, atol=1e-6)
        assert found.info["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(found.arrays["forces"], atoms.get_forces(), atol=1e-6)
        np.testing.assert_allclose(found.info["stress"], atoms.get_stress(voigt=False), atol=1e-6)
    (tmp_path / "alloy" / "nopbc").touch()
    open_frame = read_frames("alloy", folders=True)[0]
    assert not open_frame.pbc.any() and "stress" not in open_frame.info and "energy" in open_frame.info


def test_other_commands_say_how_to_convert_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    system(tmp_path / "alloy", frames())
    (tmp_path / "empty").mkdir()
    for name, part in (
        ("alloy", "make one file of it: asecalc data convert alloy alloy.xyz"),
        (".", "several systems of DeePMD"),
        ("empty", "empty is a folder, not a file"),
    ):
        with pytest.raises(InputError, match=part):
            read_frames(name)
        result = CliRunner().invoke(main, ["evaluate", "ethanol", name])
        assert result.exit_code == 2 and part in result.stderr
    with pytest.raises(InputError, match="empty is a folder, not a file"):
        read_frames("empty", folders=True)


def test_what_is_missing_or_of_another_form_is_named(tmp_path):
    system(tmp_path / "s", frames(), sets=1)
    first = tmp_path / "s" / "set.000"
    np.save(first / "force.npy", np.ones((3, 11)))
    with pytest.raises(DataError, match=r"force.npy: no array of 12 numbers a frame"):
        read_frames(tmp_path / "s", folders=True)
    np.save(first / "force.npy", np.ones((2, 12)))
    with pytest.raises(DataError, match="unlike numbers of frames"):
        read_frames(tmp_path / "s", folders=True)
    (first / "box.npy").unlink()
    with pytest.raises(DataError, match=r"has no box.npy"):
        read_frames(tmp_path / "s", folders=True)
    (first / "real_atom_types.npy").touch()
    with pytest.raises(InputError, match="mixed-type"):
        read_frames(tmp_path / "s", folders=True)
    (tmp_path / "s" / "type_map.raw").write_text("Au\nQq\n")
    with pytest.raises(DataError, match="do not name elements .*Qq"):
        read_frames(tmp_path / "s", folders=True)
    (tmp_path / "s" / "type_map.raw").unlink()
    with pytest.raises(InputError, match="has no type_map.raw"):
        read_frames(tmp_path / "s", folders=True)
