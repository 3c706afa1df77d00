"""Structures of a learning: first ones, candidates, those for no labeller, fixed atoms."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.io import write

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_structures
from training.data.split import Split
from training.learn.committee import (
    member_config,
    training_settings,
    write_data,
)
from training.learn.final import _hand_over
from training.learn.settings import LearnSettings
from training.learn.state import Folder
from training.learn.structures import OVERLAP, candidates_of, check_starts, first_structures, is_physical


def test_first_structures_are_the_start_and_stronger_and_stronger_copies_that_the_seed_decides():
    start, settings = molecule("CH3CH2OH"), LearnSettings("xtb", seed=3)
    found = first_structures([start], settings, 6)
    moved = [np.abs(one.atoms.positions - start.positions).max() for one in found]
    assert len(found) == 6 and moved[0] == 0.0
    assert 0 < moved[1] < moved[-1] < 0.5
    again = first_structures([start], settings, 6)
    np.testing.assert_array_equal(found[4].atoms.positions, again[4].atoms.positions)
    other = first_structures([start], LearnSettings("xtb", seed=4), 6)
    assert np.abs(found[4].atoms.positions - other[4].atoms.positions).max() > 1e-3


def test_atoms_within_half_of_their_covalent_radii_are_for_no_labeller():
    radii = 0.76 + 0.31  # Å, C and H (Cordero 2008)
    near, far = (Atoms("CH", [[0, 0, 0], [0, 0, f * radii]]) for f in (OVERLAP - 0.01, OVERLAP + 0.01))
    assert (is_physical(near), is_physical(far)) == (False, True)
    crystal = Atoms("C", cell=[0.7, 5, 5], pbc=True)  # its own image
    assert not is_physical(crystal)
    assert not is_physical(Atoms("C", cell=[0.01] * 3, pbc=True))  # too many images for a list
    far.positions[0, 0] = np.nan
    assert not is_physical(far)


def test_isolated_atoms_among_given_frames_are_not_held_out(tmp_path):
    water, oxygen = molecule("H2O"), Atoms("O")
    for atoms in (water, oxygen):
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -1.0, np.zeros((len(atoms), 3))
    write(tmp_path / "given.xyz", [water, water, oxygen, water], format="extxyz")
    folder = Folder(tmp_path)
    now = folder.round(0)
    assert write_data(folder, now) == 4
    assert Split.load(now.file("split.json"), 4).val == [3]


def test_frames_for_no_labeller_are_for_the_far_field_teacher(tmp_path):
    water, folder = molecule("H2O"), Folder(tmp_path)
    water.info["REF_energy"], water.arrays["REF_forces"] = -1.0, np.zeros((3, 3))
    near = molecule("H2O")
    near.positions[1] = near.positions[0] + [0, 0, 0.3]
    for k in (0, 1):
        write(folder.round(k).labels, [water, water], format="extxyz")
        write(folder.round(k).file("unphysical.xyz"), [near], format="extxyz")
        write_data(folder, folder.round(k))
    write_data(folder, folder.round(2))
    plain = LearnSettings("xtb", training=("far.teacher=null",))
    taught = LearnSettings("xtb", training=("far.teacher=xtb", "far.sources=[bonds]"))
    found = [member_config(folder, folder.round(0), one, 0, "").far.structures for one in (plain, taught)]
    assert found == [None, None]  # nothing broke before
    last = [training_settings(folder.round(2), one, "").get("far.structures") for one in (plain, taught)]
    assert last == [None, str(folder.round(2).file("far_structures.xyz"))]
    assert len(read_structures(last[1])) == 2


def test_fixed_atoms_of_a_start_stay_and_other_constraints_are_refused(tmp_path):
    start, settings = molecule("H2O"), LearnSettings("xtb", pressure_GPa=None)
    free = check_starts([start], settings)
    start.set_constraint(FixAtoms([0]))
    kept = check_starts([start], settings)
    assert kept[0].constraints[0].index.tolist() == [0]
    moved = [np.abs(one.atoms.positions - start.positions).max(axis=1) for one in first_structures(kept, settings, 4)]
    assert all(not one[0] and one[1:].all() for one in moved[1:])
    folder = Folder(tmp_path / "out")
    folder.open(settings, kept, {})
    assert read_structures(folder.path / "starts.xyz")[0].constraints[0].index.tolist() == [0]
    with pytest.raises(InputError, match="start structures"):
        folder.open(settings, free, {})
    with pytest.raises(InputError, match="FixAtoms.*leave --pressure out"):
        check_starts([start], LearnSettings("xtb", pressure_GPa=0.0))
    start.set_constraint(FixBondLength(0, 1))
    with pytest.raises(InputError, match="FixBondLength.*FixAtoms is allowed"):
        check_starts([start], settings)


@pytest.mark.parametrize(("shift", "fixed"), [(0.0, [0]), (0.1, [])])
def test_the_start_structure_of_the_final_model_has_the_fixed_atoms_where_they_are(shift, fixed, tmp_path):
    start, folder = molecule("H2O"), Folder(tmp_path)
    start.set_constraint(FixAtoms([0]))
    (tmp_path / "final" / "training").mkdir(parents=True)
    (tmp_path / "final" / "training" / "model.pt").touch()
    frame = molecule("H2O")
    frame.positions[0] += shift
    write(tmp_path / "final" / "training" / "model.xyz", frame)
    _hand_over(tmp_path / "final", folder, [start])
    assert fixed_atoms(read_structures(tmp_path / "model.xyz")[0])[0].nonzero()[0].tolist() == fixed


def _run(folder, number, frames, broken=None):
    path = folder / f"replica{number:03d}"
    path.mkdir()
    write(path / "trajectory.extxyz", frames)
    if broken is not None:
        write(path / "unstable.extxyz", broken)


def test_candidates_are_the_frame_in_question_and_some_before_it(tmp_path):
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, 0.7 + 0.01 * k]]) for k in range(12)]
    _run(tmp_path, 0, frames)
    _run(tmp_path, 1, frames, Atoms("H2", [[0, 0, 0], [0, 0, 3.0]]))
    common = {"settings": {"interval": 20, "timestep_fs": 0.5}, "stable_ps": 0.11}
    unsure = {"kind": "uncertain", "brief": "uncertain H0", "time_ps": 0.11, "value": 0.7}
    torn = {"kind": "bond break", "brief": "bond break H0-H1", "time_ps": 0.12, "value": 3.0}
    runs = [{**common, "failure": unsure}, {**common, "failure": torn}, {**common, "failure": None}]
    start = frames[0].copy()
    start.set_initial_magnetic_moments([1.0, -1.0])
    start.info["charge"] = 1
    found = candidates_of(runs, tmp_path, [start])
    assert all(one.atoms.get_initial_magnetic_moments().tolist() == [1.0, -1.0] for one in found)
    assert all(one.atoms.info == {"charge": 1} for one in found)
    lengths = [round(one.atoms.get_distance(0, 1), 4) for one in found]
    assert lengths == [0.81, 0.79, 0.76, 3.0, 0.81, 0.79, 0.76, 0.71]
    assert [one.run for one in found] == [0] * 3 + [1] * 5
    assert (found[0].spread, found[3].spread) == (0.7, None)
    assert found[2].time_ps == pytest.approx(0.06) and found[2].reason == "50 fs before: uncertain H0"
    assert found[4].time_ps == pytest.approx(0.11)
