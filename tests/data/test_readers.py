"""Readers: labels are found wherever files keep them, units are converted, and damage is located."""

import gzip

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from asecalc_mlip.data.census import census
from asecalc_mlip.data.convert import convert
from asecalc_mlip.data.readers import iter_frames, parse_force_unit, parse_stress_unit, read_frames
from asecalc_mlip.errors import DataError, InputError
from tests.teacher import as_reference, molecule_frames, with_calculator

KCAL = units.kcal / units.mol


def same_labels(a: Atoms, b: Atoms, tolerance: float = 1e-7) -> None:
    assert a.info["energy"] == pytest.approx(b.info["energy"], abs=tolerance)
    np.testing.assert_allclose(a.arrays["forces"], b.arrays["forces"], atol=tolerance)
    if "stress" in b.info:
        assert a.info["stress"].shape == (3, 3)
        np.testing.assert_allclose(a.info["stress"], b.info["stress"], atol=tolerance)
    assert a.calc is None


@pytest.mark.parametrize(
    "dress, name",
    [(as_reference, "a.xyz"), (as_reference, "a.xyz.gz"), (with_calculator, "a.extxyz"), (with_calculator, "a.traj")],
)
def test_labels_are_found(tmp_path, crystal_frames, dress, name):
    write(tmp_path / name, dress(crystal_frames))
    frames = read_frames(tmp_path / name)
    assert len(frames) == len(crystal_frames)
    for frame, expected in zip(frames, crystal_frames, strict=True):
        same_labels(frame, expected)
    assert frames[3].info["frame_index"] == 3 and frames[3].info["frame_file"] == name


def test_reference_goes_before_the_calculator_and_nothing_is_lost(tmp_path, ethanol_frames):
    atoms = as_reference(ethanol_frames[:1])[0]
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((9, 3)))
    with connect(tmp_path / "two.db") as database:
        data = {"REF_energy": atoms.info["REF_energy"], "REF_forces": atoms.arrays["REF_forces"]}
        database.write(atoms, data=data)
    frame = read_frames(tmp_path / "two.db")[0]
    same_labels(frame, ethanol_frames[0])
    assert frame.info["label_keys"] == {"energy": "REF_energy", "forces": "REF_forces"}
    assert frame.info["calculator_energy"] == -1.0 and "calculator_forces" in frame.info


def test_explicit_keys(tmp_path, ethanol_frames):
    atoms = as_reference(ethanol_frames[:1])[0]
    atoms.info["cc_energy"] = -5.0
    write(tmp_path / "a.xyz", atoms)
    frame = read_frames(tmp_path / "a.xyz", energy_key="cc_energy", forces_key="absent")[0]
    assert frame.info["energy"] == -5.0
    assert "forces" not in frame.arrays
    assert "REF_energy" in frame.info


def test_absent_labels_stay_absent(tmp_path, ethanol_frames):
    bare = ethanol_frames[0].copy()
    del bare.info["energy"], bare.arrays["forces"]
    write(tmp_path / "bare.xyz", bare)
    frame = read_frames(tmp_path / "bare.xyz")[0]
    assert "energy" not in frame.info and "forces" not in frame.arrays and "stress" not in frame.info


@pytest.mark.parametrize("form", ["voigt", "nine", "matrix"])
def test_stress_forms(tmp_path, crystal_frames, form):
    stress = crystal_frames[0].info["stress"]
    voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms = Atoms("Na", cell=[3, 4, 5], pbc=True)
    atoms.info["REF_stress"] = {"voigt": voigt, "nine": stress.reshape(-1), "matrix": stress}[form]
    write(tmp_path / "s.xyz", atoms)
    np.testing.assert_allclose(read_frames(tmp_path / "s.xyz")[0].info["stress"], stress, atol=1e-12)


def test_virial_is_minus_volume_times_stress(tmp_path, crystal_frames):
    atoms = as_reference(crystal_frames[:1])[0]
    stress = atoms.info.pop("REF_stress")
    atoms.info["virial"] = -stress * atoms.get_volume()
    write(tmp_path / "v.xyz", atoms)
    np.testing.assert_allclose(read_frames(tmp_path / "v.xyz")[0].info["stress"], stress, atol=1e-7)


def test_units(tmp_path, crystal_frames):
    atoms = as_reference(crystal_frames[:1])[0]
    expected = crystal_frames[0]
    atoms.info["REF_energy"] /= units.Hartree
    atoms.info["REF_stress"] = atoms.info["REF_stress"] / (units.Hartree / units.Bohr**3)
    atoms.arrays["REF_forces"] /= units.Hartree / units.Bohr
    atoms.set_cell(atoms.cell / units.Bohr)
    atoms.positions /= units.Bohr
    write(tmp_path / "au.xyz", atoms)
    frame = read_frames(tmp_path / "au.xyz", energy_unit="Hartree", length_unit="Bohr")[0]
    same_labels(frame, expected, 1e-6)
    np.testing.assert_allclose(frame.positions, expected.positions, atol=1e-7)
    np.testing.assert_allclose(frame.cell.array, expected.cell.array, atol=1e-12)


def test_a_small_cell_in_nm_has_a_volume(tmp_path):
    write(tmp_path / "cu.xyz", Atoms("Cu", cell=0.1805 * (1 - np.eye(3)), pbc=True), format="extxyz")
    assert read_frames(tmp_path / "cu.xyz", length_unit="nm")[0].get_volume() == pytest.approx(3.61**3 / 4)
    with pytest.raises(DataError, match="cell without volume"):
        read_frames(tmp_path / "cu.xyz")


def test_one_atom_in_a_cell_that_is_none_is_told(tmp_path):
    flat, lost = (Atoms("Cu", cell=cell, pbc=True) for cell in ([[1, 0, 0], [2, 0, 0], [0, 0, 5]], [np.nan, 5, 5]))
    write(tmp_path / "flat.xyz", flat, format="extxyz")
    with pytest.raises(DataError, match="cell without volume"):
        read_frames(tmp_path / "flat.xyz")
    lost.info["energy"] = -3.0
    (problem,) = census([lost]).problems
    assert "positions or cell of frame 0 are not finite" in problem.text


def test_force_unit():
    assert parse_force_unit("Hartree/Bohr") == pytest.approx(51.422, abs=1e-3)
    assert parse_force_unit("kcal/mol/Ang") == pytest.approx(0.0433641, abs=1e-6)
    with pytest.raises(InputError, match="energy/length"):
        parse_force_unit("eV")


@pytest.mark.parametrize(("name", "size"), [("GPa", units.GPa), ("kbar", 0.1 * units.GPa), ("eV/Ang^3", 1.0)])
def test_stress_unit(tmp_path, crystal_frames, name, size):
    atoms = as_reference(crystal_frames[:1])[0]
    atoms.info["REF_stress"] = atoms.info["REF_stress"] / size
    write(tmp_path / "s.xyz", atoms)
    frame = read_frames(tmp_path / "s.xyz", stress_unit=name)[0]
    same_labels(frame, crystal_frames[0], 1e-6)
    with pytest.raises(InputError, match="stress unit 'Pa'"):
        read_frames(tmp_path / "s.xyz", stress_unit="Pa")


def test_unknown_unit_lists_the_known(tmp_path, ethanol_frames):
    write(tmp_path / "a.xyz", as_reference(ethanol_frames[:1]))
    with pytest.raises(InputError, match="'erg'; known are ev"):
        read_frames(tmp_path / "a.xyz", energy_unit="erg")


@pytest.mark.parametrize("index, count, first", [(":", 60, 0), (":7", 7, 0), ("5::20", 3, 5), ("-1", 1, 59), (3, 1, 3),
                                                 ("-4:", 4, 56), (-2, 1, 58)])  # fmt: skip
def test_index(tmp_path, ethanol_frames, index, count, first):
    write(tmp_path / "a.xyz", as_reference(ethanol_frames))
    frames = read_frames(tmp_path / "a.xyz", index=index)
    assert (len(frames), frames[0].info["frame_index"]) == (count, first)


# Archives and databases


def archive(frames, names):
    arrays = [frames[0].numbers, np.array([a.positions for a in frames]),
              np.array([a.info["energy"] for a in frames]) / KCAL,
              np.array([a.arrays["forces"] for a in frames]) / KCAL]  # fmt: skip
    return dict(zip(names, arrays, strict=True))


def test_rmd17_archive_is_in_kcal(tmp_path, ethanol_frames):
    content = archive(ethanol_frames, ["nuclear_charges", "coords", "energies", "forces"])
    np.savez(tmp_path / "rmd17.npz", **content, old_indices=np.arange(60) + 100, old_energies=content["energies"])
    frames = read_frames(tmp_path / "rmd17.npz")
    assert len(frames) == 60 and frames[2].info["md17_index"] == 102
    for frame, expected in zip(frames, ethanol_frames, strict=True):
        same_labels(frame, expected)


def test_md17_archive(tmp_path, ethanol_frames):
    content = archive(ethanol_frames, "zREF")
    content["E"] = content["E"][:, None]  # as in the published files
    np.savez_compressed(tmp_path / "md17.npz", **content, name=np.bytes_("ethanol"), type=np.bytes_("d"))
    for frame, expected in zip(iter_frames(tmp_path / "md17.npz", index=":5"), ethanol_frames, strict=False):
        same_labels(frame, expected)


def test_foreign_and_damaged_archives(tmp_path, ethanol_frames):
    np.savez(tmp_path / "foreign.npz", x=np.zeros(3))
    with pytest.raises(InputError, match=r"arrays \['x'\].*nuclear_charges"):
        read_frames(tmp_path / "foreign.npz")
    np.savez(tmp_path / "good.npz", **archive(ethanol_frames, "zREF"))
    cut = (tmp_path / "good.npz").read_bytes()[:2000]
    (tmp_path / "cut.npz").write_bytes(cut)
    with pytest.raises(DataError, match=r"cut\.npz: not a complete"):
        read_frames(tmp_path / "cut.npz")
    content = archive(ethanol_frames, "zREF")
    content["F"] = content["F"][:10]
    np.savez(tmp_path / "short.npz", **content)
    with pytest.raises(DataError, match="shapes do not fit"):
        read_frames(tmp_path / "short.npz")


def test_ase_database(tmp_path, crystal_frames):
    with connect(tmp_path / "a.db") as database:
        for atoms in with_calculator(crystal_frames):
            database.write(atoms)
    for frame, expected in zip(read_frames(tmp_path / "a.db"), crystal_frames, strict=True):
        same_labels(frame, expected)


def test_the_charge_of_a_database_is_what_was_written(tmp_path, crystal_frames):
    with connect(tmp_path / "c.db") as database:
        database.write(crystal_frames[0], charge=-1, spin=2)
    info = next(iter_frames(tmp_path / "c.db")).info
    # ASE gives the sum of the initial charges for that name.
    assert info["charge"] == -1 and info["spin"] == 2


def test_schnetpack_database_brings_its_units(tmp_path, crystal_frames):
    with connect(tmp_path / "s.db") as database:
        database.metadata = {
            "_property_unit_dict": {"energy": "kcal/mol", "forces": "kcal/mol/Ang"},
            "_distance_unit": "Ang",
        }
        for atoms in crystal_frames:
            bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            data = {"energy": np.array([atoms.info["energy"] / KCAL]), "forces": atoms.arrays["forces"] / KCAL,
                    "stress": atoms.info["stress"][None] / KCAL}  # fmt: skip
            database.write(bare, data=data)
    for frame, expected in zip(read_frames(tmp_path / "s.db"), crystal_frames, strict=True):
        same_labels(frame, expected)


@pytest.mark.parametrize("form", ["Hartree/Bohr/Bohr/Bohr", "Hartree/Bohr^3", "Hartree/Bohr**3"])
def test_schnetpack_database_with_units_of_its_own_for_forces_and_stress(tmp_path, crystal_frames, form):
    """Positions in Å and forces in Hartree/Bohr, as many are."""
    with connect(tmp_path / "s.db") as database:
        database.metadata = {
            "_property_unit_dict": {"energy": "Hartree", "forces": "Hartree/Bohr", "stress": form},
            "_distance_unit": "Ang",
        }
        for atoms in crystal_frames:
            bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            data = {
                "energy": np.array([atoms.info["energy"] / units.Hartree]),
                "forces": atoms.arrays["forces"] * units.Bohr / units.Hartree,
                "stress": atoms.info["stress"][None] * units.Bohr**3 / units.Hartree,
            }
            database.write(bare, data=data)
    for frame, expected in zip(read_frames(tmp_path / "s.db"), crystal_frames, strict=True):
        same_labels(frame, expected)


def test_stress_units():
    assert parse_stress_unit("GPa") == pytest.approx(units.GPa)
    with pytest.raises(InputError, match="of the form eV/Ang"):
        parse_stress_unit("eV/Ang")


# Damage


def test_truncated_file_names_the_frame_and_keeps_the_good_ones(tmp_path, ethanol_frames):
    path = tmp_path / "cut.xyz"
    write(path, as_reference(ethanol_frames))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: 4 * 11 + 6]))
    with pytest.raises(DataError, match=r"cut\.xyz: frame 4 \(line 45\).*4 of 9 atoms.*The 4 frames before"):
        read_frames(path)
    assert len(read_frames(path, index=":4")) == 4


def test_line_cut_in_the_middle(tmp_path, ethanol_frames):
    path = tmp_path / "cut.xyz"
    write(path, as_reference(ethanol_frames[:2]))
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DataError, match="frame 1 .*unequal numbers of columns"):
        read_frames(path)


def test_missing_atom_line_and_blank_lines(tmp_path, ethanol_frames):
    path = tmp_path / "a.xyz"
    write(path, as_reference(ethanol_frames[:3]))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5] + lines[6:]))
    with pytest.raises(DataError, match="frame 0 .*columns"):
        read_frames(path)
    path.write_text("".join(lines[:11]) + "\n" + "".join(lines[11:]) + "\n\n")
    assert len(read_frames(path)) == 3, "a blank line between frames must not end the file"


def test_wrong_shape_and_text_in_place_of_numbers(tmp_path, ethanol_frames):
    path = tmp_path / "a.xyz"
    write(path, as_reference(ethanol_frames[:1]))
    text = path.read_text()
    path.write_text(text.replace("REF_forces:R:3", "REF_forces:R:2:x:R:1"))
    with pytest.raises(DataError, match=r"forces of frame 0 of a\.xyz.*expected \(9, 3\)"):
        read_frames(path)
    path.write_text(text.replace("REF_energy=-", "REF_energy=minus"))
    with pytest.raises(DataError, match="energy of frame 0"):
        read_frames(path)


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_frames(tmp_path / "absent.xyz")
    (tmp_path / "empty.xyz").touch()
    with pytest.raises(DataError, match="is empty"):
        read_frames(tmp_path / "empty.xyz")
    (tmp_path / "blank.xyz").write_text("\n\n")
    with pytest.raises(DataError, match="no frames"):
        read_frames(tmp_path / "blank.xyz")
    (tmp_path / "prose.xyz").write_text("Dear reader,\nthis is a letter.\n")
    with pytest.raises(DataError, match="expected the number of atoms"):
        read_frames(tmp_path / "prose.xyz")
    (tmp_path / "a.db").write_text("not a database")
    with pytest.raises(DataError, match="not an ASE database"):
        read_frames(tmp_path / "a.db")
    (tmp_path / "a.foo").write_text("what is this")
    with pytest.raises(DataError, match="Data files are extended XYZ"):
        read_frames(tmp_path / "a.foo")


def test_convert_round_trip(tmp_path, crystal_frames):
    write(tmp_path / "in.traj", with_calculator(crystal_frames))
    found = convert(tmp_path / "in.traj", tmp_path / "out.xyz")
    assert str(found) == "energy 20/20, forces 20/20, stress 20/20"
    for frame, expected in zip(read_frames(tmp_path / "out.xyz"), crystal_frames, strict=True):
        same_labels(frame, expected)
    with pytest.raises(InputError, match="exists already"):
        convert(tmp_path / "in.traj", tmp_path / "out.xyz")
    with pytest.raises(InputError, match="ends with .xyz"):
        convert(tmp_path / "in.traj", tmp_path / "out.db")


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name, n, atoms",
    [
        ("rmd17_aspirin_test.xyz", 1000, 21),
        ("water_revpbe0d3_train30.xyz", 30, 192),
        ("limno_electrode_val.xyz", 48, 24),
    ],
)
def test_real_files(data_file, name, n, atoms):
    frames = read_frames(data_file(name))
    assert (len(frames), len(frames[0])) == (n, atoms)
    assert all("energy" in frame.info and "forces" in frame.arrays for frame in frames)
    assert ("stress" in frames[0].info) == ("limno" in name)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("a.xyz", lambda text: b"\x93\xff\x00" * 999, "frame 0 .* it is no text"),
        ("a.xyz.gz", lambda text: gzip.compress(text)[: len(gzip.compress(text)) // 2], "end-of-stream"),
        ("a.xyz.gz", lambda text: text, "Not a gzipped file"),
        ("a.xyz.gz", lambda text: gzip.compress(text)[:-8] + bytes(8), "CRC"),
    ],
)
def test_files_that_are_no_text(name, spoil, message, tmp_path, ethanol_frames):
    write(tmp_path / "good.xyz", as_reference(ethanol_frames), format="extxyz")
    (tmp_path / name).write_bytes(spoil((tmp_path / "good.xyz").read_bytes()))
    with pytest.raises(DataError, match=message):
        read_frames(tmp_path / name)


def test_npz_with_too_few_indices(tmp_path):
    arrays = {"coords": np.zeros((5, 3, 3)), "energies": np.zeros(5), "forces": np.zeros((5, 3, 3))}
    np.savez(tmp_path / "a.npz", nuclear_charges=np.array([8, 1, 1]), old_indices=np.arange(3), **arrays)
    with pytest.raises(DataError, match="3 old_indices for 5 frames"):
        read_frames(tmp_path / "a.npz")


def test_a_database_needs_no_lock_file_that_a_killed_process_leaves(tmp_path, monkeypatch):
    from asecalc_mlip.data.label_files import open_label_file

    (tmp_path / "labels.db.lock").touch()
    monkeypatch.setattr("ase.utils.Lock.acquire", lambda self: pytest.fail("this would wait for ever"))
    file = open_label_file(tmp_path / "labels.db", {"level": "toy"})
    file.append(as_reference(molecule_frames(2)))
    assert file.count() == 2


def test_a_database_that_a_killed_process_had_only_begun_is_begun_anew(tmp_path):
    import sqlite3

    from asecalc_mlip.data.label_files import open_label_file

    path = tmp_path / "labels.db"
    begun = sqlite3.connect(path)
    begun.execute("create table systems (id integer primary key)")
    begun.close()
    file = open_label_file(path, {"level": "toy"})
    assert file.count() == 0
    file.append(as_reference(molecule_frames(2)))
    assert file.count() == 2
    foreign = sqlite3.connect(tmp_path / "mine.db")
    foreign.execute("create table mine (id integer primary key)")
    foreign.close()
    assert open_label_file(tmp_path / "mine.db", {}).count() == 0
    with sqlite3.connect(tmp_path / "mine.db") as kept:
        assert list(kept.execute("select * from mine")) == []  # the table is still there
