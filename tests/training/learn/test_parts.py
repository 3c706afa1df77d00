"""Parts of the loop: settings, start and candidate structures, choice of frames, calibration."""

import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.io import write

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.analysis.survival import survival
from asecalc_mlip.checkpoint import save
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_json, read_structures, write_json
from asecalc_mlip.models import add_potentials, build_potential
from asecalc_mlip.plots.learning import calibration_figure, course_figure
from asecalc_mlip.plots.survival import survival_figure
from asecalc_mlip.stopping import Interrupted
from training.config import replace_values
from training.data.split import Split
from training.learn.committee import (
    calibration,
    configured,
    member_config,
    quietly,
    training_settings,
    write_data,
)
from training.learn.final import _hand_over
from training.learn.loop import _raised
from training.learn.selection import COPY, atomic_features, farthest
from training.learn.settings import LearnSettings, Until
from training.learn.state import SETTINGS, Folder
from training.learn.structures import OVERLAP, candidates_of, check_starts, first_structures, is_physical
from training.run.continuing import settings_before
from training.run.useless import refuse_useless


@pytest.mark.parametrize(
    ("text", "replicas", "ps"),
    [("8 x 50 ps", 8, 50.0), ("4x5ps", 4, 5.0), (" 2 × 0.5 ns", 2, 500.0), ("1*20 fs", 1, 0.02)],
)
def test_until_is_read(text, replicas, ps):
    assert Until.read(text) == Until(replicas, pytest.approx(ps))


@pytest.mark.parametrize(
    "text", ["", "8 x 50", "x 50 ps", "0 x 5 ps", "8 x 0 ps", "8 x -5 ps", "1e3 x 5 ps", "8 x inf ps"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="8 x 50 ps"):
        Until.read(text)


def test_settings_that_the_loop_sets_itself_are_refused():
    with pytest.raises(InputError, match="run.output.*leave it out"):
        LearnSettings("xtb", training=("run.output=elsewhere",))
    with pytest.raises(InputError, match="--members is 1"):
        LearnSettings("xtb", members=1)
    with pytest.raises(InputError, match="ramp"):
        LearnSettings("xtb", pressure_GPa=0.0, temperature_end_K=900.0)


@pytest.mark.parametrize(
    ("given", "architecture", "size"),
    [
        ((), "tensornet", {"n_features": 32, "n_interactions": 2}),
        (("model.architecture=painn",), "painn", {"n_features": 32, "n_interactions": 2}),
        (("model.hyperparameters.n_features=8",), "tensornet", {"n_features": 8, "n_interactions": 2}),
        (("model.architecture=schnet",), "schnet", {}),
    ],
)
def test_members_are_small_tensornets_unless_the_user_names_others(given, architecture, size, tmp_path):
    folder, settings = Folder(tmp_path), LearnSettings("xtb", training=given)
    folder.path.mkdir(exist_ok=True)
    first = member_config(folder, folder.round(0), settings, 0, "GFN2-xTB")
    assert (first.model.architecture, dict(first.model.hyperparameters)) == (architecture, size)
    final = configured({"data.train": "data.xyz"}, settings)
    assert final.model.architecture == architecture
    assert "n_interactions" not in final.model.hyperparameters


def test_a_model_to_start_from_is_added_to_the_potential_that_the_user_names(tmp_path):
    energies, folder = {1: 0.0, 8: 0.0}, Folder(tmp_path)
    network = build_potential("tensornet", {"n_features": 8, "n_interactions": 1}, reference_energies=energies)
    fitted = build_potential("eam", {"elements": [1, 8]}, reference_energies=energies)
    save(tmp_path / "alone.pt", network)
    save(tmp_path / "added.pt", add_potentials([network, fitted], reference_energies=energies))
    for name, number, delta in (("alone.pt", 0, "zbl"), ("added.pt", 0, None), ("alone.pt", 1, None)):
        settings = LearnSettings("xtb", model=str(tmp_path / name), training=("finetune.delta=zbl",))
        assert member_config(folder, folder.round(number), settings, 0, "x").finetune.delta == delta


@pytest.mark.parametrize(
    ("given", "ensemble", "together"),
    [({}, "nvt", True), ({"pressure_GPa": 1.0}, "npt", False), ({"temperature_end_K": 900.0}, "anneal", False)],
)
def test_conditions_are_those_of_the_dynamics(given, ensemble, together):
    settings = LearnSettings("xtb", temperature_K=321.0, until=Until(2, 1.0), timestep_fs=0.5, interval=30, **given)
    dynamics = settings.dynamics("m.pt", 7)
    assert (dynamics.ensemble, dynamics.temperature_K, dynamics.seed, settings.together) == (
        ensemble,
        321.0,
        7,
        together,
    )
    assert dynamics.steps == 2010 and dynamics.steps % settings.interval == 0  # 1 ps, up to whole intervals


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


def test_the_threshold_rises_after_rounds_of_copies_and_not_after_the_last_label():
    copies = {"candidates": 3, "unphysical": 1, "taken": [], "left": 4}
    assert _raised([copies]) == 1.25
    assert _raised([{**copies, "left": 0}, {**copies, "taken": [{}]}, {**copies, "unphysical": 3}]) == 1.0


def test_a_clock_whose_last_line_was_cut_off_goes_on(tmp_path):
    folder = Folder(tmp_path)
    (tmp_path / "clock.jsonl").write_text('{"what": "labels", "seconds": 2.0}\n{"what": "labels", "sec')
    with folder.timed("labels"):
        pass
    assert folder.seconds()["labels"] == pytest.approx(2.0, abs=0.5)


@pytest.mark.parametrize(
    ("given", "useless"),
    [
        ({"data": "given.xyz"}, {"initial": 25}),
        ({"threshold": 0.4}, {"tolerance": 0.2}),
        ({"labels": "silica_eam.pt"}, {"charge": 1}),
        ({"training": ("run.threads=1",)}, {"training": ["data.n_val=4", "run.threads=1"]}),
        ({"training": ("run.threads=1",)}, {"training": ["run.threads=1", "model.given.H=-13.6"]}),
    ],
)
def test_a_learning_that_was_begun_with_what_has_no_effect_goes_on_without(given, useless, tmp_path):
    folder, settings = Folder(tmp_path), LearnSettings(**{"labels": "xtb", **given})
    folder.open(settings, [molecule("H2O")], {})
    stored = read_json(tmp_path / SETTINGS)
    write_json(tmp_path / SETTINGS, {**stored, "settings": {**stored["settings"], **useless}})
    folder.open(settings, [molecule("H2O")], {})
    with pytest.raises(InputError, match="per_round was 8, is 9"):
        folder.open(replace(settings, per_round=9), [molecule("H2O")], {})


def test_trainings_of_such_a_learning_go_on(tmp_path, monkeypatch):
    folder, settings = Folder(tmp_path), LearnSettings("xtb", training=("model.given.H=-13.6",))
    with pytest.raises(InputError, match="model.given has no effect"):
        folder.open(settings, [molecule("H2O")], {})
    assert not (tmp_path / SETTINGS).exists()
    member = member_config(folder, folder.round(0), settings, 0, "x")
    refuse_useless(member)
    trained, place = [], Path(member.run.output)
    monkeypatch.setattr("training.learn.committee.train", trained.append)
    # A member that was killed: what it was begun with has no effect, or the loop makes it now.
    for old, begins_anew in ({"data.n_val": 4}, False), ({"data.split_seed": 5}, True):
        place.mkdir(exist_ok=True)
        (place / "config.yaml").write_text(yaml.safe_dump(replace_values(member, old).to_dict()))
        (place / "last.ckpt").touch()
        quietly(folder, tmp_path / "log", member)
        assert trained.pop() == member and place.exists() != begins_anew
        if not begins_anew:
            assert settings_before(member, place) is not None


def test_the_clock_counts_pieces_that_a_signal_ends(tmp_path):
    folder = Folder(tmp_path)
    with pytest.raises(Interrupted), folder.timed("training"):
        time.sleep(0.06)
        raise Interrupted
    assert folder.seconds()["training"] == pytest.approx(0.1, abs=0.05)


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


def test_farthest_frames_come_first_and_copies_never():
    numbers = np.array([1, 8])
    known = [np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])]
    frames = [np.array([[0.0], [1.0]]), np.array([[0.1], [0.0]]), np.array([[5.0], [0.0]]), np.array([[5.2], [0.0]])]
    taken = farthest(frames, [numbers] * 4, known, [numbers] * 2, 10)
    # Of frame 0 each atom is known, frame 2 is near frame 3; the scale of the known atoms is 0.5.
    assert [k for k, _ in taken] == [3, 2, 1]
    assert [d for _, d in taken] == pytest.approx([8.4, 0.4, 0.2])
    assert farthest(frames, [numbers] * 4, known, [numbers] * 2, 1) == taken[:1]
    tiny = [known[0] + 0.4 * COPY]
    assert farthest(tiny, [numbers], known, [numbers] * 2, 5) == []


def test_many_atoms_are_compared_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    many, known = [rng.normal(size=(40, 3)) for _ in range(50)], [rng.normal(size=(40, 3)) for _ in range(100)]
    numbers = [np.full(40, 6)]
    whole = farthest(many, numbers * 50, known, numbers * 100, 5)
    monkeypatch.setattr("training.learn.selection.PIECE", 10_000)
    tracemalloc.start()
    assert farthest(many, numbers * 50, known, numbers * 100, 5) == whole
    assert tracemalloc.get_traced_memory()[1] < 2e6  # all distances at once have 64 MB
    tracemalloc.stop()


def test_an_element_is_compared_with_its_own_atoms_only():
    known, candidates = [np.array([[0.0], [9.0]])], [np.array([[9.0], [9.0]]), np.array([[0.0], [9.0]])]
    taken = farthest(candidates, [np.array([1, 8])] * 2, known, [np.array([1, 8])], 5)
    assert [k for k, _ in taken] == [0]  # its hydrogen looks like a known oxygen, and no known hydrogen


@pytest.mark.parametrize("architecture", ["painn", "schnet"])
def test_features_know_a_turned_molecule_and_tell_a_stretched_one(architecture):
    start = molecule("H2O")
    turned, stretched = start.copy(), start.copy()
    turned.rotate(77.0, (1, 2, 3))
    stretched.set_distance(0, 1, 1.3, fix=0)
    potential = build_potential(architecture, {"n_features": 8}, reference_energies={1: 0.0, 8: 0.0}).eval()
    same, other, base = atomic_features(potential, [turned, stretched, start])
    np.testing.assert_allclose(same, base, atol=1e-4)
    assert np.abs(other - base).max() > 1e-3


class HalfAsSure:
    """A committee whose spread is half of its error."""

    def evaluate(self, frames):
        sizes = np.random.default_rng(0).uniform(0.1, 2.0, (len(frames), 3))
        return [
            {"forces": a.arrays["forces"] + s[:, None] * [1.0, 0.0, 0.0], "forces_std": 0.5 * s}
            for a, s in zip(frames, sizes, strict=True)
        ]


def waters(number):
    frames = [molecule("H2O") for _ in range(number)]
    for atoms in frames:
        atoms.arrays["forces"] = np.zeros((3, 3))
    return frames


def test_calibration_of_spreads_that_are_half_of_the_errors():
    found = calibration(HalfAsSure(), waters(4))
    assert found["ratio"] == pytest.approx(2.0)
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["force_mae_meV_A"] == pytest.approx(1e3 * np.mean(found["error"]) / 3, rel=1e-4)


def test_one_strained_frame_does_not_decide_the_calibration():
    class Strained(HalfAsSure):
        def evaluate(self, frames):
            results = super().evaluate(frames)
            results[-1]["forces"] = results[-1]["forces"] + 20.0
            return results

    found = calibration(Strained(), waters(10))
    assert found["ratio"] == pytest.approx(2.0, rel=0.15)
    assert max(found["error"]) > 10 * max(found["spread"])


def test_lines_of_the_calibration_figure_are_root_mean_squares_of_tenths():
    spread = np.arange(1.0, 201.0)
    shuffled = np.random.default_rng(0).permutation(200)
    axes = calibration_figure({"held out": (spread[shuffled], 3.0 * spread[shuffled])}).axes[0]
    line = axes.lines[-1]
    assert line.get_xdata() == pytest.approx(np.sqrt((spread.reshape(10, 20) ** 2).mean(axis=1)))
    assert line.get_ydata() == pytest.approx(3.0 * np.asarray(line.get_xdata()))
    few = calibration_figure({"held out": (spread[:50], spread[:50])}).axes[0].lines[-1]
    assert len(few.get_xdata()) == 2


def test_points_of_the_calibration_figure_hide_neither_lines_nor_legend():
    drawn = calibration_figure({"few": ([1.0] * 20, [1.0] * 20), "many": ([1.0] * 200, [2.0] * 200)})
    equal, few, line, many, other = drawn.axes[0].lines
    assert equal.get_label() == "error = spread" and line.get_label() == "few" and other.get_label() == "many"
    assert many.zorder < few.zorder < line.zorder == other.zorder
    assert drawn.axes[0].get_legend() is None and len(drawn.legends) == 1


@pytest.mark.parametrize(("broken", "ends"), [(True, "a frame to label"), (False, "quiet to the end")])
def test_the_legend_of_the_course_names_what_is_drawn(broken, ends):
    drawn = course_figure([10], [50.0], [[1.0, 2.0]], [[broken, broken]], end_ps=5.0)
    assert [text.get_text() for text in drawn.axes[1].get_legend().get_texts()] == [ends, "median", "asked for"]


def test_survival_on_a_logarithmic_axis_of_time():
    drawn = survival_figure({"10 labels": survival([0.01, 50.0], [True, False])}, log_time=True)
    assert drawn.axes[0].get_xscale() == "log"
    assert survival_figure({"10 labels": survival([0.01, 50.0], [True, False])}).axes[0].get_xlim()[0] == 0.0


def test_replicas_of_a_learning_are_quiet_and_not_only_stable():
    axes = survival_figure({"10 labels": survival([0.01, 50.0], [True, False])}, word="quiet").axes[0]
    assert (
        axes.get_ylabel() == "Runs still quiet (%; shaded: 95 % limits)"
        and axes.lines[0].get_label() == "10 labels: 1 of 2 quiet"
    )
