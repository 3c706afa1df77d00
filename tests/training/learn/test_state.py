"""State of a learning in its folder: what was begun goes on, the clock, the threshold."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ase.build import molecule

from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_json, write_json
from asecalc_mlip.stopping import Interrupted
from training.config import replace_values
from training.learn.committee import (
    member_config,
    quietly,
)
from training.learn.loop import _raised
from training.learn.settings import LearnSettings
from training.learn.state import SETTINGS, Folder
from training.run.continuing import settings_before
from training.run.useless import refuse_useless


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
