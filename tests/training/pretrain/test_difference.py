"""A teacher and networks of its difference to the labels: what the sum says, and what a kill costs."""

import json

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read, write

from asecalc_mlip.checkpoint import load, save
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.teachers import Failed, Labels
from asecalc_mlip.teachers.corrected import CorrectedTeacher
from tests.cases import make_structure, model_file
from tests.training.levels import files, tiny

pytest.importorskip("schnetpack")
from asecalc_mlip import PIWSLCalculator  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from training import train  # noqa: E402
from training.pretrain import difference  # noqa: E402
from training.pretrain.labels import LABELLED  # noqa: E402


class _Constant:
    """A teacher that says the same of every structure, but nothing of cold ones."""

    name = "constant"

    def __init__(self, stress=None):
        self.stress = stress

    def recipe(self):
        return {"teacher": self.name, "temperature_K": 300}

    def label(self, structures):
        for atoms in structures:
            forces = np.full((len(atoms), 3), 0.25)
            yield Failed("cold") if atoms.info.get("cold") else Labels(3.0, forces, self.stress)


def test_the_networks_mean_is_added(tmp_path):
    paths = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        paths.append(model_file(tmp_path / str(seed), seed=seed))
    crystal = make_structure("crystal")
    structures = [crystal, crystal.copy()]
    structures[1].info["cold"] = True
    stress = np.diag([0.1, 0.2, 0.3])
    corrected = CorrectedTeacher(_Constant(stress), paths)
    labels, failed = corrected.label(structures)
    each = [PIWSLCalculator.load(path, device="cpu").evaluate([crystal])[0] for path in paths]
    assert labels.energy == pytest.approx(3.0 + np.mean([r["energy"] for r in each]), rel=1e-6)
    assert np.allclose(labels.forces, 0.25 + np.mean([r["forces"] for r in each], axis=0), atol=1e-6)
    mean = np.mean([r["stress"] for r in each], axis=0)
    assert np.allclose(np.diag(labels.stress), np.diag(stress) + mean[:3], atol=1e-7)
    assert isinstance(failed, Failed) and failed.reason == "cold"
    (without,) = CorrectedTeacher(_Constant(), paths).label([crystal])
    assert without.stress is None
    # Another network, or the networks of another teacher, are another teacher.
    assert corrected.recipe()["teacher"] == "constant, corrected by 2 networks"
    one = CorrectedTeacher(_Constant(), paths[:1]).recipe()
    assert one["teacher"] == "constant, corrected by 1 network" and one["temperature_K"] == 300
    assert one["teacher_sha256"] != corrected.recipe()["teacher_sha256"]


def test_a_corrected_teacher_in_one_command(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(difference, "NETWORK", {"n_features": 8, "n_interactions": 1, "n_rbf": 8, "cutoff": 4.5})
    monkeypatch.setattr(difference, "STEPS", 120)
    caplog.set_level("INFO", logger="asecalc_mlip")
    data, eam = files(tmp_path)
    # Isolated atoms are E0s of the difference, too.
    write(data, [Atoms([z], info={"REF_energy": -4.0}) for z in (11, 17)] + read(data, ":"), format="extxyz")
    given = (f"pretrain.teacher={eam}", "pretrain.rounds=1", "pretrain.correct=2", "run.max_epochs=1")
    settings = tiny(tmp_path, data, *given)
    result = train.train(settings)
    place = tmp_path / "run" / "difference"
    frames, asked, sources = (
        read_frames(place / "difference.xyz"),
        read_frames(place / "teacher.xyz"),
        read_frames(data),
    )
    assert len(frames) == len(asked) == 14
    for less, teacher in zip(frames, asked, strict=True):
        source = sources[teacher.info["place"]]
        assert less.info["energy"] == pytest.approx(source.info["energy"] - teacher.info["energy"], abs=1e-6)
        if len(source) > 1:
            assert np.allclose(less.arrays["forces"], source.arrays["forces"] - teacher.arrays["forces"], atol=1e-6)
        assert np.allclose(less.positions, source.positions, atol=1e-7)
    e0 = load(place / "0" / "network.pt").potential.reference_energies
    assert e0[11] == pytest.approx(-4.0 - asked[-2].info["energy"], abs=1e-5)
    # Frames held back for a test stay unseen.
    test = set(train.prepare(tiny(tmp_path, data, output="plain")).split.test)
    assert len(test) == 2 and not test & {teacher.info["place"] for teacher in asked}
    # What pretraining learns is nearer to the labels than the teacher is, on frames that no network trained on.
    split = json.loads((place / "split.json").read_text())
    made = {int(a.info["structure"]): a for a in read_frames(tmp_path / "run" / LABELLED)}
    chosen = sorted(a.info["place"] for a in asked if a.info["place"] > 1)

    def errors(of):
        return np.mean([np.abs(of(k) - sources[k].arrays["forces"]).mean()
                        for k in (asked[n].info["place"] for n in split["val"])])  # fmt: skip

    teacher = {a.info["place"]: a.arrays["forces"] for a in asked}
    assert errors(lambda k: made[chosen.index(k)].arrays["forces"]) < 0.95 * errors(teacher.get)
    assert "corrected by 2 networks" in load(result.model).card["pretraining"]["teacher"]
    assert "with the networks" in caplog.text
    # Killed in the second network: the first and the teacher's labels stay.
    before = (place / "0" / "network.pt").stat().st_mtime_ns, (place / "teacher.xyz").stat().st_mtime_ns
    (place / "1" / "summary.json").unlink()
    (tmp_path / "run" / LABELLED).unlink()
    (tmp_path / "run" / "last.ckpt").unlink()
    (tmp_path / "run" / "model.pt").unlink()
    train.train(settings)
    assert before == ((place / "0" / "network.pt").stat().st_mtime_ns, (place / "teacher.xyz").stat().st_mtime_ns)
    assert (place / "1" / "summary.json").is_file() and (tmp_path / "run" / LABELLED).is_file()


def test_a_teacher_that_labels_nothing_of_the_data_is_named(tmp_path, monkeypatch):
    data, eam = files(tmp_path)

    class Cold(_Constant):
        def label(self, structures):
            return (Failed("cold") for _ in structures)

    monkeypatch.setattr(difference, "open_teacher", lambda name, **_: Cold())
    with pytest.raises(DataError, match="constant and the data have 0 labels in common.*cold"):
        train.train(tiny(tmp_path, data, f"pretrain.teacher={eam}", "pretrain.correct=1"))
    with pytest.raises(InputError, match=r"there is none; name pretrain\.teacher"):
        train.train(tiny(tmp_path, data, "pretrain.correct=1", output="none"))


@pytest.fixture
def learn(tmp_path, monkeypatch):
    """Learn the difference of some data, with networks of random weights; return the settings of those that are made.

    A `teacher` takes the place of the EAM, whose file is there all the same.
    """
    monkeypatch.setattr(difference, "NETWORK", {"n_features": 4, "n_interactions": 1, "n_rbf": 4, "cutoff": 4.5})
    _, eam = files(tmp_path)

    def settings(data, *given, networks=1, output="run"):
        return tiny(tmp_path, data, f"pretrain.teacher={eam}", f"pretrain.correct={networks}", *given, output=output)

    def learned(data, *given, teacher=None, **options):
        made = []

        def quick(config):
            run = train.prepare(config)
            save(run.model, run.potential, card={"name": "network"})
            (run.folder / "summary.json").write_text("{}")
            made.append(config)

        if teacher is not None:
            monkeypatch.setattr(difference, "open_teacher", lambda name, **_: teacher)
        difference.learn_difference(settings(data, *given, **options), quick)
        return made

    learned.settings = settings
    return learned


def _without(path, *names):
    frames = read(path, ":")
    for atoms in frames:
        for name in names:
            (atoms.arrays if name == "REF_forces" else atoms.info).pop(name)
    write(path, frames, format="extxyz")


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_networks_learn_the_labels_that_there_are(label, learn, tmp_path):
    """The teacher has both, so that the loss of a pretraining may give weight to both."""
    data = tmp_path / "salt.xyz"
    _without(data, *{"REF_energy", "REF_forces", "REF_stress"} - {f"REF_{label}"})
    (made,) = learn(data, "loss.stress_weight=5.0")
    weights = {name: getattr(made.loss, f"{name}_weight") for name in ("energy", "forces", "stress")}
    assert [name for name, weight in weights.items() if weight] == [label]
    assert weights[label] == getattr(learn.settings(data).loss, f"{label}_weight")
    with pytest.raises(DataError, match=r"salt\.xyz has no energy and no forces"):
        _without(data, f"REF_{label}")
        learn(data, output="none")


def test_labels_that_a_training_refuses_are_refused(learn, tmp_path):
    """A wrong unit would be learned, as a difference has any size."""
    data = tmp_path / "salt.xyz"
    frames = read(data, ":")
    frames[3].arrays["REF_forces"][:] += 700.0
    write(data, frames, format="extxyz")
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": [2, 3, 4], "val": [5], "test": [6]}))
    with pytest.raises(DataError, match=r"a force of 1213.*data\.trust=true"):
        learn(data, f"data.split_file={split}")
    assert len(learn(data, f"data.split_file={split}", "data.trust=true")) == 1


def test_networks_of_other_labels_or_settings_are_not_taken(learn, tmp_path):
    data = tmp_path / "salt.xyz"
    assert len(learn(data)) == 1 and learn(data) == []
    assert len(learn(data, networks=2)) == 1
    (tmp_path / "run").rename(tmp_path / "moved")
    assert learn(data, networks=2, output="moved") == []
    with pytest.raises(InputError, match=r"learned something else: loss\.forces_weight was 100\.0, is 7\.0"):
        learn(data, "loss.forces_weight=7.0", output="moved")
    frames = read(data, ":")
    for atoms in frames:
        atoms.info["REF_energy"] += 0.1
    write(data, frames, format="extxyz")
    with pytest.raises(InputError, match="the labels or their split have changed"):
        learn(data, output="moved")


def test_trainings_with_other_seeds_share_no_network(learn, tmp_path):
    data = tmp_path / "salt.xyz"
    seeds = [[made.run.seed for made in learn(data, f"run.seed={k}", networks=2, output=f"run{k}")] for k in (0, 1)]
    assert len({seed for both in seeds for seed in both}) == 4
    assert [made.run.seed for made in learn(data, networks=2)] == seeds[0]
    with pytest.raises(InputError, match=r"run\.seed was \d+, is"):
        learn(data, "run.seed=0", networks=2, output="run1")


def test_a_run_that_is_refused_trains_no_network(learn, tmp_path):
    data, run = tmp_path / "salt.xyz", tmp_path / "run"
    learn(data)
    (run / LABELLED).touch()
    with pytest.raises(InputError, match="fewer networks than the 2"):
        learn(data, networks=2)
    (run / "config.yaml").write_text(yaml.safe_dump(learn.settings(data).to_dict()))
    (run / "last.ckpt").touch()
    with pytest.raises(InputError, match=r"pretrain\.correct was 1, is 2"):
        learn(data, networks=2)
    with pytest.raises(InputError, match=r"data\.weights: no frame has the config_type hot"):
        learn(data, "data.weights={hot: 2.0}", output="weights")
    moved = (f"pretrain.sampler={model_file(tmp_path)}", "pretrain.temperature=300")
    with pytest.raises(InputError, match=r"painn\.pt does not know the elements Cl, Na"):
        learn(data, *moved, output="sampler")
    for useless, told in (("model.given={Na: -1.0}", "model.given has no effect"), ("model.architecture=eam", "eam")):
        with pytest.raises(InputError, match=told):
            learn(data, useless, output="useless")
    with pytest.raises(InputError, match=r"data\.train is empty"):
        learn("''", output="none")
    assert not (run / "difference" / "1").exists()
    assert not any((tmp_path / name).exists() for name in ("weights", "sampler", "useless", "none"))


def test_structures_with_elements_that_no_network_learned_fail(learn, tmp_path, caplog):
    data, split, teacher = tmp_path / "salt.xyz", tmp_path / "split.json", _Constant()
    frames = read(data, ":")
    frames[5].numbers[0] = 19
    frames[6].info["cold"] = True
    write(data, frames, format="extxyz")
    split.write_text(json.dumps({"train": [2, 3, 4], "val": [5, 6, 7], "test": [8]}))
    learn(data, f"data.split_file={split}", teacher=teacher)
    corrected = CorrectedTeacher(teacher, [tmp_path / "run" / "difference" / "0" / "network.pt"])
    labels, failed, cold = corrected.label(frames[4:7])
    assert isinstance(labels, Labels) and "all of its elements" in failed.reason and cold.reason == "cold"


def test_isolated_atoms_of_two_levels(learn, tmp_path):
    """What is left of a binding energy may have any sign, and atoms of other elements concern no teacher."""
    data = tmp_path / "salt.xyz"
    boxed = Atoms("Na", cell=[5, 5, 5], pbc=True, info={"REF_energy": -10.0, "config_type": "IsolatedAtom"})
    alone = [boxed, *(Atoms(symbol, info={"REF_energy": -10.0}) for symbol in ("Cl", "Mg"))]
    write(data, alone + read(data, ":"), format="extxyz")
    (made,) = learn(data)
    asked = read_frames(tmp_path / "run" / "difference" / "teacher.xyz")
    sodium, chlorine = asked[-2:]
    assert not sodium.pbc.any() and sodium.info["place"] == 0 and chlorine.info["place"] == 1
    given = {"Na": -10.0 - sodium.info["energy"], "Cl": -10.0 - chlorine.info["energy"]}
    assert made.model.reference_energies == "given" and made.model.given == pytest.approx(given, abs=1e-6)


def test_frames_that_the_teacher_cannot_label_are_told(learn, tmp_path, caplog):
    class Picky(_Constant):
        def label(self, structures):
            for k, labels in enumerate(super().label(structures)):
                yield Failed("no convergence") if k == 2 else labels

    (made,) = learn(tmp_path / "salt.xyz", "run.batch_size=100", teacher=Picky())
    assert "constant could not label 1 frames, the first one: no convergence" in caplog.text
    assert made.run.batch_size == 7
