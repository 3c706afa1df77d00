"""Training end to end on the analytic teacher: it learns, resumes exactly, refuses bad data, and leaves what it promises."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase.io import write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.errors import DataError, InputError
from tests import teacher

pytest.importorskip("schnetpack")
from training import train as training  # noqa: E402
from training.config import load_config  # noqa: E402
from training.evaluate import evaluate_file  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {
    "model": {"hyperparameters": {"cutoff": 4.0, "n_features": 16, "n_interactions": 2, "n_rbf": 8}},
    "data": {"n_val": 10},
    "optimizer": {"lr": 0.005, "warmup_steps": 10, "plateau_patience": 1, "plateau_factor": 0.5, "ema_decay": 0.9},
    "run": {"batch_size": 10, "max_epochs": 4, "threads": 1, "device": "cpu", "progress": False},
}


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "train.xyz"
    write(path, teacher.as_reference(teacher.molecule_frames(60)), format="extxyz")
    return path


@pytest.fixture
def crystals(tmp_path):
    path = tmp_path / "crystals.xyz"
    frames = teacher.crystal_frames(20)
    # Cells of unlike size in one batch.
    frames[::2] = [teacher.labelled(atoms * (2, 1, 1)) for atoms in frames[::2]]
    write(path, teacher.as_reference(frames), format="extxyz")
    return path


def config(tmp_path, data, *overrides, output="run"):
    base = tmp_path / "small.yaml"
    base.write_text(yaml.safe_dump(SMALL))
    return load_config([base], [f"data.train={data}", f"run.output={tmp_path / output}", *overrides])


def weights(folder):
    state = torch.load(Path(folder) / "last.ckpt", weights_only=False)
    average = next(v for k, v in state["callbacks"].items() if "AveragedWeights" in k)
    return state, [*state["state_dict"].values(), *average["average"], *average["best"]]


def rows(folder):
    with (Path(folder) / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("architecture", ["painn", "schnet"])
def test_learns_forces_and_leaves_a_model(architecture, molecules, tmp_path, capsys):
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
    for name in ("model.pt", "parity.png", "learning_curve.png", "split.json", "config.yaml", "log.csv", "summary.json"):
        assert (folder / name).stat().st_size > 0
    assert list((folder / "tensorboard").rglob("events*"))
    card = PIWSLCalculator.load(folder / "model.pt").card
    assert card["training_data"]["train"] == 50
    assert card["test_errors"]["MAE"]["forces (meV/Å)"] == pytest.approx(result.errors.mae["forces"])
    assert json.loads((folder / "summary.json").read_text())["errors"]["n_structures"] == 20
    assert evaluate_file(str(folder / "model.pt"), str(test)).mae == pytest.approx(result.errors.mae, rel=1e-3)


def test_stress_and_unlike_cells(crystals, tmp_path):
    settings = ("loss.stress_weight=10", "loss.energy_per_atom=true", "data.n_val=4", "run.batch_size=4")
    result = training.train(config(tmp_path, crystals, *settings, "data.n_train=12", "run.max_epochs=30"))
    assert set(result.errors.mae) == {"energy", "energy_per_atom", "forces", "stress"}
    first, last = rows(tmp_path / "run")[0], rows(tmp_path / "run")[-1]
    for key in ("val_forces_mae", "val_stress_mae"):
        assert float(last[key]) < float(first[key])


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_resumed_run_equals_uninterrupted(schedule, molecules, tmp_path):
    schedule = f"optimizer.schedule={schedule}"
    training.train(config(tmp_path, molecules, schedule, "run.max_epochs=6", output="whole"))
    # A cosine ends at max_epochs, so the first part must know the whole length and be stopped, not shortened.
    interrupted = config(tmp_path, molecules, schedule, "run.max_epochs=6", output="parts")
    stop_after(interrupted, epochs=3)
    assert len(rows(tmp_path / "parts")) == 3
    training.train(interrupted)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole[1], parts[1]))
    assert whole[0]["schedule"] == parts[0]["schedule"]
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert (tmp_path / "whole" / "model.pt").stat().st_size == (tmp_path / "parts" / "model.pt").stat().st_size


def stop_after(settings, epochs):
    """Run the first epochs and leave the checkpoint, as an interruption between two epochs does."""
    import pytorch_lightning as pl

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = trainer.current_epoch + 1 >= epochs

    run = training.prepare(settings)
    original = pl.Trainer.__init__

    def patched(self, *args, callbacks=(), **kwargs):
        original(self, *args, callbacks=[Stop(), *callbacks], **kwargs)

    pl.Trainer.__init__ = patched
    try:
        training.fit(run)
    finally:
        pl.Trainer.__init__ = original


def test_kill_nine_then_resume(molecules, tmp_path):
    settings = config(tmp_path, molecules, "run.max_epochs=25", output="whole")
    training.train(settings)
    # Every epoch is saved here, where the default is every 30 seconds.
    code = (
        "import sys; from training import train, callbacks; from training.config import load_config;"
        "callbacks.LastCheckpoint.__init__.__kwdefaults__['seconds'] = 0.0;"
        "train.train(load_config(sys.argv[1:2], sys.argv[2:]))"
    )
    arguments = [str(tmp_path / "small.yaml"), f"data.train={molecules}", "run.max_epochs=25"]
    arguments.append(f"run.output={tmp_path / 'killed'}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.DEVNULL)
    log = tmp_path / "killed" / "log.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) > 5:
            break
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    training.train(config(tmp_path, molecules, "run.max_epochs=25", output="killed"))
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(a, b) for a, b in zip(whole[1], killed[1]))
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


def test_other_settings_need_another_folder(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=1"))
    with pytest.raises(InputError, match=r"optimizer\.lr was 0\.005, is 0\.1"):
        training.train(config(tmp_path, molecules, "optimizer.lr=0.1"))
    training.train(config(tmp_path, molecules, "run.max_epochs=2"))
    assert len(rows(tmp_path / "run")) == 2


def test_missing_label_is_named_before_anything_is_written(tmp_path):
    frames = teacher.as_reference(teacher.molecule_frames(20))
    del frames[7].arrays["REF_forces"]
    path = tmp_path / "train.xyz"
    write(path, frames, format="extxyz")
    with pytest.raises(DataError, match="7"):
        training.train(config(tmp_path, path))
    assert not (tmp_path / "run").exists()
    training.train(config(tmp_path, path, "loss.forces_weight=0", "run.max_epochs=1", "data.n_val=5"))


def test_divergence_stops_and_keeps_the_checkpoint(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=2"))
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)
    # Weights that overflow, as after a step that was much too long.
    name = next(k for k in state["state_dict"] if k.endswith("embedding.weight"))
    state["state_dict"][name].fill_(1e30)
    torch.save(state, tmp_path / "run" / "last.ckpt")
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    with pytest.raises(DataError, match=r"no longer a number at step 10.*Lower optimizer\.lr"):
        training.train(config(tmp_path, molecules, "run.max_epochs=4"))
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before


def test_damaged_checkpoint(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=1"))
    path = tmp_path / "run" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.ckpt.*cannot be read"):
        training.train(config(tmp_path, molecules, "run.max_epochs=2"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run.max_epoch=3"], "unknown setting run.max_epoch; did you mean run.max_epochs"),
        (["optimizer.lr=fast"], "optimizer.lr is 'fast'"),
        (["loss.forces=l3"], "allowed: mae, l2mae, mse, huber"),
        (["runs"], "section.key=value"),
        (["loss.energy_weight=-1"], "none may be negative"),
        (["loss.energy_weight=0", "loss.forces_weight=0"], "at least one"),
        (["data.train=''"], "data.train is empty"),
        (["data.n_train=55"], "do not fit 60 frames"),
        (["model.architecture=gpt"], "architecture 'gpt' is unknown"),
        (["model.hyperparameters.n_feature=8"], "no hyper-parameter"),
        (["run.device=tpu"], "run.device"),
    ],
)
def test_bad_settings(overrides, message, molecules, tmp_path):
    with pytest.raises(InputError, match=message):
        training.train(config(tmp_path, molecules, *overrides))


def test_early_stop(molecules, tmp_path):
    training.train(config(tmp_path, molecules, "run.max_epochs=50", "run.early_stop=1", "optimizer.lr=0.5"))
    assert len(rows(tmp_path / "run")) < 50
