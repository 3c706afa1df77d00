"""A training on two processes has the result of one, goes on where it was, and stops for both."""

import os
import signal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from ase.io import read

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.errors import InputError
from tests.small_runs import config, rows, weights
from training.ranks import RankBatches, Workers
from training.train import Stopped, train


def test_two_processes_in_two_parts_train_what_one_does(tmp_path, molecules):
    weak = "weak.method=piwsl"
    train(config(tmp_path, molecules, weak, "run.max_epochs=3", output="one"))
    for epochs in (1, 3):
        train(config(tmp_path, molecules, weak, f"run.max_epochs={epochs}", "run.devices=2", output="two"))
    one, two = tmp_path / "one", tmp_path / "two"
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        assert list(ours) == list(theirs)
        assert [float(v) for v in ours.values()] == pytest.approx([float(v) for v in theirs.values()], rel=1e-4)
    # Of the models, not the weights: some of them do not matter, and Adam moves those by rounding errors.
    frames = read(molecules, ":5")
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


def test_what_cannot_be_is_told(tmp_path, molecules):
    with pytest.raises(InputError, match="run.devices is 11, but a batch has 10 structures"):
        train(config(tmp_path, molecules, "run.devices=11"))
    with pytest.raises(RuntimeError, match=r"process 1 of the training ended with code 1: .*config.yaml"):
        Workers(tmp_path / "absent", 2).__enter__()


@pytest.mark.parametrize("total", [2, 3])
def test_parts_of_a_batch_make_the_batch(total):
    batches = torch.utils.data.BatchSampler(range(17), 5, drop_last=False)
    parts = [list(RankBatches(batches, [1] * 17, number, total)) for number in range(total)]
    assert [sum(each, []) for each in zip(*parts, strict=True)] == list(batches)
    assert all(len(RankBatches(batches, [1] * 17, number, total)) == 4 for number in range(total))
