"""A training on two processes has the result of one, goes on where it was, and stops for both."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from ase import Atoms
from ase.io import read, write

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.errors import InputError
from tests import processes, teacher
from tests.small_runs import config, rows, weights
from training.data.module import FramesDataModule
from training.processes.message import Link, Message
from training.processes.ranks import RankBatches, Workers, place_of_atoms
from training.processes.sums import Sums
from training.train import Stopped, train


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch):
    """Processes of trainings in this one have done their imports; those of a training in another start as ever."""
    names = {**vars(subprocess), "Popen": processes.Popen}
    monkeypatch.setattr("training.processes.ranks.subprocess", SimpleNamespace(**names))


def test_two_processes_in_two_parts_train_what_one_does(tmp_path, molecules, monkeypatch):
    weak = "weak.method=piwsl"
    train(config(tmp_path, molecules, weak, "run.max_epochs=3", output="one"))
    for epochs in (1, 3):
        train(config(tmp_path, molecules, weak, f"run.max_epochs={epochs}", "run.devices=2", output="two"))
        # From here on without shared memory, by torch.distributed.
        monkeypatch.delattr(os, "memfd_create", raising=False)
    same_training(tmp_path / "one", tmp_path / "two", read(molecules, ":5"))


def test_uneven_structures_and_weights_and_two_gradients_a_step(tmp_path, molecules):
    far = [teacher.labelled(Atoms(symbol)) for symbol in "HCO"]
    far += [*teacher.molecule_frames(5, name="CO"), *teacher.molecule_frames(5, name="H2O")]
    write(tmp_path / "far.xyz", teacher.as_reference(far), format="extxyz")
    options = ("weak.method=sam", f"far.data={tmp_path / 'far.xyz'}", "far.share=0.25", "data.n_val=7")
    options += ("run.max_epochs=2", "data.weights={default: 0.7}")
    for devices, output in ((1, "one"), (2, "two")):
        train(config(tmp_path, molecules, *options, f"run.devices={devices}", output=output))
    same_training(tmp_path / "one", tmp_path / "two", read(molecules, ":5"))


def same_training(one, two, frames):
    assert rows(one)
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        assert list(ours) == list(theirs)
        assert [float(v) for v in ours.values()] == pytest.approx([float(v) for v in theirs.values()], rel=1e-4)
    # Of the models, not the weights: some of them do not matter, and Adam moves those by rounding errors.
    found, wanted = (
        np.concatenate([r["forces"] for r in PIWSLCalculator.load(folder / "model.pt", device="cpu").evaluate(frames)])
        for folder in (two, one)
    )
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())


class Interrupt(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_of_the_first_ends_both_with_a_checkpoint(tmp_path, molecules):
    with pytest.raises(Stopped):
        train(config(tmp_path, molecules, "run.devices=2"), [Interrupt()])
    assert weights(tmp_path / "run")[0]["epoch"] == 0 and not torch.distributed.is_initialized()


def test_a_signal_before_the_first_step_ends_both_with_a_checkpoint(tmp_path, molecules, monkeypatch):
    def signalled(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return loader(self)

    loader = FramesDataModule.train_dataloader
    monkeypatch.setattr(FramesDataModule, "train_dataloader", signalled)
    with pytest.raises(Stopped):
        train(config(tmp_path, molecules, "run.devices=2"))
    assert weights(tmp_path / "run")[0]["epoch"] == 0


def test_a_killed_process_ends_the_first_and_is_named(tmp_path, molecules, monkeypatch):
    class Watched(Workers):
        def __enter__(self):
            started.extend(super().__enter__()._processes)
            return self

    class Kill(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                started[0].kill()

    started = []
    monkeypatch.setattr("training.train.Workers", Watched)
    told = (
        r"process 1 of the training was ended by SIGKILL.*memory runs out; run the same command again to begin again$"
    )
    with pytest.raises(InputError, match=told):
        train(config(tmp_path, molecules, "run.devices=2"), [Kill()])
    assert place_of_atoms(7) == (0, 7)


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (
            -9,
            InputError,
            r"SIGKILL, as the system does where memory runs out; run .* again to continue from .*last.ckpt$",
        ),
        (
            -6,
            InputError,
            r"SIGABRT \(UserWarning: unrelated\); run the same command again to continue from .*last.ckpt$",
        ),
        (1, RuntimeError, "ended with code 1: torch.OutOfMemoryError: too much$"),
    ],
)
def test_the_last_line_says_how_a_process_ended_and_how_to_go_on(code, kind, told, tmp_path):
    (tmp_path / "last.ckpt").touch()
    workers = Workers(tmp_path, 1)
    workers._processes = [SimpleNamespace(poll=lambda: code, stdout=io.StringIO())]
    workers._told = [io.StringIO("Traceback\ntorch.OutOfMemoryError: too much\nUserWarning: unrelated\n")]
    failure = workers._failure(1)
    assert type(failure) is kind and re.search(told, str(failure))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_a_killed_first_process_ends_the_other(tmp_path, molecules):
    config(tmp_path, molecules)
    settings = [str(tmp_path / "small.yaml"), f"data.train={molecules}", f"run.output={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "asecalc_mlip.cli", "train", *settings, "run.devices=2", "run.max_epochs=100000"]
    first = processes.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert within(120, (tmp_path / "run" / "log.csv").exists)
        (other,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        assert b"training.worker" in Path(f"/proc/{other}/cmdline").read_bytes()
    finally:
        first.kill()
        first.wait()
    # The system may keep the number of an orphan that has ended.
    assert within(20, lambda: not (stat := Path(f"/proc/{other}/stat")).exists() or ") Z " in stat.read_text())


def within(seconds, true):
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_a_message_averages_gradients_where_one_has_them():
    link, (end,) = Link.of_first(2)
    links = [link, Link(1, 2, link.memory, [end])]
    given = {0: [1.0, None, None], 1: [3.0, 5.0, None]}
    found = {}

    def one(number):
        parameters = [torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3)]
        message = Message(parameters, 1, links[number])
        for _ in range(3):
            for parameter, value in zip(parameters, given[number], strict=True):
                parameter.grad = None if value is None else torch.full((2, 2), value)
            numbers = message.average(torch.tensor([10.0 * number], dtype=torch.float64))
            found.setdefault(number, []).append(
                [numbers, *(None if p.grad is None else p.grad.tolist() for p in parameters)]
            )

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found[0] == found[1] == 3 * [[[5.0], [[2.0, 2.0]] * 2, [[2.5, 2.5]] * 2, None]]
    end.close()
    with pytest.raises(RuntimeError, match="another process of the training has ended"):
        link.wait()
    link.close()


def test_means_are_over_rows():
    sums = Sums()
    sums.add("val_forces_rmse", torch.tensor(4.0), 1)
    sums.add("val_forces_rmse", torch.tensor(9.0), 3)
    sums.add("train_loss", 2.5, 1)
    assert sums.take(torch.device("cpu")) == {"val_forces_rmse": pytest.approx((31 / 4) ** 0.5), "train_loss": 2.5}
    sums.add("train_loss", 1.0, 1)
    assert sums.take(torch.device("cpu")) == {"train_loss": 1.0}


def test_what_cannot_be_is_told(tmp_path, molecules):
    with pytest.raises(InputError, match="run.devices is 11, but a batch has 10 structures"):
        train(config(tmp_path, molecules, "run.devices=11"))
    with pytest.raises(RuntimeError, match=r"process 1 of the training ended with code 1: .*config.yaml"):
        Workers(tmp_path / "absent", 2).__enter__()


@pytest.mark.parametrize("total", [2, 3, 4])
@pytest.mark.parametrize("atoms", [[1] * 17, [9, 1, 1, 1, 1, *[3] * 11, 50], [1, 1, 60, 40, 1, *[3] * 12]])
def test_parts_of_a_batch_make_the_batch(total, atoms):
    batches = torch.utils.data.BatchSampler(range(17), 5, drop_last=False)
    parts = [RankBatches(batches, atoms, number, total) for number in range(total)]
    for whole, *each in zip(batches, *parts, strict=True):
        found = [part.rows.popleft() for part in parts]
        if len(whole) >= total:
            assert all(each)
        assert sum(each, []) == whole
        for k, rows_ in enumerate(found):
            before = sum(each[:k], [])
            assert rows_ == (len(whole), sum(atoms[i] for i in before), sum(atoms[i] for i in whole))
    assert all(len(part) == 4 for part in parts)


def test_parts_have_about_as_many_atoms():
    batches = torch.utils.data.BatchSampler(range(5), 5, drop_last=False)
    parts = [next(iter(RankBatches(batches, [9, 1, 1, 1, 6], number, 2))) for number in range(2)]
    assert parts == [[0], [1, 2, 3, 4]]
