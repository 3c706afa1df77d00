"""Committees from the command line: the mean force moves the atoms, and the spread is in log and summary."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write

from asecalc_mlip import CommitteeCalculator, md
from asecalc_mlip.checkpoint import save
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.summary import rules_text
from tests.cases import make_potential
from tests.md import toys
from tests.md.commands import call

SHORT = ("--temperature", 300, "--timestep", 0.2, "--interval", 5, "--no-bond-rule", "--dtype", "float64")
SHORT = (*SHORT, "--device", "cpu", "--structure", "start.xyz")


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch):
    """Three models of different seeds and a start structure in the working directory."""
    monkeypatch.chdir(tmp_path)
    write("start.xyz", toys.ethanol())
    for seed, name in enumerate("abc"):
        save(tmp_path / f"{name}.pt", make_potential("painn", dtype=torch.float32, seed=seed, cutoff=4.0), card={})


def committee():
    return CommitteeCalculator.load(["a.pt", "b.pt"], device="cpu", dtype="float64")


def nvt(*arguments):
    return call("nvt", "--model", "a.pt", "--model", "b.pt", *SHORT, *arguments)


def test_the_mean_force_moves_the_atoms_and_the_spread_is_recorded():
    result = nvt("--steps", 10)
    assert result.exit_code == 0, result.stderr
    folder = Path("nvt-a+1-start-300K-seed0")
    frames, summary = read(folder / "trajectory.extxyz", ":"), json.loads((folder / "summary.json").read_text())
    log = md.MDResult(summary, folder).log()
    found = committee().evaluate(frames)
    np.testing.assert_allclose(frames[-1].get_forces(), found[-1]["forces"], atol=1e-5)
    np.testing.assert_allclose(log["spread_eV_per_A"], [one["forces_std"].max() for one in found], rtol=1e-4)
    spread = summary["spread"]
    assert (spread["members"], spread["frames"], spread["frames_above"]) == (2, 3, None)
    assert spread["largest_eV_per_A"] == log["spread_eV_per_A"].max()
    assert "Spread of 2 models, on the worst atom: mean" in result.stdout
    assert "spread of 2 models (no threshold; the log has it)" in result.stdout
    alone = call("nvt", "a.pt", *SHORT, "--steps", 10, "-o", "alone")
    assert "Spread" not in alone.stdout and "spread" not in Path("alone/log.csv").read_text()


def test_a_threshold_warns_or_stops():
    spread = float(committee().evaluate([toys.ethanol()])[0]["forces_std"].max())
    limit = ("--threshold", repr(spread + 1e-9), "--steps", 15, "--temperature", 50)
    with pytest.warns(UserWarning, match="2 models disagree by"):
        warned = nvt(*limit, "-o", "warned")
    assert warned.exit_code == 0
    summary = json.loads(Path("warned/summary.json").read_text())
    assert 0 < summary["spread"]["frames_above"] < 4 and summary["settings"]["action"] == "warn"
    assert f"{spread:g} or more in" in warned.stdout
    assert f"spread of 2 models at every step (warn from {spread:g} eV/Å on)" in rules_text(summary["rules"])[0]
    stopped = nvt(*limit, "--action", "stop", "-o", "stopped")
    assert stopped.exit_code == 1 and "(uncertain): 2 models disagree" in stopped.stdout
    assert Path("stopped/unstable.extxyz").is_file()
    strict = nvt("--threshold", repr(spread / 2), "--steps", 5, "--action", "stop", "-o", "strict")
    assert strict.exit_code == 2 and "2 models disagree" in strict.stderr


def test_a_run_goes_on_with_all_its_members():
    whole = nvt("--steps", 20, "-o", "whole")
    assert whole.exit_code == 0 and nvt("--steps", 10, "-o", "cut").exit_code == 0
    assert nvt("--steps", 20, "-o", "cut").exit_code == 0
    for name in ("trajectory.extxyz", "log.csv"):
        assert Path("whole", name).read_bytes() == Path("cut", name).read_bytes()
    assert call("nvt", "--restart", "-o", "cut", "--steps", 30, "--device", "cpu").exit_code == 0
    for others in (("--model", "a.pt"), ("--model", "a.pt", "--model", "c.pt"), ("b.pt", "--model", "a.pt")):
        for more in (("--restart",), SHORT):
            wrong = call("nvt", *others, *more, "-o", "cut", "--steps", 30)
            assert wrong.exit_code == 2 and "not the one this run was begun with" in wrong.stderr, wrong.output
    assert call("nvt", "a.pt", "--model", "a.pt", *SHORT, "--steps", 5, "-o", "one").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pt", "b.pt"], "b.pt is a model: for a committee give --model for each"),
        (["--model", "a.pt", "--model", "a.pt", *SHORT], "a.pt is given twice: a committee needs different models"),
        (["a.pt", *SHORT, "--threshold", "0.3"], "is for a committee, and there is one model"),
        (["a.pt", "--model", "b.pt", *SHORT, "--action", "stop"], "action needs the threshold"),
        (["a.pt", "--model", "b.pt", *SHORT, "--threshold", "0"], "--threshold is '0'; expected a number from"),
    ],
)
def test_what_is_no_committee_is_told(arguments, message):
    result = call("nvt", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_a_committee_in_python():
    found = md.resolve(["a.pt", "b.pt"], "start.xyz")
    settings = found.settings("nvt", threshold_eV_per_A=0.3)
    assert [Path(name).name for name in settings.members] == ["b.pt"] and settings.action == "warn"
    assert found.calculator_for(settings, device="cpu").threshold == 0.3
    with pytest.raises(InputError, match="action is 'shout'"):
        found.settings("nvt", threshold_eV_per_A=0.3, action="shout")
