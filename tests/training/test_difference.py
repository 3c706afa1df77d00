"""A teacher and networks of its difference to the labels: what the sum says, and what a kill costs."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.teachers import Failed, Labels
from asecalc_mlip.teachers.corrected import CorrectedTeacher
from tests.cases import make_structure, model_file
from tests.training.levels import files, tiny

pytest.importorskip("schnetpack")
from asecalc_mlip import PIWSLCalculator  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from training import difference, pretrain, train  # noqa: E402


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
    made = {int(a.info["structure"]): a for a in read_frames(tmp_path / "run" / pretrain.LABELLED)}
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
    (tmp_path / "run" / pretrain.LABELLED).unlink()
    (tmp_path / "run" / "last.ckpt").unlink()
    (tmp_path / "run" / "model.pt").unlink()
    train.train(settings)
    assert before == ((place / "0" / "network.pt").stat().st_mtime_ns, (place / "teacher.xyz").stat().st_mtime_ns)
    assert (place / "1" / "summary.json").is_file() and (tmp_path / "run" / pretrain.LABELLED).is_file()


def test_a_teacher_that_labels_nothing_of_the_data_is_named(tmp_path, monkeypatch):
    data, eam = files(tmp_path)

    class Cold(_Constant):
        def label(self, structures):
            return (Failed("cold") for _ in structures)

    monkeypatch.setattr(difference, "open_teacher", lambda name: Cold())
    with pytest.raises(DataError, match="constant and the data have 0 labels in common.*cold"):
        train.train(tiny(tmp_path, data, f"pretrain.teacher={eam}", "pretrain.correct=1"))
    with pytest.raises(InputError, match=r"there is none; name pretrain\.teacher"):
        train.train(tiny(tmp_path, data, "pretrain.correct=1", output="none"))
