"""Searches of seconds: they hold the plain training and continue exactly; hopeless and broken trials end alone."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
from ase.io import read, write

from asecalc_mlip import logs
from asecalc_mlip.errors import InputError
from tests import processes, teacher
from tests.small_runs import config
from tests.training import levels

pytest.importorskip("schnetpack")
optuna = pytest.importorskip("optuna")
from training.config import load_config, replace_values  # noqa: E402
from training.run.useless import refuse_useless  # noqa: E402
from training.train import train  # noqa: E402
from training.tune import search, tune  # noqa: E402
from training.tune.shared import take_labels  # noqa: E402
from training.tune.space import make_space  # noqa: E402
from training.tune.storage import open_study  # noqa: E402
from training.tune.trials import TrialRecord, TuneResult, trial_values  # noqa: E402

SPACE = ("weak.pitc=0.1:10:log", "weak.epsilon=0.01:0.05", "weak.order=first,trapezoid")


def settings(tmp_path, molecules, *overrides):
    return config(tmp_path, molecules, "data.n_train=20", "run.max_epochs=3", *overrides)


def table(folder):
    """trials.csv by number of the trial, without the times."""
    with (folder / "trials.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return {int(row["trial"]): row for row in rows}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of two trials that goes on to a third: its folder, data, result, words, and both tables."""
    place = tmp_path_factory.mktemp("searched")
    data = place / "train.xyz"
    write(data, teacher.as_reference(teacher.molecule_frames(60)), format="extxyz")
    base, folder, said = settings(place, data), place / "tune", io.StringIO()
    logs.show()
    with redirect_stdout(said):
        tune(base, SPACE, trials=2, output=folder, prune=False)
        before = table(folder)
        result = tune(base, SPACE, trials=3, output=folder, prune=False)
    logs.hide()
    return SimpleNamespace(
        folder=folder, data=data, base=base, result=result, said=said.getvalue(), before=before, after=table(folder)
    )


def test_a_search_and_what_it_leaves(searched):
    folder, result, rows = searched.folder, searched.result, searched.after
    assert sorted(rows) == [0, 1, 2]
    losses = [float(row["val_loss"]) for row in rows.values()]
    assert losses == sorted(losses)
    assert [rows[0][key] for key in ("weak.pitc", "weak.epsilon", "weak.order")] == ["", "", ""]
    for number in range(3):
        run = folder / "trials" / f"{number:04d}"
        assert (run / "model.pt").exists() and (run / "summary.json").exists()
        done = load_config([run / "config.yaml"])
        assert done.weak.method == ("piwsl" if number else "plain")
        assert (done.run.seed, done.run.max_epochs) == (0, 3)
        if number:
            assert done.weak.pitc == float(rows[number]["weak.pitc"])
            assert 0.01 <= done.weak.epsilon <= 0.05
    with (folder / "trials" / "0000" / "log.csv").open(newline="") as file:
        assert result.plain.loss == min(float(row["val_loss"]) for row in csv.DictReader(file))
    assert "trial 2 (3 of 3" in searched.said
    assert "plain" in repr(result) and "best.yaml" in repr(result)
    best = load_config([folder / "best.yaml"])
    assert best.run.output == str(folder / "best")
    summary = json.loads((folder / "trials" / f"{result.best.number:04d}" / "summary.json").read_text())
    assert train(best).errors.mae == pytest.approx(summary["errors"]["mae"])


def test_a_search_that_was_begun_with_what_has_no_effect_goes_on(molecules, tmp_path, monkeypatch):
    plain = settings(tmp_path, molecules)
    unread, folder, given = replace_values(plain, {"model.given.H": -13.6}), tmp_path / "tune", []

    def train(config, watchers):
        given.append(config)
        raise search._OutOfTime

    monkeypatch.setattr(search, "train", train)
    with pytest.raises(InputError, match="model.given has no effect"):
        open_study(unread, [], folder)
    (folder / "trials" / "0000").mkdir(parents=True)
    with monkeypatch.context() as patch:  # as versions before did
        patch.setattr("training.tune.storage.refuse_useless", lambda config: None)
        study = open_study(unread, [], folder)
    (folder / "trials" / "0000" / "log.csv").touch()
    for again in (unread, plain):
        open_study(again, [], folder)
        search._Search(again, [], folder, study, 2, None, False)._run(SimpleNamespace(number=0), {}, None)
        refuse_useless(given.pop())


def test_other_files_of_a_search_do_not_change(molecules, tmp_path):
    far = tmp_path / "far.xyz"
    write(far, teacher.as_reference(teacher.molecule_frames(2)), format="extxyz")
    asked, folder = settings(tmp_path, molecules, f"far.data={far}"), tmp_path / "tune"
    (folder / "trials" / "0000").mkdir(parents=True)
    open_study(asked, [], folder)
    (folder / "trials" / "0000" / "log.csv").touch()
    open_study(asked, [], folder)
    write(far, teacher.as_reference(teacher.molecule_frames(3)), format="extxyz")
    with pytest.raises(InputError, match="with other settings: the content of the split file, or of the other files"):
        open_study(asked, [], folder)
    saved = folder / "search.yaml"
    saved.write_text("\n".join(line for line in saved.read_text().splitlines() if not line.startswith("others")))
    open_study(asked, [], folder)


def test_the_folder_of_trainings_is_not_that_of_a_search(molecules, tmp_path, monkeypatch):
    asked, folder = [f"data.train={molecules}", "run.output=runs/mine"], tmp_path / "tune"
    with pytest.raises(InputError, match="run.output has no effect in a search, whose folder is that of -o DIR"):
        search.main([], asked, output=str(folder))
    folder.mkdir()
    (folder / "study.db").touch()
    monkeypatch.setattr(search, "tune", lambda config, *_, **__: config.run.output)
    search.main([], asked, output=str(folder))


def test_more_trials_go_on_and_a_finished_search_only_reports(searched, figures):
    before, after, folder = searched.before, searched.after, searched.folder
    assert len(before) == 2 and len(after) == 3 and {k: after[k] for k in before} == before
    (folder / "tune.png").unlink()
    tune(searched.base, SPACE, trials=2, output=folder)
    assert table(folder) == after and (folder / "tune.png").stat().st_size > 10_000


def test_another_search_needs_another_folder(searched):
    place, data, folder = searched.folder.parent, searched.data, searched.folder
    for other, space, message in (
        (settings(place, data, "run.max_epochs=4"), SPACE, r"run\.max_epochs was 3, is 4"),
        (settings(place, data, "run.seed=1"), SPACE, r"run\.seed was 0, is 1"),
        (searched.base, SPACE[:2], "--space was"),
    ):
        with pytest.raises(InputError, match=message):
            tune(other, space, trials=4, output=folder)
    content = data.read_bytes()
    frames = read(data, ":")
    frames[0].positions += 0.1
    write(data, frames, format="extxyz")
    with pytest.raises(InputError, match="the content of"):
        tune(searched.base, SPACE, trials=4, output=folder)
    data.write_bytes(content)
    assert table(folder) == searched.after


def test_a_killed_search_continues_as_if_nothing_had_happened(molecules, tmp_path):
    overrides = ("data.n_train=20", "run.max_epochs=5")
    tune(config(tmp_path, molecules, *overrides), SPACE, trials=4, output=tmp_path / "whole")
    killed = tmp_path / "killed"
    # In the fourth epoch of the third trial.
    kill = (
        "import os; from training.tune import search;"
        "search._Watch.on_train_batch_end = lambda self, trainer, *_: "
        "(self.trial.number, trainer.current_epoch) == (2, 3) and os.kill(os.getpid(), 9)"
    )
    process = start(tmp_path, molecules, *overrides, "--trials", "4", "-o", str(killed), prelude=kill)
    assert process.wait(timeout=200) == -signal.SIGKILL
    assert rows_of(killed / "trials" / "0002" / "log.csv") == 4 and not (killed / "trials" / "0003").exists()
    tune(config(tmp_path, molecules, *overrides), SPACE, trials=4, output=killed)
    assert table(killed) == table(tmp_path / "whole")
    # From its checkpoint, not from its first epoch.
    assert f"continuing the run in {killed / 'trials' / '0002'}" in (killed / "tune.log").read_text()


def test_a_signal_ends_a_search_that_can_be_continued(molecules, tmp_path):
    folder = tmp_path / "tune"
    process = start(tmp_path, molecules, "run.max_epochs=100000", "-o", str(folder))
    wait_for(lambda: rows_of(folder / "trials" / "0000" / "log.csv") > 3, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors and "run the same command again" in errors
    (trial,) = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'study.db'}").trials
    assert trial.state.name == "RUNNING"
    assert (folder / "trials" / "0000" / "last.ckpt").exists()


def test_timeout_ends_at_an_epoch(molecules, tmp_path):
    long = settings(tmp_path, molecules, "run.max_epochs=100000")
    result = tune(long, SPACE, trials=2, timeout=0.03, output=tmp_path / "tune")
    (trial,) = result.trials
    assert trial.state == "running" and 0 < trial.epochs < 100000
    assert "run the same command again" in repr(result)
    again = tune(long, SPACE, trials=2, timeout=0.03, output=tmp_path / "tune")
    assert again.trials[0].epochs > trial.epochs


def test_the_first_trial_has_the_given_settings_where_others_are_searched(molecules):
    base = load_config([], [f"data.train={molecules}", "weak.method=piwsl"])
    (rate,), unchanged = make_space(["optimizer.lr=0.0001:0.01:log"], base)
    assert trial_values(0, {}, [rate]) == {} and unchanged.weak.method == "piwsl"
    result = TuneResult(base, [rate], [TrialRecord(k, "complete", {}, loss=1.0 + k) for k in range(2)], Path("tune"))
    assert "no trial is better than the training with the given settings" in repr(result)
    (step,), _ = make_space(["weak.epsilon=0.01:0.05"], base)
    assert trial_values(0, {}, [step]) == {"weak.method": "plain"} and trial_values(1, {"a": 1}, [step]) == {"a": 1}


def test_hopeless_trials_are_cut_short_but_not_the_plain_one(molecules, tmp_path, monkeypatch, figures):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: True)
    folder = tmp_path / "tune"
    result = tune(settings(tmp_path, molecules), SPACE, trials=3, output=folder)
    assert [(t.state, t.epochs) for t in result.trials] == [("complete", 3), ("pruned", 1), ("pruned", 1)]
    assert result.best.number == 0 and "no trial is better" in repr(result)
    assert load_config([folder / "best.yaml"]).weak.method == "plain"
    run = folder / "trials" / "0001"
    # The best model so far is on the disk, as of any training; the results of a whole one are not.
    assert (run / "last.ckpt").exists() and (run / "model.pt").exists() and not (run / "summary.json").exists()


def test_trials_worse_than_the_median_are_pruned(molecules, tmp_path):
    rates = ("optimizer.lr=0.000001,0.005",)
    long = config(tmp_path, molecules, "data.n_train=20", "run.max_epochs=6", "optimizer.warmup_steps=1")
    result = tune(long, rates, trials=8, output=tmp_path / "tune")
    pruned = [t for t in result.trials if t.state == "pruned"]
    assert pruned and all(t.values["optimizer.lr"] == 0.000001 and 2 < t.epochs < 6 for t in pruned)
    assert result.best.values.get("optimizer.lr", 0.005) == 0.005


def test_a_trial_that_diverges_does_not_end_the_search(molecules, tmp_path):
    rates = ("optimizer.lr=0.005,1000",)
    result = tune(settings(tmp_path, molecules, "optimizer.warmup_steps=0"), rates, trials=6, output=tmp_path / "tune")
    failed = [t for t in result.trials if t.state == "failed"]
    assert failed and len(result.trials) == 6
    assert all(t.values["optimizer.lr"] == 1000 and "no longer a number" in t.note for t in failed)


def test_bad_input(molecules, tmp_path):
    folder = tmp_path / "tune"
    base = settings(tmp_path, molecules)
    for options, message in (
        ({"trials": 1}, "--trials is 1; expected at least 2"),
        ({"timeout": 0.0}, r"--timeout is 0\.0"),
        ({"timeout": float("nan")}, "--timeout is nan"),
        ({"space": ["weak.pitc=2:1"]}, "empty range"),
    ):
        with pytest.raises(InputError, match=message):
            tune(base, **{"space": SPACE, "output": folder, **options})
    # What the plain training is refused for ends the search, and may be set right in the same folder.
    with pytest.raises(InputError, match="do not fit 60 frames"):
        tune(settings(tmp_path, molecules, "data.n_train=55"), SPACE, output=folder)
    assert len(tune(base, SPACE, trials=2, output=folder).trials) == 2
    (folder / "study.db").write_bytes(b"no database")
    with pytest.raises(InputError, match=r"study\.db cannot be read"):
        tune(base, SPACE, trials=2, output=folder)


def start(tmp_path, molecules, *arguments, prelude=""):
    """`asecalc tune` in a process of its own, with a checkpoint after every epoch."""
    config(tmp_path, molecules)  # writes small.yaml
    code = (
        "from training.run.callbacks import LastCheckpoint\nLastCheckpoint.__init__.__kwdefaults__['seconds'] = 0.0\n"
        f"{prelude}\nfrom asecalc_mlip.cli import main; main()"
    )
    command = ["tune", str(tmp_path / "small.yaml"), f"data.train={molecules}"]
    command += [option for text in SPACE for option in ("--space", text)] + list(arguments)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return processes.Popen([sys.executable, "-c", code, *command], **pipes)


def rows_of(log):
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for(condition, process):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None and not condition():
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()


def test_a_search_chooses_the_length_of_its_trials_once(molecules, tmp_path):
    from training.tune.search import _with_length

    open_length = settings(tmp_path, molecules, "run.max_epochs=null", "data.n_train=null")
    assert _with_length(open_length).run.max_epochs == 500  # 50 frames in batches of 10
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": list(range(40)), "val": [40, 41], "test": []}))
    assert _with_length(replace_values(open_length, {"data.split_file": str(split)})).run.max_epochs == 500
    taught = replace_values(open_length, {"pretrain.teacher": "xtb", "pretrain.rounds": 100})
    assert _with_length(taught).run.max_epochs == 40  # 500 steps
    more = tmp_path / "more.xyz"
    write(more, read(molecules, ":") * 5, format="extxyz")
    replayed = settings(
        tmp_path, more, "run.max_epochs=null", "data.n_train=250", "finetune.replay=0.3", "far.share=0.2"
    )
    assert _with_length(replayed).run.max_epochs == 500  # 35 steps
    assert _with_length(replace_values(replayed, {"far.teacher": "xtb"})).run.max_epochs == 400  # 50 steps
    with pytest.raises(InputError, match="leave nothing of a batch"):
        _with_length(replace_values(replayed, {"finetune.replay": 0.9, "far.teacher": "xtb"}))
    with pytest.raises(InputError, match="run.time gives trials unlike lengths"):
        tune(settings(tmp_path, molecules, "run.time=1h"), SPACE, trials=2, output=tmp_path / "tune")


@pytest.mark.parametrize(
    ("searched", "shared"), [("optimizer.lr=1e-4:1e-3", True), ("pretrain.strength=0.1:0.2", False)]
)
def test_trials_share_the_labels_of_a_teacher(tmp_path, searched, shared):
    data, eam = levels.files(tmp_path)
    given = (f"pretrain.teacher={eam}", "pretrain.rounds=1", f"far.teacher={eam}", "far.sources=[bonds]", "far.n=6")
    tune(levels.tiny(tmp_path, data, *given), [searched], trials=2, output=tmp_path / "tune")
    made = {
        name: [(tmp_path / "tune" / "trials" / k / name).stat().st_mtime_ns for k in ("0000", "0001")]
        for name in ("labelled.xyz", "far.xyz", "far_level.xyz")
    }
    assert all((first == second) is shared for first, second in made.values())


def test_labels_are_shared_where_no_searched_setting_changes_them(tmp_path):
    first, config = tmp_path / "0", load_config([], ["pretrain.correct=2"])
    (first / "difference").mkdir(parents=True)
    (first / "difference" / "a").write_text("a")
    for name in ("labelled.xyz", "far_structures.xyz", "far.xyz"):
        (first / name).write_text(name)
    for k, (key, networks, far) in enumerate(
        (("loss.energy_weight", False, False), ("model.cutoff", True, False), ("weak.pitc", True, True))
    ):
        folder = tmp_path / f"trial {k}"
        take_labels(first, folder, config, [key])
        assert (folder / "difference" / "a").exists() is (folder / "labelled.xyz").exists() is networks
        assert (folder / "far.xyz").exists() is (folder / "far_structures.xyz").exists() is far
        assert not list(folder.glob(".*"))
    # What a trial has is its own.
    (folder / "labelled.xyz").write_text("mine")
    take_labels(first, folder, config, [key])
    assert (folder / "labelled.xyz").read_text() == "mine"
