"""The commands as a user runs them: exit codes, files, frame grid, messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.constraints import FixBondLength
from ase.io import read, write

from asecalc_mlip.analysis import MoleculeReference
from asecalc_mlip.errors import InputError
from asecalc_mlip.md import resolving
from asecalc_mlip.md.run import MDRun
from asecalc_mlip.md.settings import MDSettings
from tests import processes
from tests.cases import DIRECT, make_potential
from tests.md import toys
from tests.md.commands import call
from tests.md.models import random_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A working directory with a start structure."""
    monkeypatch.chdir(tmp_path)
    toys.ethanol().write("start.xyz")
    return tmp_path


def run(command, *arguments, calculator=None):
    calculator = calculator or toys.Springs(toys.ethanol())
    return call(command, "--structure", "start.xyz", *arguments, calculator=calculator)


def test_files_frame_grid_and_summary(start, figure):
    before = dict(matplotlib.rcParams)
    arguments = ("--steps", 450, "--interval", 40, "--temperature", 300, "--seed", 7, "--output", "run")
    result = run("nvt", *arguments)
    assert result.exit_code == 0
    assert dict(matplotlib.rcParams) == before
    frames = read("run/trajectory.extxyz", ":")
    steps = [frame.info["step"] for frame in frames]
    assert steps == list(range(0, 450, 40))
    log = np.genfromtxt("run/log.csv", delimiter=",", names=True)
    np.testing.assert_array_equal(log["step"], steps)
    np.testing.assert_allclose(log["etot_eV"], log["epot_eV"] + log["ekin_eV"])
    np.testing.assert_allclose(log["time_ps"], np.array(steps) * 0.5e-3)
    assert frames[3].get_forces().any() and frames[3].get_momenta().any()
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "finished" and summary["stable_ps"] == pytest.approx(0.225)
    assert summary["settings"]["seed"] == 7 and summary["ms_per_step"] > 0 and summary["time_ps"] == 0.225
    assert {p.name for p in Path("run").iterdir()} == {
        "trajectory.extxyz", "log.csv", "summary.json", "figure.png", "restart.npz", "reference.json"
    }  # fmt: skip
    assert "Stable for all 0.225 ps" in result.stdout


def content(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def test_the_same_command_goes_on_and_nothing_is_overwritten(start):
    assert run("nvt", "--steps", 20, "--output", "run").exit_code == 0
    before = content("run")
    again = run("nvt", "--steps", 20, "--output", "run")
    assert again.exit_code == 0 and "complete already" in again.stdout and "Stable for all 0.01 ps" in again.stdout
    other = run("nvt", "--steps", 20, "--temperature", 300, "--output", "run")
    assert other.exit_code == 2 and "temperature_K was 500.0, now 300.0" in other.stderr
    fewer = run("nvt", "--steps", 10, "--output", "run")
    assert fewer.exit_code == 2 and "10 are fewer" in fewer.stderr
    moved = toys.ethanol()
    moved.positions[0] += 0.01
    moved.write("moved.xyz")
    longer = call("nvt", "--structure", "moved.xyz", "--steps", 30, "--output", "run", calculator=toys.Springs(moved))
    assert longer.exit_code == 2 and "start structure is not the one" in longer.stderr
    assert content("run") == before
    assert run("nvt", "--steps", 30, "--output", "run").exit_code == 0
    assert json.loads(Path("run/summary.json").read_text())["steps_done"] == 30


def test_without_output_the_name_is_made_from_the_settings(start):
    for steps, folder in ((20, "nvt-aspirin-start-500K-seed0"), (30, "nvt-aspirin-start-500K-seed0-2")):
        for told in ("output in", "complete already"):
            result = run("nvt", "--steps", steps)
            assert result.exit_code == 0 and told in result.output and f"Files: {folder}\n" in result.stdout
    assert not Path("nvt-aspirin-start-500K-seed0-3").exists()


def test_an_unfinished_run_goes_on_by_the_same_command(start):
    from tests.md.restarts import assert_same_run, killed_at

    arguments = ("--steps", 400, "--interval", 20, "--thermostat", "bussi")
    assert run("nvt", *arguments, "--output", "whole").exit_code == 0
    for named in ((), ("--output", "cut")):
        with killed_at(290):
            run("nvt", *arguments, *named)
        folder = Path("cut" if named else "nvt-aspirin-start-500K-seed0")
        assert not (folder / "summary.json").exists()
        assert run("nvt", *arguments, *named).exit_code == 0
        assert_same_run(Path("whole"), folder)


def test_what_a_run_left_before_it_began_is_no_obstacle(start):
    Path("run").mkdir()
    Path("run/log.csv").write_text("step,time_ps\n")
    assert run("nvt", "--steps", 20, "--output", "run").exit_code == 0
    Path("run/restart.npz").unlink()
    Path("run/log.csv").write_text("step\n0\n20\n")
    refused = run("nvt", "--steps", 20, "--output", "run")
    assert refused.exit_code == 2 and "without its restart.npz" in refused.stderr


def test_unstable_run_exits_with_one_also_when_restarted(start, figure):
    def push(atoms, forces):
        return forces + np.eye(9, 3) * 30.0

    calculator = toys.Springs(toys.ethanol(), failures={50: push})
    arguments = ("--steps", 2000, "--interval", 10, "--output", "run")
    broken = run("nve", *arguments, calculator=calculator)
    assert broken.exit_code == 1
    assert Path("run/figure.png").stat().st_size > 10_000
    output = broken.stdout
    assert output.count("Watched: ") == 1
    assert "UNSTABLE at" in output and "Å long, its mean is" in output and "unstable.extxyz" in output
    assert call("nve", "--restart", "--output", "run", calculator=calculator).exit_code == 1
    same = run("nve", *arguments, calculator=calculator)
    assert same.exit_code == 1 and "broke already" in same.stdout


def test_a_run_that_has_ended_is_not_that_of_another_model(start):
    """It was reported as if it were."""
    random_model(start / "model.pt")
    given = ("--steps", 2, "--interval", 1, "--device", "cpu", "--output", "run")
    assert call("nvt", "model.pt", "start.xyz", *given).exit_code in (0, 1)
    restart = ("--restart", "--output", "run")
    assert call("nvt", *restart, "--model", "model.pt").exit_code in (0, 1)
    other = call("nvt", *restart, "--model", "aspirin_painn.pt")
    assert other.exit_code == 2 and "the model sha256 is not the one this run was begun with" in other.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--structure", "missing.xyz"], "missing.xyz"),
        (["--temperature", "-5"], "--temperature is '-5'; expected a number above 0, at most 10⁶ K"),
        (["--temperature", "nan"], "--temperature is 'nan'"),
        (["--interval", "0"], "--interval is '0'"),
        (["--protocol", "nonsense"], "md17"),
        (["--protocol", "piwsl"], "asecalc nve"),
        (["--restart"], "--output DIR"),
        (["--restart", "--output", "empty"], "nothing to restart"),
        (["--reference", "summary.json"], "reference"),
        (["aspirin.pt", "other.xyz"], "STRUCTURE is given twice"),
    ],
)
def test_bad_input_exits_with_two_and_a_sentence(start, arguments, message):
    result = run("nvt", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.startswith("Error: ") and "Traceback" not in result.stderr


def test_a_misspelt_option_brings_a_suggestion():
    result = call("nvt", "--temprature", "300")
    assert result.exit_code == 2 and "No such option" in result.stderr and "--temperature" in result.stderr


def test_model_and_structure_are_positional(start):
    result = call("nvt", "aspirin.pt", "start.xyz", "--steps", 20, "-o", "run", calculator=toys.Springs(toys.ethanol()))
    assert result.exit_code == 0
    settings = json.loads(Path("run/summary.json").read_text())["settings"]
    assert settings["model"] == "aspirin.pt" and settings["structure"] == str(Path("start.xyz").resolve())


def test_a_crash_is_neither_stable_nor_unstable(start, capsys):
    def crash(atoms, forces):
        raise RuntimeError("out of memory")

    result = run("nvt", "--output", "run", calculator=toys.Springs(toys.ethanol(), failures={30: crash}))
    assert result.exit_code == 3
    assert "out of memory" in result.stderr


def test_no_steps_and_no_cell_vectors(start):
    assert run("nvt", "--steps", "0", "--output", "zero").exit_code == 0
    atoms = toys.ethanol()
    atoms.pbc = True
    write("open.extxyz", atoms)
    result = call("nvt", "--structure", "open.extxyz", calculator=toys.Springs(atoms))
    assert result.exit_code == 2 and "periodic where its cell has no vector of its own" in result.stderr


def test_missing_model_is_bad_input(start):
    result = call("nvt", "--model", "nowhere.pt")
    assert result.exit_code == 2 and "nowhere.pt" in result.stderr and "aspirin.pt" in result.stderr


def test_constraints_and_wrong_reference_are_refused(start):
    atoms = toys.ethanol()
    atoms.set_constraint(FixBondLength(0, 1))
    write("fixed.traj", atoms)
    result = call("nvt", "--structure", "fixed.traj", calculator=toys.Springs(atoms))
    assert result.exit_code == 2 and "(FixBondLengths)" in result.stderr
    MoleculeReference.from_frames(atoms[::-1]).save("other.json")
    result = run("nvt", "--reference", "other.json")
    assert result.exit_code == 2 and "does not fit" in result.stderr


@pytest.mark.parametrize("what", ["positions", "masses", "cell"])
def test_starts_of_which_nothing_can_be_computed_are_refused_in_a_sentence(what, tmp_path):
    atoms = toys.ethanol()
    if what == "positions":
        atoms.positions[2] = np.nan
    elif what == "masses":
        atoms.set_masses([np.nan] + [1.0] * 8)
    else:
        atoms.pbc = True
    atoms.calc = toys.Springs(toys.ethanol())
    with pytest.raises(InputError, match=what):
        MDRun(atoms, MDSettings(steps=10), tmp_path / "run")


def test_reference_gives_an_error_of_h(start):
    rng = np.random.default_rng(0)
    frames = [toys.ethanol() for _ in range(60)]
    for frame in frames:
        frame.positions += 0.05 * rng.standard_normal((9, 3))
    MoleculeReference.from_frames(frames, "made up").save("reference.json")
    arguments = ("--reference", "reference.json", "--steps", "400", "--interval", "20", "--output", "run")
    assert run("nvt", *arguments).exit_code == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0.0 < summary["h_error"] < 2.0 and summary["h_reference"] == "made up"


def test_another_reference_than_the_run_began_with_is_refused(start):
    """Also where the run is complete: its result was judged by the first."""
    MoleculeReference.from_frames(toys.ethanol(), "one").save("one.json")
    MoleculeReference.from_frames(toys.ethanol(), "two").save("two.json")
    assert run("nvt", "--reference", "one.json", "--steps", 20, "--output", "run").exit_code == 0
    for more in (("--steps", 20), ("--steps", 30), ("--restart",)):
        other = run("nvt", "--reference", "two.json", *more, "--output", "run")
        assert other.exit_code == 2 and "the reference is not the one" in other.stderr
        assert run("nvt", "--reference", "one.json", *more, "--output", "run").exit_code == 0


def test_periodic_run_draws_its_rdf(start, figure):
    write("copper.xyz", toys.copper())
    arguments = ["--structure", "copper.xyz", "--thermostat", "bussi", "--steps", "100", "--interval", "10"]
    result = call("nvt", *arguments, "--output", "run", calculator=EMT())
    assert result.exit_code == 0
    assert "neither coordination nor g(r) are watched" in result.stderr
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["h_error"] is None and summary["degrees_of_freedom"] == 21
    assert Path("run/figure.png").stat().st_size > 10_000 and not Path("run/reference.json").exists()


def test_protocols_have_the_published_numbers():
    from asecalc_mlip.md.settings import make_settings

    md17 = make_settings("nvt", {"protocol": "md17"})
    assert (md17.temperature_K, md17.timestep_fs, md17.steps, md17.interval) == (500.0, 0.5, 600_000, 100)
    assert md17.thermostat == "nose-hoover"
    piwsl = make_settings("nve", {"protocol": "piwsl", "steps": 50})
    assert (piwsl.temperature_K, piwsl.thermostat, piwsl.seed, piwsl.steps) == (300.0, None, 1234, 50)


def test_long_time_step_with_hydrogen_warns(start):
    assert "hydrogen" in run("nvt", "--timestep", "1.5", "--steps", "10", "--output", "a").stderr
    assert "hydrogen" not in run("nvt", "--timestep", "1.0", "--steps", "10", "--output", "b").stderr


def test_progress_is_silent_unless_asked_for(start):
    result = run("nvt", "--steps", "400", "--output", "a")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line == "C2H6O, NVT, nose-hoover, 500 K, 0.5 fs, 400 steps (0.2 ps); output in a"
    assert "step " not in result.stdout.partition("Stable")[0]
    result = run("nvt", "--steps", "400", "--progress", "--output", "b")
    assert result.exit_code == 0
    assert "400/400" in result.stderr and "ns/day" in result.stderr


def test_a_long_run_without_a_terminal_says_how_far_it_is(start, monkeypatch):
    monkeypatch.setattr("asecalc_mlip.md.progress.SECONDS_BETWEEN_LINES", 0.0)
    lines = [
        line for line in run("nvt", "--steps", "400", "--interval", "10", "--output", "a").stdout.splitlines()
        if line.startswith("step ")
    ]  # fmt: skip
    assert len(lines) == 20
    assert lines[0].startswith("step 20 of 400, T ") and lines[-1].endswith(" ns/day")


def test_scripts_run_from_any_directory(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    scripts = [str(ROOT / "md_protocols" / f"{name}.py") for name in ("nvt", "nve", "npt", "anneal", "campaign")]
    # One after another in a process that starts as each of them would: imports take longer than all of them.
    code = (
        "import runpy, sys\n"
        "sys.path[0], scripts, sys.argv[1:] = sys.argv[1], sys.argv[2:], ['--model', 'nowhere.pt']\n"
        "for script in scripts:\n"
        "    try:\n"
        "        runpy.run_path(script, run_name='__main__')\n"
        "    except SystemExit as end:\n"
        "        print(end.code)\n"
    )
    command = [sys.executable, "-c", code, str(ROOT / "md_protocols"), *scripts]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2"] * 5, done.stderr
    assert done.stderr.count("Error: model file 'nowhere.pt' does not exist") == 5


@pytest.mark.parametrize("name", ["nvt", "nve", "npt", "anneal"])
def test_scripts_make_the_files_of_the_commands(tmp_path, monkeypatch, name):
    """Part by part, as the scripts show it, or in one command: the same trajectory, and either goes on."""
    from asecalc_mlip.md.files import RunFiles
    from tests.md.restarts import assert_same_run

    monkeypatch.chdir(tmp_path)
    model = "silica.pt" if name == "npt" else "ethanol.pt"
    common = ["--model", model, "--steps", "20" if name == "npt" else "200", "--seed", "3", "--temperature", "250"]
    script = [sys.executable, str(ROOT / "md_protocols" / f"{name}.py"), *common, "--output", "script"]
    done = processes.run(script)
    assert done.returncode == 0, done.stderr
    assert f"{name.upper()}, seed 3" in done.stdout
    assert call(name, *common, "--output", "command").exit_code == 0
    assert_same_run(Path("script"), Path("command"))
    assert {p.name for p in Path("script").iterdir()} == {p.name for p in Path("command").iterdir()}
    again = call(name, *common, "--output", "script")
    assert again.exit_code == 0 and "complete already" in again.stdout
    assert RunFiles("script").load_restart()[1]["restarts"] == 0


def test_interrupt_outside_the_dynamics(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(resolving, "resolve", interrupted)
    result = call("nvt")
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr


def test_nve_warns_of_direct_forces(start):
    calculator = toys.Springs(toys.ethanol())
    told = run("nve", "--steps", 2, "--output", "springs", calculator=calculator)
    assert told.exit_code == 0 and "direct" not in told.stderr
    calculator.potential = make_potential(DIRECT)
    told = run("nve", "--steps", 2, "--output", "direct", calculator=calculator)
    assert told.exit_code == 0 and told.stderr.count("the total energy will drift") == 1
    told = run("nvt", "--steps", 2, "--output", "nvt", calculator=calculator)
    assert told.exit_code == 0 and "drift" not in told.stderr
