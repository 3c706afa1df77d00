"""The census: every fault that ruins a training is found and named; real data pass."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from asecalc_mlip.data.census import census
from asecalc_mlip.data.label_checks import refuse_without_cores
from asecalc_mlip.data.label_files import open_label_file
from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.structure_checks import closest_contact
from asecalc_mlip.errors import DataError
from tests.teacher import as_reference, crystal_frames, molecule_frames

ALL = {"energy": 0.1, "forces": 0.9, "stress": 0.0}
KCAL, HARTREE = 23.0605, 1 / 27.2114


@pytest.fixture
def frames():
    """Fresh frames that a test may spoil."""
    return molecule_frames(30, seed=1)


def test_counts(frames):
    del frames[4].arrays["forces"]
    found = census(frames)
    assert str(found) == "energy 30/30, forces 29/30, stress 0/30"
    assert found.elements == {"H": 180, "C": 60, "O": 30}
    assert found.sizes == (9, 9) and found.n_periodic == 0
    assert "forces 29/30" in found.report() and "C (60)" in found.report()
    json.dumps(found.to_dict())


def test_crystals_pass_with_stress():
    found = census(crystal_frames(10))
    found.require({**ALL, "stress": 0.1})
    assert found.counts["stress"] == 10


@pytest.mark.parametrize("suffix", ["xyz", "db"])
@pytest.mark.parametrize(
    ("level", "symbol", "said", "wrong"),
    [
        ("PBE/def2-SVP", "I", {}, True),
        ("PBE/def2-SVP, corrected by 4 networks", "I", {}, True),
        ("BLYP/LANL2DZ", "Cl", {}, True),
        ("PBE/def2-SVP", "Br", {}, False),
        ("PBE/def2-SVP", "I", {"core_potentials": "I"}, False),
        ("PBE/6-31G*", "I", {}, False),
    ],
)
def test_labels_of_heavy_elements_without_their_core_potentials(suffix, level, symbol, said, wrong, tmp_path):
    path = tmp_path / f"labels.{suffix}"
    made = open_label_file(path, {"teacher": level, "pyscf": "v2.9.0", "grid": 3})
    for k in range(3):
        atoms = Atoms(["H", symbol], [[0, 0, 0], [0, 0, 1.6 + 0.1 * k]], info={"REF_energy": -1.0 - k, **said})
        atoms.arrays["REF_forces"] = np.array([[0, 0, k], [0, 0, -k]], dtype=float)
        made.append([atoms])
    found = [problem.text for problem in census(read_frames(path)).problems if "core potentials" in problem.text]
    assert len(found) == wrong
    if wrong:
        told = f"labels of 3 frames are by PySCF in an older version, without core potentials of {symbol}, and wrong"
        assert told in found[0]
        with pytest.raises(DataError, match="compute them again, into another file"):
            refuse_without_cores(read_frames(path))


def test_names_that_labels_may_have_are_told(frames):
    for atoms in frames:
        atoms.info["my_dft_E"], atoms.info["step"], atoms.info["note"] = atoms.info.pop("energy"), 3, "hello"
        atoms.info["temperature_K"] = 300.0
        atoms.info["my_tensor"] = np.eye(3)
        atoms.set_array("my_dft_F", atoms.arrays.pop("forces"))
    found = census(frames)
    assert found.others == {"energy": ["my_dft_E"], "forces": ["my_dft_F"], "stress": ["my_tensor"]}
    assert "energy perhaps as my_dft_E; forces perhaps as my_dft_F" in found.report()
    with pytest.raises(DataError, match=r"The file has my_dft_E: .*energy_key=my_dft_E, leave these frames out"):
        found.require(ALL)
    assert census(molecule_frames(3)).others == {"stress": []}


@pytest.mark.parametrize(
    ("atoms", "isolated"),
    [
        (Atoms("H"), True),
        (Atoms("H", cell=[12, 12, 12], pbc=True), True),
        (Atoms("H", cell=[12, 12, 0], pbc=[True, True, False]), True),
        (Atoms("H", pbc=True), True),
        (Atoms("Cu", cell=[[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], pbc=True), False),
        (Atoms("H", cell=[12, 3, 12], pbc=True), False),
        (Atoms("H", cell=[4, 4, 4], pbc=True, info={"config_type": "IsolatedAtom"}), True),
        (Atoms("H2", [[0, 0, 0], [0, 0, 1]], info={"config_type": "IsolatedAtom"}), False),
    ],
)
def test_isolated_atoms_are_told_from_crystals_of_one_atom(atoms, isolated):
    assert is_isolated_atom(atoms) is isolated
    found = census([atoms, *molecule_frames(2)])
    assert found.n_isolated == isolated and ("1 of 3 frames, whose energies are E0s" in found.report()) is isolated


def test_periodic_frames_without_a_cell_are_named(frames):
    frames[3].pbc = True
    with pytest.raises(DataError, match="frame 3 is periodic without a lattice vector"):
        census(frames).require(ALL)


def test_weighted_label_absent(frames):
    del frames[4].arrays["forces"]
    del frames[7].arrays["forces"]
    message = r"2 of 30 frames have no forces: frame 4, frame 7\..*forces_key.*weight of forces to 0"
    with pytest.raises(DataError, match=message):
        census(frames).require(ALL)
    census(frames).require({"energy": 1.0, "forces": 0.0})


def test_the_file_and_its_frame_are_named(tmp_path, frames):
    frames[12].arrays["forces"][3, 1] = np.nan
    write(tmp_path / "mine.xyz", as_reference(frames))
    with pytest.raises(DataError, match=r"forces of 1 frame\(s\) is NaN or infinite: frame 12 of mine\.xyz"):
        census(read_frames(tmp_path / "mine.xyz")).require(ALL)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_energy_not_finite(frames, value):
    frames[2].info["energy"] = value
    with pytest.raises(DataError, match="energy of 1 .*frame 2"):
        census(frames).require(ALL, allow_implausible=True)


def test_unweighted_labels_are_not_judged(frames):
    frames[2].info["energy"] = np.nan
    census(frames).require({"forces": 1.0, "energy": 0.0})


def test_positions_not_finite(frames):
    frames[5].positions[0, 0] = np.nan
    with pytest.raises(DataError, match="positions or cell of frame 5"):
        census(frames).require(ALL)


def test_large_force(frames):
    frames[8].arrays["forces"][0] = [0, 0, 600.0]
    with pytest.raises(DataError, match=r"frame 8 has a force of 600 eV/Å"):
        census(frames).require(ALL)
    census(frames).require(ALL, allow_implausible=True)


def test_overlapping_atoms(frames):
    frames[3].positions[1] = frames[3].positions[0] + 0.1
    with pytest.raises(DataError, match="frame 3 .* overlap"):
        census(frames).require(ALL)


def test_overlap_across_the_border_of_a_cell():
    atoms = Atoms("NaCl", positions=[[0.05, 2, 2], [3.95, 2, 2]], cell=[4, 4, 4], pbc=True)
    assert "0.04 times" in census([atoms]).problems[0].text


@pytest.mark.parametrize("factor", [KCAL, HARTREE, 96.4853])
@pytest.mark.parametrize("offset", [0.0, 4000.0], ids=["all electrons", "pseudopotential"])
def test_mixed_energy_units(frames, factor, offset):
    for i, atoms in enumerate(frames):
        atoms.info["energy"] += offset
        if i % 3 == 2:
            atoms.info["energy"] *= factor
    with pytest.raises(DataError, match="unit"):
        census(frames).require({"energy": 1.0})


def test_one_frame_in_other_units_among_unlike_compositions():
    frames = molecule_frames(20) + molecule_frames(20, name="CH4") + molecule_frames(20, name="H2O")
    census(frames).require(ALL)
    frames[45].info["energy"] *= HARTREE
    with pytest.raises(DataError, match="frame 45"):
        census(frames).require(ALL)


def test_whole_set_in_kcal(frames):
    for atoms in frames:
        atoms.info["energy"] *= KCAL
        atoms.arrays["forces"] *= 10 * KCAL
    assert {problem.label for problem in census(frames).problems} >= {"energy", "forces"}


def test_files_with_unlike_force_units_are_told(frames):
    for i, atoms in enumerate(frames):
        atoms.info.update(frame_file="ab"[i % 2] + ".xyz", frame_index=i)
        if i % 2:
            atoms.arrays["forces"] /= KCAL
    assert any("in a.xyz" in text and "in b.xyz: one unit?" in text for text in census(frames).warnings)


def test_forces_that_are_all_zero(frames):
    for atoms in frames:
        atoms.arrays["forces"][:] = 0
    with pytest.raises(DataError, match="exactly zero"):
        census(frames).require(ALL)


def test_stress_in_kbar_and_without_a_cell(frames):
    crystals = crystal_frames(3)
    crystals[1].info["stress"] *= 1602.0
    with pytest.raises(DataError, match="frame 1 has a stress .* kbar"):
        census(crystals).require({"stress": 1.0})
    frames[0].info["stress"] = np.zeros((3, 3))
    with pytest.raises(DataError, match="no stress"):
        census(frames).require({"stress": 1.0})


def test_duplicates_are_told(frames):
    again = frames[3].copy()
    again.info["energy"] += 1.0
    text = " ".join(census([*frames, again]).warnings)
    assert "1 frames repeat" in text and "frame 30 that of frame 3" in text and "another energy" in text


def test_mixed_keys_are_told(tmp_path, frames):
    write(tmp_path / "a.xyz", as_reference(frames[:10]))
    others = [atoms.copy() for atoms in frames[10:]]
    for atoms in others:
        atoms.info["dft_energy"] = atoms.info.pop("energy")
    write(tmp_path / "b.xyz", others)
    found = census(read_frames(tmp_path / "a.xyz") + read_frames(tmp_path / "b.xyz"))
    assert found.keys["energy"] == {"REF_energy": 10, "dft_energy": 20}
    assert any("one level of theory?" in text for text in found.warnings)


def test_charge_and_spin_states_of_the_same_atoms_are_told(frames):
    for k, atoms in enumerate(frames):
        atoms.info.update(charge=k % 3 == 0, spin=1.0, note="a")
    alone = Atoms("H", info={"charge": 5, "energy": -13.6})
    told = [text for text in census([*frames, alone]).warnings if "several" in text]
    assert told == []  # true and false are no charges
    for k, atoms in enumerate(frames):
        atoms.info["charge"] = np.int64(k % 3 == 0)
    (told,) = [text for text in census([*frames, alone]).warnings if "several" in text]
    assert "frames of C2H6O have several charges: charge is 0 in 20, 1 in 10 of them. A model" in told
    for atoms in frames:
        atoms.info["charge"] = 1
    assert not any("several" in text for text in census([*frames, alone]).warnings)


def test_no_frames_and_unknown_labels(frames):
    with pytest.raises(DataError, match="no frames"):
        census([])
    with pytest.raises(DataError, match="unknown labels.*dipole"):
        census(frames).require({"dipole": 1.0})


def test_the_closest_contact_of_a_large_cluster_needs_no_matrix_of_all_distances(monkeypatch):
    cluster = bulk("Cu", cubic=True) * (6, 6, 6)
    expected = closest_contact(cluster)
    cluster.pbc = False
    monkeypatch.setattr("asecalc_mlip.data.structure_checks.cdist", lambda *_: pytest.fail("takes 3 N² numbers"))
    assert closest_contact(cluster) == pytest.approx(expected)


def test_a_slab_with_one_atom_far_away_is_judged_at_once(frames):
    """A list by boxes did not come to an end."""
    for atoms in frames:
        atoms.cell, atoms.pbc = [12.0, 12.0, 12.0], [True, True, False]
    frames[3].positions[-1, 2] += 1e5
    assert census(frames).problems == []
    frames[4].positions[-1, 2] += 1e9
    assert "frame 4: atoms [8] are more than 1e+08 Å" in census(frames).problems[0].text
