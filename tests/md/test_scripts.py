"""The scripts as a user runs them: exit codes, files, frame grid, messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write

from asecalc_mlip.analysis import MoleculeReference
from asecalc_mlip.md import script
from md_protocols import nve, nvt
from tests.cases import DIRECT, make_potential
from tests.md import toys

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A working directory with a start structure."""
    monkeypatch.chdir(tmp_path)
    toys.ethanol().write("start.xyz")
    return tmp_path


def run(main, *arguments, calculator=None):
    calculator = calculator or toys.Springs(toys.ethanol())
    return main(["--structure", "start.xyz", *map(str, arguments)], calculator=calculator)


def test_files_frame_grid_and_summary(start, capsys):
    before = dict(matplotlib.rcParams)
    assert run(nvt.main, "--steps", 450, "--interval", 40, "--temperature", 300, "--seed", 7, "--output", "run") == 0
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
    assert summary["status"] == "finished" and summary["stable_ps"] == pytest.approx(0.22)
    assert summary["settings"]["seed"] == 7 and summary["ms_per_step"] > 0 and summary["time_ps"] == 0.225
    assert {p.name for p in Path("run").iterdir()} == {
        "trajectory.extxyz", "log.csv", "summary.json", "figure.png", "restart.npz", "reference.json"
    }  # fmt: skip
    assert "Stable for all 0.225 ps" in capsys.readouterr().out


def test_nothing_is_overwritten(start, capsys):
    assert run(nvt.main, "--steps", 20, "--output", "run") == 0
    before = {p.name: p.read_bytes() for p in Path("run").iterdir()}
    assert run(nvt.main, "--steps", 20, "--output", "run") == 2
    assert "--restart" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in Path("run").iterdir()} == before
    for expected in ("nvt-aspirin-500K-seed0", "nvt-aspirin-500K-seed0-2"):  # without --output: a new name each time
        assert run(nvt.main, "--steps", 20) == 0 and Path(expected, "log.csv").exists()


def test_unstable_run_exits_with_one_also_when_restarted(start, capsys):
    def push(atoms, forces):
        return forces + np.eye(9, 3) * 30.0

    calculator = toys.Springs(toys.ethanol(), failures={50: push})
    assert run(nve.main, "--steps", 2000, "--interval", 10, "--output", "run", calculator=calculator) == 1
    assert Path("run/figure.png").stat().st_size > 10_000
    output = capsys.readouterr().out
    assert "UNSTABLE at" in output and "Å long, its mean is" in output and "unstable.extxyz" in output
    assert nve.main(["--restart", "--output", "run"], calculator=calculator) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--structure", "missing.xyz"], "missing.xyz"),
        (["--temperature", "-5"], "temperature_K must be a positive number"),
        (["--temperature", "nan"], "temperature_K"),
        (["--interval", "0"], "interval"),
        (["--protocol", "nonsense"], "md17"),
        (["--protocol", "piwsl"], "nve.py"),
        (["--restart"], "--output DIR"),
        (["--restart", "--output", "empty"], "nothing to restart"),
        (["--reference", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_exits_with_two_and_a_sentence(start, capsys, arguments, message):
    assert run(nvt.main, *arguments) == 2
    captured = capsys.readouterr().err
    assert message in captured and captured.startswith("Error: ") and "Traceback" not in captured


def test_a_crash_is_neither_stable_nor_unstable(start, capsys):
    def crash(atoms, forces):
        raise RuntimeError("out of memory")

    assert run(nvt.main, "--output", "run", calculator=toys.Springs(toys.ethanol(), failures={30: crash})) == 3
    assert "out of memory" in capsys.readouterr().err


def test_no_steps_and_too_few_cell_vectors(start, capsys):
    assert run(nvt.main, "--steps", "0", "--output", "zero") == 0
    atoms = toys.ethanol()
    atoms.pbc = True
    write("open.extxyz", atoms)
    assert run(nvt.main, "--structure", "open.extxyz") == 2
    assert "fewer than three vectors" in capsys.readouterr().err


def test_missing_model_is_bad_input(start, capsys):
    assert nvt.main(["--model", "nowhere.pt"]) == 2
    assert "nowhere.pt" in capsys.readouterr().err


def test_constraints_and_wrong_reference_are_refused(start, capsys):
    atoms = toys.ethanol()
    atoms.set_constraint(FixAtoms([0]))
    write("fixed.traj", atoms)
    assert run(nvt.main, "--structure", "fixed.traj") == 2
    assert "FixAtoms" in capsys.readouterr().err
    MoleculeReference.from_frames(atoms[::-1]).save("other.json")
    assert run(nvt.main, "--reference", "other.json") == 2
    assert "does not fit" in capsys.readouterr().err


def test_reference_gives_an_error_of_h(start):
    rng = np.random.default_rng(0)
    frames = [toys.ethanol() for _ in range(60)]
    for frame in frames:
        frame.positions += 0.05 * rng.standard_normal((9, 3))
    MoleculeReference.from_frames(frames, "made up").save("reference.json")
    assert run(nvt.main, "--reference", "reference.json", "--steps", "400", "--interval", "20", "--output", "run") == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0.0 < summary["h_error"] < 2.0 and summary["h_reference"] == "made up"


def test_periodic_run_draws_its_rdf(start):
    write("copper.xyz", toys.copper())
    arguments = ["--structure", "copper.xyz", "--thermostat", "bussi", "--steps", "100", "--interval", "10"]
    assert nvt.main([*arguments, "--output", "run"], calculator=EMT()) == 0
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


def test_long_time_step_with_hydrogen_warns(start, capsys):
    assert run(nvt.main, "--timestep", "1.5", "--steps", "10", "--output", "a") == 0
    assert "hydrogen" in capsys.readouterr().err
    assert run(nvt.main, "--timestep", "1.0", "--steps", "10", "--output", "b") == 0
    assert "hydrogen" not in capsys.readouterr().err


def test_progress_is_silent_unless_asked_for(start, capsys):
    assert run(nvt.main, "--steps", "400", "--output", "a") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "C2H6O, NVT, nose-hoover, 500 K, 0.5 fs, 400 steps (0.2 ps); output in a"
    assert run(nvt.main, "--steps", "400", "--progress", "--output", "b") == 0
    shown = capsys.readouterr().err
    assert "400/400" in shown


def test_script_runs_from_any_directory(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for name in ("nvt.py", "nve.py"):
        command = [sys.executable, str(ROOT / "md_protocols" / name), "--model", "nowhere.pt"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.startswith("Error: There is no model 'nowhere.pt'")


def test_interrupt_outside_the_dynamics(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "_run", interrupted)
    assert script.main("nvt", "", []) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_nve_warns_of_direct_forces(start, capsys):
    calculator = toys.Springs(toys.ethanol())
    assert run(nve.main, "--steps", 2, "--output", "springs", calculator=calculator) == 0
    assert "direct" not in capsys.readouterr().err
    calculator.potential = make_potential(DIRECT)
    assert run(nve.main, "--steps", 2, "--output", "direct", calculator=calculator) == 0
    assert capsys.readouterr().err.count("the total energy will drift") == 1
    assert run(nvt.main, "--steps", 2, "--output", "nvt", calculator=calculator) == 0
    assert "drift" not in capsys.readouterr().err
