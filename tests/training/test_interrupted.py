"""Training that is interrupted: it continues exactly, and loses and hides nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import DataError, InputError
from tests import processes
from tests.simulated_gpu import simulated_gpu
from tests.small_runs import config, rows, weights

pytest.importorskip("schnetpack")
from asecalc_mlip.locks import locked  # noqa: E402
from training import train as training  # noqa: E402
from training.run.callbacks import AveragedWeights  # noqa: E402


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
    assert all(torch.equal(a, b) for a, b in zip(whole[1], parts[1], strict=True))
    assert whole[0]["schedule"] == parts[0]["schedule"]
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert (tmp_path / "whole" / "model.pt").stat().st_size == (tmp_path / "parts" / "model.pt").stat().st_size


def test_the_average_follows_the_weights_to_a_gpu():
    """Lightning moves the model after the average was made, and gives back that of a checkpoint on the CPU."""
    module = torch.nn.Linear(2, 1)
    average = AveragedWeights(module, 0.9)
    saved = average.state_dict()
    with simulated_gpu():
        module.to("cuda")
        for _ in range(2):
            average.on_train_start()
            average.on_train_batch_end()
            assert all(one.is_cuda for one in average.average)
            average.load_state_dict(dict(saved))


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
    training.train(config(tmp_path, molecules, "run.max_epochs=10", output="whole"))
    # Every epoch is saved here, where the default is every 30 seconds; the end comes in the middle of the seventh.
    code = (
        "import os, signal, sys; import pytorch_lightning as pl; from training import train;"
        "from training.run import callbacks; from training.config import load_config;"
        "callbacks.LastCheckpoint.__init__.__kwdefaults__['seconds'] = 0.0;"
        "kill = lambda trainer, *_: trainer.global_step == 33 and os.kill(os.getpid(), signal.SIGKILL);"
        "watcher = pl.callbacks.LambdaCallback(on_train_batch_end=kill);"
        "train.train(load_config(sys.argv[1:2], sys.argv[2:]), [watcher])"
    )
    arguments = [str(tmp_path / "small.yaml"), f"data.train={molecules}", "run.max_epochs=10"]
    arguments.append(f"run.output={tmp_path / 'killed'}")
    killed = processes.run([sys.executable, "-c", code, *arguments])
    assert killed.returncode == -signal.SIGKILL and len(rows(tmp_path / "killed")) == 6
    training.train(config(tmp_path, molecules, "run.max_epochs=10", output="killed"))
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(a, b) for a, b in zip(whole[1], killed[1], strict=True))
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


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


def test_a_run_goes_on_from_another_folder(molecules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training.train(config(tmp_path, molecules.name, "run.max_epochs=1"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    training.train(config(tmp_path, f"../{molecules.name}", "run.max_epochs=2"))
    assert len(rows(tmp_path / "run")) == 2


def test_one_run_per_folder(molecules, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(InputError, match="in use by another running process"):
        training.train(config(tmp_path, molecules))


def start(tmp_path, molecules, *arguments, prelude="pass"):
    """`asecalc train` in a process of its own."""
    config(tmp_path, molecules)  # writes small.yaml
    code = f"import sys; {prelude}; from asecalc_mlip.cli import main; main()"
    command = ["train", str(tmp_path / "small.yaml"), f"data.train={molecules}", f"run.output={tmp_path / 'run'}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return processes.Popen([sys.executable, "-c", code, *command, *arguments], **pipes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_with_a_checkpoint(number, molecules, tmp_path):
    process = start(tmp_path, molecules, "run.max_epochs=100000", "model.final_shift=true")
    log = tmp_path / "run" / "log.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not (log.exists() and len(log.read_text()) > 300):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors and "run the same command again" in errors
    assert "with the best model so far in" in errors
    assert "final_e0_shift_eV" in load(tmp_path / "run" / "model.pt").card
    epochs = len(rows(tmp_path / "run"))
    training.train(config(tmp_path, molecules, f"run.max_epochs={epochs + 1}", "model.final_shift=true"))
    assert len(rows(tmp_path / "run")) == epochs + 1


@pytest.mark.parametrize("limit", [2_000, 60_000, 90_000])
def test_full_disk(limit, molecules, tmp_path):
    # A limit on the size of files stands for a disk without room: it hits the database, the checkpoint, or a figure.
    prelude = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit},) * 2)"
    )
    process = start(tmp_path, molecules, "run.max_epochs=2", "data.n_train=20", prelude=prelude)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors and "cannot be written" in errors
    assert not list((tmp_path / "run").glob("*.writing*"))
    training.train(config(tmp_path, molecules, "run.max_epochs=2", "data.n_train=20"))
    assert len(rows(tmp_path / "run")) == 2


def test_a_signal_in_the_last_epoch_ends_what_would_follow(molecules, tmp_path, monkeypatch):
    save = training.save_model

    def signalled(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*given)

    monkeypatch.setattr(training, "save_model", signalled)
    settings = config(tmp_path, molecules, "run.max_epochs=1")
    with pytest.raises(training.Stopped) as stop:
        training.train_before(settings)
    assert stop.value.signal == signal.SIGTERM and (tmp_path / "run" / "summary.json").is_file()
