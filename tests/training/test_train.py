"""Training end to end on the analytic teacher: it learns, refuses bad data, and leaves what it promises."""

import json

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms, units
from ase.io import write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import DataError, InputError
from tests import teacher
from tests.small_runs import config, rows, weights

pytest.importorskip("schnetpack")
from asecalc_mlip.data.errors import evaluate_file  # noqa: E402
from training import train as training  # noqa: E402
from training.results.card import conditions_of  # noqa: E402


@pytest.fixture
def crystals(tmp_path):
    path = tmp_path / "crystals.xyz"
    frames = teacher.crystal_frames(20)
    # Cells of unlike size in one batch.
    frames[::2] = [teacher.labelled(atoms * (2, 1, 1)) for atoms in frames[::2]]
    write(path, teacher.as_reference(frames), format="extxyz")
    return path


@pytest.mark.parametrize("architecture", ["painn", "schnet"])
def test_learns_forces_and_leaves_a_model(architecture, molecules, tmp_path, capsys, figures):
    test = tmp_path / "test.xyz"
    write(test, teacher.as_reference(teacher.molecule_frames(20, seed=5)), format="extxyz")
    result = training.train(
        config(tmp_path, molecules, f"model.architecture={architecture}", f"data.test={test}", "run.max_epochs=60")
    )
    out = capsys.readouterr().out
    assert "energy 60/60, forces 60/60" in out
    assert "50 train, 10 validation" in out
    forces = np.concatenate([atoms.arrays["forces"] for atoms in teacher.molecule_frames(20, seed=5)])
    assert result.errors.mae["forces"] < 0.35 * 1000 * np.abs(forces).mean()
    folder = tmp_path / "run"
    files = ("model.pt", "parity.png", "learning_curve.png", "split.json", "config.yaml", "log.csv", "summary.json")
    for name in files:
        assert (folder / name).stat().st_size > 0
    assert list((folder / "tensorboard").rglob("events*"))
    card = PIWSLCalculator.load(folder / "model.pt").card
    assert card["training_data"]["train"] == 50
    assert card["test_errors"]["MAE"]["forces (meV/Å)"] == pytest.approx(result.errors.mae["forces"])
    assert json.loads((folder / "summary.json").read_text())["errors"]["n_structures"] == 20
    assert evaluate_file(str(folder / "model.pt"), str(test)).mae == pytest.approx(result.errors.mae, rel=1e-3)


def test_card_tells_the_conditions_that_dynamics_are_warned_by(tmp_path):
    from asecalc_mlip.md.conditions import known_temperatures, temperature_note
    from asecalc_mlip.md.monitor import force_limit

    frames = teacher.molecule_frames(20)
    for number, atoms in enumerate(frames):
        atoms.info["temperature_K" if number % 2 else "temperature"] = 250.0 + number
    write(tmp_path / "train.xyz", teacher.as_reference(frames), format="extxyz")
    training.train(config(tmp_path, tmp_path / "train.xyz", "run.max_epochs=1", "data.n_train=15", "data.n_val=5"))
    calculator = PIWSLCalculator.load(tmp_path / "run" / "model.pt")
    low, high = calculator.card["temperatures_K"]
    assert 250.0 <= low < high <= 269.0
    sizes = np.linalg.norm(np.concatenate([atoms.arrays["forces"] for atoms in frames]), axis=1)
    assert force_limit(calculator, None) == pytest.approx(sizes.mean() + 5 * sizes.std(), rel=0.2)
    note = temperature_note((600.0, 600.0), known_temperatures(calculator.card))
    assert note is not None and "the data of this model are from 25" in note
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_epoch"] == 1


def test_a_temperature_that_is_no_number_is_no_limit():
    frames = [Atoms("H", info={"temperature_K": value}) for value in (np.nan, 300.0, 500.0)]
    assert conditions_of(frames) == {"temperatures_K": [300.0, 500.0]} and conditions_of(frames[:1]) == {}


def test_errors_over_the_labels_that_are_there(tmp_path):
    """Some frames without energies, all energies in another unit: told, not dropped."""
    frames = teacher.as_reference(teacher.molecule_frames(20))
    path, training_file = tmp_path / "test.xyz", tmp_path / "train.xyz"
    write(training_file, frames, format="extxyz")
    training.train(config(tmp_path, training_file, "run.max_epochs=1", "data.n_val=5"))
    for atoms in frames[:3]:
        del atoms.info["REF_energy"]
    write(path, frames, format="extxyz")
    errors = evaluate_file(str(tmp_path / "run" / "model.pt"), str(path))
    assert errors.counts == {"energy": 17, "forces": 20} and not errors.warnings
    assert "(of 17 structures)" in repr(errors)
    for atoms in frames[3:12]:
        atoms.info["REF_energy"] *= 23.06
    write(path, frames, format="extxyz")
    mixed = evaluate_file(str(tmp_path / "run" / "model.pt"), str(path))
    assert mixed.warnings and "warning: " in repr(mixed)


def test_units_of_the_files(tmp_path):
    """Å and Hartree/Bohr: training file, test file and isolated atoms alike."""
    factor = 1 / units.Hartree
    for name, frames in {"train": teacher.molecule_frames(20), "test": teacher.molecule_frames(4, seed=5)}.items():
        for atoms in frames:
            atoms.info["energy"] *= factor
            atoms.arrays["forces"] *= factor * units.Bohr
        write(tmp_path / f"{name}.xyz", teacher.as_reference(frames), format="extxyz")
    reading = ("data.energy_unit=Hartree", "data.force_unit=Hartree/Bohr", f"data.test={tmp_path / 'test.xyz'}")
    result = training.train(config(tmp_path, tmp_path / "train.xyz", *reading, "run.max_epochs=1", "data.n_val=5"))
    expected = np.concatenate([atoms.arrays["forces"] for atoms in teacher.molecule_frames(4, seed=5)])
    np.testing.assert_allclose(result.errors.labels["forces"].reshape(-1), expected.reshape(-1), atol=1e-6)
    options = {"energy_unit": "Hartree", "force_unit": "Hartree/Bohr"}
    again = evaluate_file(str(tmp_path / "run" / "model.pt"), str(tmp_path / "test.xyz"), **options)
    assert again.mae == pytest.approx(result.errors.mae, rel=1e-3)


def test_stress_and_unlike_cells(crystals, tmp_path, figures):
    settings = ("loss.stress_weight=10", "loss.energy_per_atom=true", "data.n_val=4", "run.batch_size=4")
    result = training.train(config(tmp_path, crystals, *settings, "data.n_train=12", "run.max_epochs=30"))
    assert set(result.errors.mae) == {"energy", "energy_per_atom", "forces", "stress"}
    first, last = rows(tmp_path / "run")[0], rows(tmp_path / "run")[-1]
    for key in ("val_forces_mae", "val_stress_mae"):
        assert float(last[key]) < float(first[key])


def test_other_settings_need_another_folder(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=1"))
    with pytest.raises(InputError, match=r"optimizer\.lr was 0\.005, is 0\.1"):
        training.train(config(tmp_path, molecules, "optimizer.lr=0.1"))
    training.train(config(tmp_path, molecules, "run.max_epochs=2"))
    assert len(rows(tmp_path / "run")) == 2


def test_missing_label_is_named_before_anything_is_written(tmp_path, figures):
    frames = teacher.as_reference(teacher.molecule_frames(20))
    del frames[7].arrays["REF_forces"]
    path = tmp_path / "train.xyz"
    write(path, frames, format="extxyz")
    with pytest.raises(DataError, match="7"):
        training.train(config(tmp_path, path))
    assert not (tmp_path / "run").exists()
    training.train(config(tmp_path, path, "loss.forces_weight=0", "run.max_epochs=1", "data.n_val=5"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run.max_epoch=3"], "unknown setting run.max_epoch; did you mean run.max_epochs"),
        (["optimizer.lr=fast"], "optimizer.lr is 'fast'"),
        (["loss.forces=l3"], "allowed: mae, l2mae, mse, huber"),
        (["runs"], "section.key=value"),
        (["loss.energy_weight=-1"], "loss.energy_weight is -1.0; expected a number from 0"),
        (["loss.energy_weight=0", "loss.forces_weight=0"], "at least one"),
        (["data.train=''"], "data.train is empty"),
        (["data.n_train=55"], "do not fit 60 frames"),
        (["data.n_val=70"], "60 frames do not fit n_val 70, which leaves none to train on: data.n_val=6"),
        (["model.architecture=gpt"], "architecture 'gpt' is unknown"),
        (["model.architecture=eam"], "'eam' is not trained from scratch: fit one with: asecalc eam fit"),
        (["model.architecture=sum"], "'sum' is not trained from scratch"),
        (["model.hyperparameters.n_feature=8"], "no hyper-parameter"),
        (["run.device=tpu"], "run.device"),
        (["run.batch_size=0"], "run.batch_size is 0; expected a whole number from 1"),
        (["run.batch_size=many"], "run.batch_size is 'many'; expected a whole number from 1 to"),
        (["run.time=30"], "run.time is 30; expected text, a time such as 30min, 2h or 1h30min, or null"),
        (["run.time=soon"], "run.time is 'soon'; expected a time such as 30min, 2h or 1h30min"),
        (["run.max_epochs=-1"], "run.max_epochs"),
        (["run.threads=0"], "run.threads"),
        (["run.seed=-1"], "run.seed"),
        (["run.name=a/b"], "without a folder"),
        (["run.early_stop=0"], "run.early_stop"),
        (["data.split_seed=-1"], "data.split_seed"),
        (["data.n_val=0"], "data.n_val"),
        (["data.train=["], "not valid YAML"),
        (["data.test=absent.xyz"], "absent.xyz: no such file"),
        (["optimizer.lr=-1"], "optimizer.lr is -1.0; expected a number above 0"),
        (["optimizer.lr=.inf"], "expected a number"),
        (["optimizer.ema_decay=2"], "ema_decay"),
        (["optimizer.plateau_factor=1.5"], "plateau_factor"),
        (["model.hyperparameters.cutoff=-1"], "cutoff is -1"),
        (["model.hyperparameters.cutoff=five"], "cutoff is 'five'"),
        (["model.hyperparameters.n_features=2.5"], "n_features is 2.5"),
        (["model.hyperparameters.n_interactions=0"], "n_interactions is 0"),
        (["model.hyperparameters.radial_basis=foo"], "radial_basis 'foo' is unknown"),
        (["model.reference_energies=given", "model.given.H=abc"], "'abc'"),
        (["model.reference_energies=isolated", "model.isolated_atoms=absent.xyz"], "absent.xyz: no such file"),
        (["model.given.H=-13.6"], "model.given has no effect with model.reference_energies=fit: set that to given"),
        (["model.reference_energies=zero", "model.isolated_atoms=a.xyz"], "model.isolated_atoms has no effect with"),
    ],
)
def test_bad_settings(overrides, message, molecules, tmp_path):
    with pytest.raises(InputError, match=message):
        training.train(config(tmp_path, molecules, *overrides))
    assert not (tmp_path / "run").exists()


def test_early_stop(molecules, tmp_path):
    settings = ("run.max_epochs=50", "optimizer.lr=0.1")
    training.train(config(tmp_path, molecules, *settings, "run.early_stop=1"))
    first = rows(tmp_path / "run")
    assert len(first) < 50
    assert load(tmp_path / "run" / "model.pt").card["training"]["epochs"] == len(first)
    model = (tmp_path / "run" / "model.pt").read_bytes()
    # Once over it stays over; another patience counts at once.
    training.train(config(tmp_path, molecules, *settings, "run.early_stop=1"))
    assert rows(tmp_path / "run") == first
    assert (tmp_path / "run" / "model.pt").read_bytes() == model
    training.train(config(tmp_path, molecules, *settings, "run.early_stop=3"))
    assert len(rows(tmp_path / "run")) > len(first)


def test_a_finished_run_writes_its_results_anew(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=2"))
    model, before = tmp_path / "run" / "model.pt", rows(tmp_path / "run")
    content = model.read_bytes()
    model.unlink()
    for epochs in (2, 1):  # fewer than were run
        training.train(config(tmp_path, molecules, f"run.max_epochs={epochs}"))
        assert rows(tmp_path / "run") == before
    training.train(config(tmp_path, molecules, "run.max_epochs=2"))
    assert model.read_bytes() == content


def test_same_seed_same_bits_other_seed_other_bits(molecules, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        training.train(config(tmp_path, molecules, f"run.seed={seed}", "run.max_epochs=2", output=name))
    a, b, c = (weights(tmp_path / name)[1] for name in "abc")
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(a, c, strict=True) if x.ndim == 2)


def test_settings_may_change_until_something_was_trained(molecules, tmp_path):
    with pytest.raises(DataError, match="do not fit"):
        training.train(config(tmp_path, molecules, "data.n_train=55"))
    run = training.prepare(config(tmp_path, molecules, "data.n_train=20"))  # killed before the first checkpoint
    assert len(run.split.train) == 20
    run = training.prepare(config(tmp_path, molecules, "data.n_train=30", "optimizer.lr=0.1"))
    assert len(run.split.train) == 30


def test_changed_data_are_noticed(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=1"))
    frames = teacher.molecule_frames(60)
    frames[3].info["energy"] += 0.01
    write(molecules, teacher.as_reference(frames), format="extxyz")
    with pytest.raises(InputError, match="structures or labels have changed"):
        training.train(config(tmp_path, molecules, "run.max_epochs=2"))
    # The same data in another order of keys or with other comments are the same.
    write(molecules, teacher.as_reference(teacher.molecule_frames(60)), format="extxyz")
    training.train(config(tmp_path, molecules, "run.max_epochs=2"))


def test_settings_newer_than_the_run_have_their_defaults(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=1"))
    path = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    del content["loss"]["stress"], content["optimizer"]["min_lr"]
    path.write_text(yaml.safe_dump(content))
    training.train(config(tmp_path, molecules, "run.max_epochs=2"))
    path.write_text("")
    path.write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        training.train(config(tmp_path, molecules, "run.max_epochs=3"))
    path.unlink()
    with pytest.raises(InputError, match=r"no config\.yaml"):
        training.train(config(tmp_path, molecules, "run.max_epochs=3"))


def test_elements_without_training_frames(tmp_path):
    frames = teacher.molecule_frames(30)
    odd = teacher.molecule_frames(4, name="CH3CH2NH2")
    path = tmp_path / "train.xyz"
    write(path, teacher.as_reference(frames + odd), format="extxyz")
    split = {"train": list(range(20)), "val": [*range(20, 26), 30], "test": [26, 27, 31, 32]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    settings = (f"data.split_file={tmp_path / 'split.json'}", "run.max_epochs=1", "loss.energy_per_atom=true")
    result = training.train(config(tmp_path, path, *settings))
    assert result.errors.n_structures == 2
    assert np.isfinite(float(rows(tmp_path / "run")[0]["val_loss"]))
    write(tmp_path / "test.xyz", teacher.as_reference(odd), format="extxyz")
    with pytest.raises(DataError, match="has N, which no training frame has"):
        training.train(config(tmp_path, path, *settings, f"data.test={tmp_path / 'test.xyz'}", output="other"))
    (tmp_path / "split.json").write_text(json.dumps({**split, "val": [30]}))
    with pytest.raises(DataError, match="no validation frame is left"):
        training.train(config(tmp_path, path, *settings, output="third"))
    (tmp_path / "split.json").write_text(json.dumps({**split, "val": []}))
    with pytest.raises(InputError, match="no frames"):
        training.train(config(tmp_path, path, *settings, output="third"))


def test_validation_that_is_no_number_stops(molecules, tmp_path, monkeypatch):
    from training.task import TrainingTask

    original = TrainingTask.on_train_epoch_end

    def spoiled(self):
        self.trainer.callback_metrics["val_loss"] = torch.tensor(torch.nan)
        original(self)

    monkeypatch.setattr(TrainingTask, "on_train_epoch_end", spoiled)
    with pytest.raises(DataError, match="validation loss is no longer a number after epoch 1"):
        training.train(config(tmp_path, molecules))
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_unicode_and_spaces_in_paths(tmp_path):
    folder = tmp_path / "Ordner mit Größe µ"
    folder.mkdir()
    write(folder / "dáta set.xyz", teacher.as_reference(teacher.molecule_frames(20)), format="extxyz")
    settings = ("data.n_val=5", "run.max_epochs=1", "run.name='mödel 1'", "data.source=Über µ 中文")
    result = training.train(config(tmp_path, folder / "dáta set.xyz", *settings, output="Ordner mit Größe µ/läuft"))
    assert PIWSLCalculator.load(result.model).card["source"] == "Über µ 中文"


def test_evaluation_refuses_labels_that_are_no_number(tmp_path):
    from tests.cases import model_file

    frames = teacher.as_reference(teacher.molecule_frames(5))
    frames[3].info["REF_energy"] = np.nan
    write(tmp_path / "test.xyz", frames, format="extxyz")
    with pytest.raises(DataError, match="energy of 1 frame.* is NaN or infinite: frame 3"):
        evaluate_file(str(model_file(tmp_path)), str(tmp_path / "test.xyz"))
