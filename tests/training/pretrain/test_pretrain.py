"""Pretraining on the labels of an EAM: made in the run's folder or read from a file, and told in the card."""

import json

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read, write

from asecalc_mlip.calculators.eam import EAMCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.teachers import Failed, Labels
from asecalc_mlip.teachers.labelling import failures_of
from asecalc_mlip.teachers.model import ModelTeacher
from tests.training.levels import files, tiny

pytest.importorskip("schnetpack")
from asecalc_mlip.data.census import census  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from training import (
    main,  # noqa: E402
    train,  # noqa: E402
)
from training.eam.files import label_file  # noqa: E402
from training.eam.worker import perturbed  # noqa: E402
from training.pretrain.labels import LABELLED, Copies, label_hot_runs, large_labels, recipe_of  # noqa: E402
from training.run.continuing import settings_before  # noqa: E402
from training.settings import PretrainConfig  # noqa: E402

LABELS = {"rounds": 2, "strength": 0.3}
RECIPE = ("pretrain.rounds=2", "pretrain.strength=0.3")


def test_data_and_eam_in_one_command(tmp_path, capsys):
    data, eam = files(tmp_path)
    settings = tiny(tmp_path, data, f"pretrain.teacher={eam}", *RECIPE, "run.max_epochs=1")
    run = train.prepare(settings)
    made = tmp_path / "run" / LABELLED
    frames, sources = read_frames(made), read_frames(data)
    # Of 14 structures a fine-tuning would train on 8, validate on 4 and test on 2, which are not labelled.
    plain = train.prepare(tiny(tmp_path, data, output="plain")).split
    assert len(frames) == 24 and len(run.split.train) == 16 and len(run.split.val) == 8
    seen = sorted(plain.train + plain.val)
    for k, atoms in enumerate(frames):
        source = seen[k // 2]
        assert (k in run.split.train) == (source in plain.train)
        assert k % 2 or abs(atoms.positions - sources[source].positions).max() < 1e-9
    # Labels that are there are not made again.
    before = made.stat().st_mtime_ns
    result = train.train(settings)
    assert made.stat().st_mtime_ns == before
    found = load(result.model).card["pretraining"]
    assert found["teacher"] == "eam.pt" and (found["rounds"], found["strength"]) == (2, 0.3)
    with pytest.raises(InputError, match=r"pretrain\.rounds was 2, is 3"):
        train.prepare(tiny(tmp_path, data, f"pretrain.teacher={eam}", "pretrain.rounds=3"))


def test_a_split_file_counts_the_isolated_atoms_too(tmp_path):
    """Else the structures that are held back for a test would be those that are labelled."""
    data, eam = files(tmp_path)
    atoms = [Atoms([z], info={"REF_energy": -4.0}) for z in (11, 17)]
    write(data, [*atoms, *read(data, ":")], format="extxyz")
    split = {"train": [2, 3, 4, 5, 6, 7], "val": [8, 9, 10], "test": [11, 12, 13, 14, 15]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    teacher = (f"pretrain.teacher={eam}", "pretrain.rounds=1", f"data.split_file={tmp_path / 'split.json'}")
    run = train.prepare(tiny(tmp_path, data, *teacher))
    sources = read_frames(data)
    assert (len(run.split.train), len(run.split.val)) == (6, 3)
    for atoms, i in zip(run.frames, [*split["train"], *split["val"]], strict=True):
        assert abs(atoms.positions - sources[i].positions).max() < 1e-9
    # Nothing is labelled where nothing is left to validate on.
    (tmp_path / "split.json").write_text(json.dumps({**split, "val": [0, 1]}))
    with pytest.raises(InputError, match="nothing but isolated atoms to train or to validate on"):
        train.prepare(tiny(tmp_path, data, *teacher, output="refused"))
    assert not (tmp_path / "refused" / LABELLED).exists()


@pytest.mark.parametrize("correct", [0, 1])
def test_a_test_file_is_looked_at_before_a_teacher_labels(correct, tmp_path, monkeypatch):
    """It was refused after hours of labelling."""
    data, eam = files(tmp_path)

    def labels(*arguments, **options):
        raise AssertionError("labels were made")

    monkeypatch.setattr("training.splitting.label_sources", labels)
    monkeypatch.setattr("training.pretrain.difference.corrected", labels)
    write(tmp_path / "bare.xyz", Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]]))
    frame = read(data)
    frame.numbers[0] = 26
    write(tmp_path / "iron.extxyz", frame)
    (tmp_path / "cut.xyz").write_text("3\n\nH 0 0 0\n")
    for name, part in {
        "absent.xyz": "absent.xyz: no such file",
        "bare.xyz": "bare.xyz has no labels",
        "iron.extxyz": "iron.extxyz has Fe, which no training frame has",
        "cut.xyz": "cut.xyz: frame 0",
    }.items():
        given = (f"pretrain.teacher={eam}", f"pretrain.correct={correct}", f"data.test={tmp_path / name}")
        with pytest.raises(InputError, match=part):
            train.train(tiny(tmp_path, data, *given, output=f"run-{name}"))
    with pytest.raises(AssertionError, match="labels were made"):
        train.train(tiny(tmp_path, data, *given[:2], f"data.test={data}", output="sound"))


@pytest.mark.parametrize("kind", ["xyz", "db"])
def test_a_labelled_file(kind, tmp_path):
    data, eam = files(tmp_path)
    made = label_file(str(data), str(eam), str(tmp_path / f"made.{kind}"), progress=False, **LABELS)
    recipe = recipe_of(made)
    assert recipe is not None and recipe["teacher"] == "eam.pt" and recipe["rounds"] == 2
    assert recipe_of(data) is None
    run = train.prepare(tiny(tmp_path, made))
    assert run.pretraining == recipe


def test_data_without_such_labels_are_refused(tmp_path):
    data, eam = files(tmp_path)
    tiny(tmp_path, data)  # leaves small.yaml
    with pytest.raises(InputError, match=r"was not labelled by a teacher.*pretrain\.teacher"):
        main.pretrain([str(tmp_path / "small.yaml")], [f"data.train={data}", f"run.output={tmp_path / 'run'}"])
    from tests.cases import model_file

    with pytest.raises(InputError, match="does not know"):
        train.prepare(tiny(tmp_path, data, f"pretrain.teacher={model_file(tmp_path)}"))


def test_forces_that_would_be_implausible_elsewhere_are_accepted(tmp_path, monkeypatch):
    data, eam = files(tmp_path)
    made = label_file(str(data), str(eam), str(tmp_path / "made.xyz"), progress=False, **LABELS)
    # Between the typical forces of the data, 0.35 eV/Å, and of the labels, 0.65.
    monkeypatch.setattr("asecalc_mlip.data.plausibility.MAX_TYPICAL_FORCE", 0.5)
    frames = read_frames(made)
    with pytest.raises(DataError, match="rms force of a typical frame"):
        census(frames).require({"forces": 1.0})
    train.prepare(tiny(tmp_path, made, output="file"))
    train.prepare(tiny(tmp_path, data, f"pretrain.teacher={eam}", *RECIPE, output="made"))
    replay = (f"finetune.old_data={made}", "finetune.replay=0.5", "finetune.n_old=8")
    train.prepare(tiny(tmp_path, data, *replay, output="replay"))


def test_only_large_labels_of_an_eam_are_accepted(tmp_path):
    data, eam = files(tmp_path)
    made = label_file(str(data), str(eam), str(tmp_path / "made.xyz"), progress=False, **LABELS)
    frames = read_frames(made)
    assert large_labels(made, frames) == ("energy", "forces", "stress")
    # One frame of another source, and the file is judged like any other.
    assert large_labels(made, [*frames, *read_frames(data)]) == ()
    frames[3].positions[1] = frames[3].positions[0] + 0.05
    with pytest.raises(DataError, match="overlap"):
        census(frames).require({"forces": 1.0}, allow_implausible=("forces", "stress"))


def test_isolated_dimers_follow_the_structures(tmp_path):
    data, eam = files(tmp_path, 3)
    path = label_file(str(data), str(eam), str(tmp_path / "made.xyz"), rounds=2, dimers=5, progress=False)
    frames = read_frames(path)
    assert [len(atoms) for atoms in frames[6:]] == [2] * 15 and not frames[6].pbc.any()
    distances = [atoms.get_distance(0, 1) for atoms in frames[6:11]]
    assert np.allclose(distances, np.linspace(0.25, 4.5, 5))
    assert {atoms.get_chemical_formula() for atoms in frames[6:]} == {"Na2", "ClNa", "Cl2"}
    # Energies of the EAM itself, and forces along the pair.
    calc = EAMCalculator.load(eam, dtype="float64")
    assert frames[7].info["energy"] == pytest.approx(calc.get_potential_energy(frames[7]), rel=1e-5)
    # They overlap on purpose, and are not refused for it; the file is continued like any other.
    assert "structure" in large_labels(path, frames)
    text = path.read_text()
    path.write_text(text[: text.rindex("2\n")])
    assert label_file(str(data), str(eam), str(path), rounds=2, dimers=5, progress=False).read_text() == text
    alone = label_file(str(data), str(eam), str(tmp_path / "pairs.xyz"), rounds=0, dimers=5, progress=False)
    assert [list(atoms.symbols) for atoms in read_frames(alone)] == [list(atoms.symbols) for atoms in frames[6:]]
    with pytest.raises(InputError, match="rounds 0"):
        label_file(str(data), str(eam), str(tmp_path / "none.xyz"), rounds=0, progress=False)
    with pytest.raises(InputError, match="recipe|made by"):
        label_file(str(data), str(eam), str(path), rounds=2, dimers=6, progress=False)


def test_copies_are_made_one_at_a_time_and_are_the_same_in_any_order():
    structures = [Atoms("HCl", [[0, 0, 0], [0, 0, d]]) for d in (1.0, 1.1, 1.2)]
    copies = Copies(structures, settings := PretrainConfig(rounds=4, seed=5))
    whole = [perturbed(settings, k, n, atoms) for k, atoms in enumerate(structures) for n in range(4)]
    assert len(copies) == 12 and list(copies) == whole and copies[7:9] == whole[7:9] and copies[5] == whole[5]
    assert whole[7].info == copies[7].info == {"structure": 1, "round": 4, "displaced": settings.strength}
    with pytest.raises(InputError, match="structure 1, round 1: .*1 atom"):
        Copies([structures[0], Atoms("H")], settings)


class _Spring:
    """A teacher that cannot label atoms that are further apart than a limit."""

    name = "spring"

    def __init__(self, longest=9.0):
        self.longest, self.calls = longest, 0

    def recipe(self):
        return {"teacher": self.name}

    def label(self, structures):
        for atoms in structures:
            self.calls += 1
            vector = atoms.positions[1] - atoms.positions[0]
            r = float(np.linalg.norm(vector))
            pull = 20.0 * (r - 1.0) * vector / r
            yield Failed("too long") if r > self.longest else Labels(10.0 * (r - 1.0) ** 2, np.array([pull, -pull]))


def _hot(structures, path, teacher, **changes):
    settings = PretrainConfig(**{"rounds": 12, "temperature": 900.0, "seed": 3, **changes})
    label_hot_runs(structures, settings, teacher, path, recipe={"rounds": 12}, progress=False)
    return read_frames(path)


def test_frames_of_the_teachers_dynamics_have_its_labels_and_survive_a_kill(tmp_path):
    structures = [Atoms("HCl", [[0, 0, 0], [0, 0, d]]) for d in (1.0, 1.1)]
    frames = _hot(structures, tmp_path / "whole.xyz", _Spring())
    assert [atoms.info["structure"] for atoms in frames] == [0] * 12 + [1] * 12
    for atoms in frames:
        (expected,) = _Spring().label([atoms])
        assert np.allclose(atoms.arrays["forces"], expected.forces, atol=1e-7)
        assert atoms.info["energy"] == pytest.approx(expected.energy, abs=1e-7)
    assert not np.allclose(frames[3].positions, frames[15].positions)
    # Killed while it wrote the frames of the second structure.
    text = (tmp_path / "whole.xyz").read_text()
    (tmp_path / "cut.xyz").write_text(text[: int(0.7 * len(text))])
    teacher = _Spring()
    _hot(structures, tmp_path / "cut.xyz", teacher)
    assert (tmp_path / "cut.xyz").read_text() == text
    assert teacher.calls < 600  # of one structure, two trajectories of 200 steps
    teacher.calls = 0
    _hot(structures, tmp_path / "cut.xyz", teacher)
    assert teacher.calls == 0


def test_hotter_dynamics_of_the_teacher_reach_further_and_end_where_it_fails(tmp_path, caplog):
    def spread(temperature):
        frames = _hot([Atoms("HCl", [[0, 0, 0], [0, 0, 1.0]])], tmp_path / f"{temperature}.xyz", _Spring(),
                      temperature=temperature, rounds=200)  # fmt: skip
        return np.std([atoms.get_distance(0, 1) for atoms in frames])

    assert spread(3000.0) > 1.8 * spread(300.0)
    start, weak = [Atoms("HCl", [[0, 0, 0], [0, 0, 1.0]])], _Spring(1.25)
    left = _hot(start, tmp_path / "weak.xyz", weak, temperature=3000.0, rounds=200)
    assert 0 < len(left) < 200 and f"left out {200 - len(left)} frames; the first one: too long" in caplog.text
    # It is not run again, which would cost as many labels.
    assert [one["number"] for one in failures_of(tmp_path / "weak.xyz")] == [0]
    weak.calls = 0
    assert len(_hot(start, tmp_path / "weak.xyz", weak, temperature=3000.0, rounds=200)) == len(left)
    assert weak.calls == 0


def test_a_teacher_that_labels_nothing_says_why_and_is_asked_again(tmp_path):
    start, settings = [Atoms("HCl", [[0, 0, 0], [0, 0, 1.0]])], PretrainConfig(rounds=2, temperature=900.0)
    for _ in range(2):
        teacher = _Spring(0.5)
        label_hot_runs(start, settings, teacher, tmp_path / "x.xyz", recipe={"rounds": 2}, progress=False)
        assert teacher.calls and [one["reason"] for one in failures_of(tmp_path / "x.xyz")] == ["too long"]


class _Stiff(_Spring):
    """Another spring, for dynamics that a teacher only labels."""

    name = "stiff"


def test_a_sampler_moves_the_atoms_and_the_teacher_labels(tmp_path):
    structures = [Atoms("HCl", [[0, 0, 0], [0, 0, 1.0]])]
    settings = PretrainConfig(rounds=12, temperature=900.0, seed=3)

    def made(teacher, sampler, name):
        label_hot_runs(
            structures, settings, teacher, tmp_path / name, recipe={"rounds": 12}, progress=False, sampler=sampler
        )
        return read_frames(tmp_path / name)

    alone, teacher = made(_Spring(), None, "alone.xyz"), _Spring()
    frames = made(teacher, _Stiff(), "sampled.xyz")
    # The same forces make the same frames, and the teacher is asked for each of them only.
    assert all(np.allclose(a.positions, b.positions) for a, b in zip(frames, alone, strict=True))
    assert teacher.calls == 12
    for atoms in frames:
        (expected,) = _Spring().label([atoms])
        assert atoms.info["energy"] == pytest.approx(expected.energy, abs=1e-7) and atoms.info["teacher"] == "spring"
    # What the teacher cannot label is left out, also after a kill.
    longest = np.median([atoms.get_distance(0, 1) for atoms in frames])
    few = made(_Spring(longest), _Stiff(), "few.xyz")
    assert 0 < len(few) < 12 and len(made(_Spring(longest), _Stiff(), "few.xyz")) == len(few)


def test_the_base_as_sampler(tmp_path):
    data, eam = files(tmp_path)
    hot = ("pretrain.rounds=2", "pretrain.temperature=300", "data.n_train=3", "data.n_val=1", "run.max_epochs=1")
    with pytest.raises(InputError, match=r"sampler is base, but the run has none"):
        train.prepare(tiny(tmp_path, data, f"pretrain.teacher={eam}", "pretrain.sampler=base", *hot))
    base = train.train(tiny(tmp_path, data, "run.max_epochs=1", output="base")).model
    given = (f"pretrain.teacher={eam}", "pretrain.sampler=base", f"finetune.base={base}", *hot)
    run = train.prepare(tiny(tmp_path, data, *given, output="sampled"))
    assert run.pretraining["sampler"] == base.name and run.pretraining["teacher"] == "eam.pt"
    sampled = read_frames(tmp_path / "sampled" / LABELLED)
    calc = EAMCalculator.load(eam, dtype="float64")
    assert len(sampled) == 8 and sampled[1].info["energy"] == pytest.approx(calc.get_potential_energy(sampled[1]))


def test_a_sampler_without_a_file_is_known_again(tmp_path, monkeypatch):
    """As xtb, which has no checksum: an empty one would swallow the next name in the file, here the stress."""
    data, eam = files(tmp_path)
    asked = []

    class Program(ModelTeacher):
        def recipe(self):
            return {"teacher": "GFN2-xTB", "tblite": "v0.4"}

    def opened(name, *, device):
        assert device == "cpu"
        asked.append(name)
        return Program(eam) if name == "xtb" else ModelTeacher(name)

    monkeypatch.setattr("training.pretrain.labels.open_teacher", opened)
    hot = ("pretrain.rounds=1", "pretrain.temperature=300", "data.n_train=1", "data.n_val=1", "loss.stress_weight=1.0")
    settings = tiny(tmp_path, data, f"pretrain.teacher={eam}", "pretrain.sampler=xtb", *hot)
    for _ in range(2):
        run = train.prepare(settings)
        assert run.pretraining["sampler"] == "GFN2-xTB" and "sampler_sha256" not in run.pretraining
    assert asked == [str(eam), "xtb"] * 2


def test_a_sampler_that_would_do_nothing_is_refused(tmp_path):
    data, eam = files(tmp_path, 2)
    for given, text in (
        ([f"pretrain.sampler={eam}"], r"for a teacher, and there is none"),
        ([f"pretrain.sampler={eam}", f"pretrain.teacher={eam}"], r"there is no temperature; name it"),
        (["pretrain.temperature=500"], r"of the dynamics of a teacher, and there is none"),
    ):
        with pytest.raises(InputError, match=text):
            train.prepare(tiny(tmp_path, data, *given))


def test_a_sampler_is_the_same_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "moves.py").write_text("")
    given = ("pretrain.teacher=xtb", "pretrain.temperature=300", "pretrain.sampler={}moves.py:calculator")
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.ckpt").touch()
    saved = tiny(tmp_path, "none.xyz", *(text.format(f"{tmp_path}/") for text in given))
    (run / "config.yaml").write_text(yaml.safe_dump(saved.to_dict()))
    monkeypatch.chdir(tmp_path)
    assert settings_before(tiny(tmp_path, "none.xyz", *(text.format("") for text in given)), run) == saved


def test_dynamics_of_a_teacher_in_one_command(tmp_path):
    data, eam = files(tmp_path)
    hot = ("pretrain.rounds=2", "pretrain.temperature=300", "data.n_train=3", "data.n_val=1", "run.max_epochs=1")
    result = train.train(tiny(tmp_path, data, f"pretrain.teacher={eam}", *hot))
    found = load(result.model).card["pretraining"]
    assert (found["rounds"], found["temperature"], found.get("strength")) == (2, 300.0, None)
    assert len(read_frames(tmp_path / "run" / LABELLED)) == 8
