"""Campaigns: independence of replicas of each other, restarts, plans, tables."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from asecalc_mlip import PIWSLCalculator, workers
from asecalc_mlip.analysis import survival
from asecalc_mlip.engine import NativeEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.campaign import plan as planning
from asecalc_mlip.md.campaign.plan import plan_campaign
from asecalc_mlip.md.campaign.report import report_campaign
from asecalc_mlip.md.campaign.runs import read_plan, run_share, shares
from tests import processes
from tests.md import toys
from tests.md.commands import call
from tests.md.models import random_model
from tests.md.restarts import assert_same_run


class Held(PIWSLCalculator):
    """The random model, with springs to the start so that the molecule stays together."""

    def __init__(self, path):
        loaded = PIWSLCalculator.load(path, device="cpu")
        self.__dict__.update(loaded.__dict__)
        model, anchor = loaded.engine, toys.ethanol().positions

        def engine(graph, **options):
            import torch

            prediction = model(graph, **options)
            moved = graph.positions - torch.from_numpy(np.tile(anchor, (graph.n_structures, 1)))
            return replace(prediction, forces=prediction.forces - 5.0 * moved)

        self.engine = engine


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A campaign of six runs that is planned but not run."""
    monkeypatch.chdir(tmp_path)
    random_model(tmp_path / "model.pt")
    write("start.extxyz", toys.ethanol())

    def make(output, *arguments, temperatures=(100, 200)):
        given = ["--model", "model.pt", "--structure", "start.extxyz"]
        given += [text for kelvin in temperatures for text in ("--temperature", str(kelvin))]
        given += ["--steps", "440", "--interval", "20", "--thermostat", "langevin", "--output", output, *arguments]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planning, "run_campaign", lambda campaign, **options: report_campaign(campaign.directory, []))
            result = call("campaign", *given)
        assert result.exit_code == 0, result.output
        return read_plan(Path(output))

    return make


def test_no_two_runs_have_the_same_noise(plan):
    """Else like systems synchronise: what is counted as many trajectories would be one."""
    write("start.extxyz", [toys.ethanol(), toys.ethanol()])
    runs = plan("campaign", "--seeds", "5,6")
    seeds = [run.settings["seed"] for run in runs]
    assert len(runs) == 8 and len(set(seeds)) == 8
    assert seeds[:2] == [5, 6]
    assert [run.settings["seed"] for run in plan("again", "--seeds", "5,6")] == seeds
    assert [run.name.rpartition("seed")[2] for run in runs] == ["5", "6"] * 4
    assert plan("one", "--seeds", "7,")[0].settings["seed"] == 7


def test_a_replica_depends_neither_on_its_batch_nor_on_breaks(plan, monkeypatch):
    calculator = Held("model.pt")
    if not NativeEngine.serves(calculator.potential):
        pytest.skip("the native library was not built; other engines round by the composition of a batch")
    runs = plan("whole", "--seeds", "3")
    assert len(runs) == 6 and run_share("whole", runs, calculator=calculator) == 6
    assert all(len(read(f"whole/{run.name}/trajectory.extxyz", ":")) == 23 for run in runs)
    plan("alone", "--seeds", "3")
    assert run_share("alone", runs[4:5], calculator=calculator) == 1
    assert_same_run(Path("whole") / runs[4].name, Path("alone") / runs[4].name)
    plan("cut", "--seeds", "3")
    steps = iter(range(10**6))
    run_share("cut", runs, calculator=calculator, stop=lambda: next(steps) == 290)  # restart points are at 200 and 400
    assert len(shares(Path("cut"), runs, 64, 1)[0]) == 6
    assert run_share("cut", read_plan(Path("cut")), calculator=calculator) == 6
    for run in runs:
        assert_same_run(Path("whole") / run.name, Path("cut") / run.name)
    assert shares(Path("cut"), runs, 64, 1) == []


def test_a_broken_replica_leaves_and_the_others_go_on(plan):
    """The random model alone holds nothing together: NaN in one replica must not reach the others."""
    calculator = Held("model.pt")
    runs = plan("campaign", "--seeds", "2")
    held, count = calculator.engine, [0]

    def poisoned(graph, **options):
        prediction = held(graph, **options)
        count[0] += 1
        if count[0] == 91:
            prediction.forces[9:18] = np.nan
        return prediction

    calculator.engine = poisoned
    run_share("campaign", runs, calculator=calculator)
    report = report_campaign(Path("campaign"), runs)
    found = [json.loads((Path("campaign") / run.name / "summary.json").read_text()) for run in runs]
    assert [s["status"] for s in found] == ["finished", "unstable", "finished", "finished"]
    assert found[1]["failure"]["kind"] == "not finite" and 80 <= found[1]["failure"]["step"] <= 100
    assert (Path("campaign") / runs[1].name / "unstable.extxyz").exists()
    assert [row["stable"] for row in report.rows] == [1, 2] and report.rows[0]["failures"] == {"not finite": 1}
    assert "not finite 1" in repr(report) and Path("campaign/survival.png").stat().st_size > 5000
    assert json.loads(Path("campaign/campaign_summary.json").read_text())["groups"][0]["survival"]["n_broken"] == 1


def test_rules_that_replicas_share_are_told_once(plan, caplog):
    runs = plan("campaign", "--seeds", "2")
    with caplog.at_level("INFO", logger="asecalc_mlip"):
        run_share("campaign", runs[:2], calculator=Held("model.pt"), stop=lambda: True)
    assert caplog.text.count("Watched: contacts") == 1


def test_a_killed_campaign_continues(plan, tmp_path):
    """kill -9 in the middle; the model is loose, but that is the same with and without the break."""
    common = [sys.executable, "-m", "asecalc_mlip.cli", "campaign", "--model", "model.pt"]
    common += ["--structure", "start.extxyz", "--seeds", "2", "--temperature", "20", "--steps", "800"]
    common += ["--interval", "20", "--timestep", "0.1", "--no-bond-rule", "--thermostat", "nose-hoover"]
    process = processes.Popen([*common, "--output", "cut"])
    log = Path("cut/model-start000-20K-seed1/log.csv")
    end = time.time() + 60
    while time.time() < end and not (log.exists() and log.stat().st_size > 1500):  # some 15 frames
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert call("campaign", *common[4:], "--output", "whole").exit_code == 0
    assert call("campaign", *common[4:], "--output", "cut").exit_code == 0  # the same command goes on
    for run in read_plan(Path("whole")):
        assert_same_run(Path("whole") / run.name, Path("cut") / run.name)


def test_processes_end_with_their_campaign(plan):
    """Asked to stop, or killed: no worker is left behind, and what is left goes on to the same runs."""
    settings = ("--seeds", "2", "--steps", "3000", "--no-bond-rule")
    plan("whole", *settings, temperatures=[100])
    assert call("campaign", "--restart", "--output", "whole", "--batch-size", "1").exit_code == 0
    for number, code, cut in ((signal.SIGTERM, 143, "stopped"), (signal.SIGKILL, -9, "killed")):
        runs = plan(cut, *settings, temperatures=[100])
        command = [sys.executable, "-m", "asecalc_mlip.cli", "campaign", "--restart", "--output", cut]
        process = processes.Popen([*command, "--processes", "2"], start_new_session=True)
        end = time.time() + 120
        while time.time() < end and not list(Path(cut).glob("*/restart*")):
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=120) == code
        end = time.time() + 60
        while time.time() < end and group_of(process.pid):
            time.sleep(0.1)
        assert not group_of(process.pid)
        assert call("campaign", "--restart", "--output", cut).exit_code == 0
        for run in runs:
            assert_same_run(Path("whole") / run.name, Path(cut) / run.name)


def group_of(leader):
    """Processes of a session that live."""
    listed = subprocess.run(["ps", "-eo", "sid,stat,pid"], capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return [pid for sid, state, pid in rows if sid == str(leader) and not state.startswith("Z")]


def test_models_meant_for_unlike_runs_are_not_compared(plan, tmp_path):
    random_model(tmp_path / "other.pt")
    both = ["silica.pt", "--model", "other.pt", "--output", "b"]
    result = call("campaign", *both)
    assert result.exit_code == 2 and "several models need start structures" in result.stderr
    result = call("campaign", *both, "--structure", "start.extxyz")
    assert result.exit_code == 2 and "meant for unlike runs (silica.pt: temperature_K 2000.0" in result.stderr
    assert not Path("b").exists()


def test_the_same_plan_goes_on_and_another_one_does_not(plan, tmp_path):
    common = ["model.pt", "--structure", "start.extxyz", "--temperature", "20", "--steps", "20", "--interval", "10"]
    common += ["--no-bond-rule", "--thermostat", "langevin"]
    first = call("campaign", *common, "--seeds", "2")
    assert first.exit_code == 0 and "Files: campaign" in first.stdout and "already" not in first.stdout
    before = {p: p.read_bytes() for p in Path("campaign").rglob("*.extxyz")}
    again = call("campaign", *common, "--seeds", "2")
    assert (
        again.exit_code == 0 and "campaign was complete already" in again.stdout and "Files: campaign" in again.stdout
    )
    assert {p: p.read_bytes() for p in Path("campaign").rglob("*.extxyz")} == before
    assert call("campaign", *common, "--seeds", "3").stdout.endswith("Files: campaign-2\n")
    for more, message in (
        (["--seeds", "3"], "it has 2 runs, now 3"),
        (["--seeds", "2", "--tau", "50"], "tau_fs of model-start000-20K-seed0 was 100.0, now 50.0"),
    ):
        refused = call("campaign", *common, *more, "--output", "campaign")
        assert refused.exit_code == 2 and message in refused.stderr
    moved = toys.ethanol()
    moved.positions += 0.1
    write("start.extxyz", moved)
    refused = call("campaign", *common, "--seeds", "2", "--output", "campaign")
    assert refused.exit_code == 2 and "start structures were others" in refused.stderr


def test_dask_runs_the_shares(plan):
    """A scheduler and two workers in processes of their own; the runs are those of one process."""
    distributed = pytest.importorskip("distributed")
    runs = plan("campaign", "--seeds", "2", "--steps", "60", "--no-bond-rule")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        arguments = ["--restart", "--output", "campaign", "--dask", cluster.scheduler_address, "--batch-size", "1"]
        assert call("campaign", *arguments).exit_code == 0
    plan("whole", "--seeds", "2", "--steps", "60", "--no-bond-rule")
    assert call("campaign", "--restart", "--output", "whole", "--batch-size", "1").exit_code == 0
    for run in runs:
        assert_same_run(Path("whole") / run.name, Path("campaign") / run.name)


def test_a_scheduler_that_is_not_there(plan):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    plan("campaign")
    with dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}):
        result = call("campaign", "--restart", "--output", "campaign", "--dask", "tcp://127.0.0.1:9")
    assert result.exit_code == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in result.stderr


def test_without_dask_nothing_is_planned(plan, monkeypatch):
    plan("other")
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    arguments = ["--model", "model.pt", "--structure", "start.extxyz", "--output", "campaign", "--dask", "tcp://a:1"]
    result = call("campaign", *arguments)
    assert result.exit_code == 2
    assert "--dask needs distributed" in result.stderr and "pip install" in result.stderr
    assert not Path("campaign").exists()


def test_a_restart_is_given_what_was_planned_or_nothing(plan, monkeypatch):
    plan("campaign", "--seeds", "2")
    monkeypatch.setattr(planning, "run_campaign", lambda campaign, **options: report_campaign(campaign.directory, []))
    moved = toys.ethanol()
    moved.positions += 0.1
    write("moved.extxyz", moved)
    restart = ["--restart", "--output", "campaign"]
    same = ["--steps", "440", "--thermostat", "langevin", "--seeds", "0,1", "--temperature", "200"]
    same += ["--temperature", "100", "--structure", "start.extxyz", "--starts", "1", "--model", "model.pt"]
    assert call("campaign", *restart, *same).exit_code == 0
    for options, message in {
        ("--steps", "500", "--ensemble", "nve"): "steps was 440, now 500; ensemble was nvt, now nve",
        ("--temperature", "300"): "temperature_K were 100.0, 200.0, now 300.0",
        ("--seeds", "3"): "seeds were 0, 1, now 0, 1, 2",
        ("--starts", "2"): "starts was 1, now 2",
        ("--model", "aspirin_painn.pt"): "the models were",
        ("--structure", "moved.extxyz"): "its start structures were others",
        ("--reference", "start.extxyz"): "the reference was that of each model",
        ("--protocol", "md17"): "protocol was None, now md17",
        ("--no-bond-rule",): "bond_rule was True, now False",
    }.items():
        result = call("campaign", *restart, *options)
        assert result.exit_code == 2 and message in result.stderr, (options, result.output)


def test_bad_input_is_named(plan):
    plan("campaign")
    for arguments, message in [
        (["--output", "campaign"], "has a campaign already"),
        (["--restart", "--output", "nowhere"], "no campaign to continue"),
        (["--model", "nowhere.pt"], "nowhere.pt"),
        (["--model", "model.pt"], "without a start structure"),
        (["--model", "model.pt", "--structure", "start.extxyz", "--starts", "5"], "5 starts cannot"),
        (["--seeds", "0", "--output", "b"], "--seeds is '0'"),
        (["--seeds", "1,1", "--output", "b"], "--seeds is '1,1'"),
        (
            ["--model", "model.pt", "--structure", "start.extxyz", "--temperature", "300", "--temperature", "300"],
            "several runs are called model-start000-300K-seed0",
        ),
        (["--protocol", "ramp", "--output", "b"], "asecalc anneal"),
        (
            ["--restart", "--output", "campaign", "--batch-size", "0"],
            "--batch-size is '0'; expected a whole number from 1",
        ),
    ]:
        result = call("campaign", *arguments)
        assert result.exit_code == 2, arguments
        assert message in result.stderr
    Path("model.pt").write_bytes(b"other")
    result = call("campaign", "--restart", "--output", "campaign")
    assert result.exit_code == 2 and "has changed" in result.stderr


def test_survival_counts_runs_that_ended_before_they_broke():
    curve = survival([1.0, 2.0, 2.0, 4.0, 5.0, 5.0], [True, True, False, True, False, False])
    assert curve.at(0.5) == 1.0 and curve.at(1.0) == pytest.approx(5 / 6)
    assert curve.at(3.0) == pytest.approx(5 / 6 * 4 / 5)
    assert curve.at(5.0) == pytest.approx(5 / 6 * 4 / 5 * 2 / 3) and curve.median_ps == 4.0
    whole = survival([3.0] * 20, [False] * 20)
    assert whole.fraction[-1] == 1.0 and 0.8 < whole.low[-1] < 0.9 and whole.median_ps is None
    assert "20 runs, 0 broke" in repr(whole)
    with pytest.raises(InputError, match="survival curve needs"):
        survival([], [])


def test_a_protocol_brings_its_ensemble_and_seeds(tmp_path):
    def planned(model="aspirin.pt", **given):
        runs = plan_campaign([model], output=tmp_path / str(len(list(tmp_path.iterdir()))), **given).runs
        return {run.settings["ensemble"] for run in runs}, [run.settings["seed"] for run in runs], runs

    assert planned(protocol="piwsl")[:2] == ({"nve"}, [1234, 2345, 3456])
    assert planned(protocol="md17", seeds=(0, 1))[:2] == ({"nvt"}, [0, 1])
    # A model that says what it is meant for is run so, at the time step of its protocol.
    *_, runs = planned("silica.pt")
    names = ("protocol", "temperature_K", "timestep_fs", "steps")
    assert {tuple(run.settings[name] for name in names) for run in runs} == {("eam-silica", 2000.0, 2.0, 5000)}
    *_, runs = planned("silica.pt", temperatures_K=(300.0,))
    assert {run.settings["temperature_K"] for run in runs} == {300.0} and runs[0].settings["protocol"] is None
    with pytest.raises(InputError, match="run it with asecalc anneal"):
        planned(protocol="ramp")


def test_a_campaign_that_was_begun_with_what_its_ensemble_drops_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = random_model(tmp_path / "model.pt")
    write("start.xyz", toys.ethanol())
    plan = partial(plan_campaign, [model], ["start.xyz"], ensemble="nve", steps=200)
    with pytest.raises(InputError, match="thermostat is langevin, and nve has no thermostat: leave it out"):
        plan(thermostat="langevin")
    before = plan()  # what versions before planned with it
    assert plan(thermostat="langevin", tau_fs=100.0) == before
    with pytest.raises(InputError, match="tau_fs is 100.0, and nve has no thermostat"):
        plan(tau_fs=100.0, seeds=[7])
    assert not Path("campaign-2").exists()
