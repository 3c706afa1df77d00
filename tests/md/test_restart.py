"""A run that is stopped and continued equals the run that was not, byte for byte."""

import json
import signal
import subprocess
import sys
import time

import pytest
from ase.io import read

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.lifecycle import run_md
from asecalc_mlip.md.settings import MDSettings, continue_settings
from asecalc_mlip.md.thermostats import THERMOSTATS
from tests import processes
from tests.md import toys
from tests.md.restarts import assert_same_run, go_on, killed_at


def settings(thermostat="nose-hoover", **changes):
    ensemble = "nvt" if thermostat else "nve"
    given = {"ensemble": ensemble, "thermostat": thermostat, "temperature_K": 300.0, "steps": 600, "interval": 20}
    return MDSettings(**{**given, **changes})


def copper_run(directory, chosen):
    """EMT copper: its neighbour list has a skin, so a careless restart sums in another order."""
    atoms = toys.copper()
    atoms.calc = toys.EMT()
    return run_md(atoms, chosen, directory)


@pytest.fixture(scope="module")
def whole_copper(tmp_path_factory):
    """Folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("copper") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asecalc_mlip.md.summary._figure", lambda *arguments: b"")
        copper_run(folder, settings())
    return folder


@pytest.mark.parametrize("thermostat", [None, *THERMOSTATS])
@pytest.mark.parametrize("system", ["molecule", "crystal"])
def test_restart_is_bit_for_bit(tmp_path, thermostat, system):
    def start(directory):
        if system == "crystal":
            return copper_run(directory, settings(thermostat))
        atoms = toys.ethanol()
        atoms.calc = toys.Springs(atoms)
        return run_md(atoms, settings(thermostat), directory)

    start(tmp_path / "whole")
    with killed_at(390):  # the last restart point is step 200, frames were written up to 380
        start(tmp_path / "cut")
    calculator = toys.EMT() if system == "crystal" else toys.Springs(toys.ethanol())
    summary = go_on(calculator, settings(thermostat), tmp_path / "cut")
    assert summary["status"] == "finished" and summary["restarts"] == 1
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_restart_of_a_model_with_a_kept_neighbour_list(tmp_path):
    from tests.md.models import SpringsAndModel

    def start(directory):
        atoms = toys.ethanol()
        atoms.calc = SpringsAndModel(atoms, tmp_path / "model.pt")
        run_md(atoms, settings("nose-hoover", temperature_K=600.0), directory)
        return atoms.calc.model

    model = start(tmp_path / "whole")
    assert 1 < model.stats()["neighbor_builds"] < 300  # the list was kept, and made anew on the way
    with killed_at(390):
        start(tmp_path / "cut")
    calculator = SpringsAndModel(toys.ethanol(), tmp_path / "model.pt")
    go_on(calculator, settings("nose-hoover", temperature_K=600.0), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_more_steps_give_the_longer_run(tmp_path, whole_copper):
    copper_run(tmp_path / "short", settings(steps=300))  # ends between two restart points
    go_on(toys.EMT(), settings(steps=600), tmp_path / "short")
    assert_same_run(whole_copper, tmp_path / "short")


SCRIPT = """
import sys, time
from asecalc_mlip.commands.dynamics import nvt
from tests.md import toys
from tests.md.restarts import assert_same_run, go_on, killed_at
class Slow(toys.Springs):
    def calculate(self, *args, **kwargs):
        time.sleep(0.001)
        super().calculate(*args, **kwargs)
atoms = toys.ethanol()
nvt.main(sys.argv[1:], obj=Slow(atoms))
"""


def script(*arguments):
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return processes.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_size(path, size, seconds=120):
    end = time.time() + seconds
    while time.time() < end and (not path.exists() or path.stat().st_size < size):
        time.sleep(0.01)
    assert path.exists() and path.stat().st_size >= size


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_killed_process_continues_the_same_run(tmp_path, stop):
    toys.ethanol().write(tmp_path / "start.xyz")
    common = ["--structure", tmp_path / "start.xyz", "--thermostat", "bussi", "--interval", "20", "--steps", "600"]
    whole = script(*common, "--output", tmp_path / "whole")
    cut = script(*common, "--output", tmp_path / "cut")
    wait_for_size(tmp_path / "cut" / "log.csv", 1500)  # some frames past step 200
    cut.send_signal(stop)
    _, message = cut.communicate(timeout=120)
    if stop == signal.SIGTERM:
        assert cut.returncode == 128 + stop and "restart point" in message
        assert json.loads((tmp_path / "cut" / "summary.json").read_text())["status"] == "interrupted"
    assert len(read(tmp_path / "cut" / "trajectory.extxyz", ":")) < 31
    again = script("--restart", "--output", tmp_path / "cut")
    assert again.wait(timeout=120) == 0 and whole.wait(timeout=120) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_full_disk_is_an_error_and_the_run_goes_on_later(tmp_path, whole_copper, monkeypatch):
    import asecalc_mlip.md.files as files

    written = []

    class Full:
        """A file on a disk that fills up in the middle of a write."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            written.append(len(data))
            if len(written) > 50:
                self.file.write(bytes(data[: len(data) // 2]))
                raise OSError(28, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", lambda *a, **k: Full(open(*a, **k)), raising=False)
        with pytest.raises(InputError, match="No space left on device.*--restart"):
            copper_run(tmp_path / "cut", settings())
    assert len(read(tmp_path / "cut" / "trajectory.extxyz", ":")) > 3  # readable, no half frame
    go_on(toys.EMT(), settings(), tmp_path / "cut")
    assert_same_run(whole_copper, tmp_path / "cut")


def test_settings_must_agree_but_steps_may_grow():
    stored = settings().to_dict()
    assert continue_settings(stored, {"steps": 900}).steps == 900
    assert continue_settings(stored, {}) == settings()
    with pytest.raises(InputError, match="temperature_K was 300.0, now 400.0"):
        continue_settings(stored, {"temperature_K": 400.0})
    with pytest.raises(InputError, match="ensemble was 'nvt', now 'nve'"):
        continue_settings(stored, {"ensemble": "nve"})
    with pytest.raises(InputError, match="fewer"):
        continue_settings(stored, {"steps": 100})


def test_what_cannot_be_continued_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to restart"):
        go_on(toys.EMT(), settings(), tmp_path / "nothing")
    copper_run(tmp_path / "run", settings(steps=200))
    log = (tmp_path / "run" / "log.csv").read_bytes()
    (tmp_path / "run" / "log.csv").write_bytes(log[:-5])
    with pytest.raises(InputError, match="shorter than at the restart point"):
        go_on(toys.EMT(), settings(), tmp_path / "run")
    (tmp_path / "run" / "restart.npz").write_bytes(b"PK broken")
    with pytest.raises(InputError, match="damaged"):
        go_on(toys.EMT(), settings(), tmp_path / "run")


def test_a_run_in_progress_cannot_be_continued_by_another_process(tmp_path):
    copper_run(tmp_path / "run", settings(steps=200))
    with RunFiles(tmp_path / "run").lock(), pytest.raises(InputError, match="in use by another"):
        go_on(toys.EMT(), settings(), tmp_path / "run")


def test_another_model_is_refused(tmp_path):
    atoms = toys.copper()
    atoms.calc = toys.EMT()
    run_md(atoms, settings(steps=200), tmp_path / "run", identity={"model_sha256": "a"})
    with pytest.raises(InputError, match="model sha256 is not the one"):
        go_on(toys.EMT(), settings(), tmp_path / "run", identity={"model_sha256": "b"})


def test_masses_and_charges_survive_a_restart(tmp_path):
    def start(directory):
        atoms = toys.ethanol()
        atoms.set_masses([2.014 if s == "H" else None for s in atoms.symbols])
        atoms.calc = toys.Springs(atoms)
        return run_md(atoms, settings(), directory)

    start(tmp_path / "whole")
    with killed_at(390):
        start(tmp_path / "cut")
    go_on(toys.Springs(toys.ethanol()), settings(), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert read(tmp_path / "cut" / "trajectory.extxyz").get_masses().max() < 16.1


def test_disk_that_is_full_only_when_synced(tmp_path, monkeypatch):
    run_files = RunFiles(tmp_path / "run")
    run_files.start()
    run_files.append("trajectory.extxyz", b"x")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        run_files.save_restart({}, {})


def test_a_ramp_that_is_extended_stays_at_its_end(tmp_path):
    def ramp(steps):
        atoms = toys.ethanol()
        atoms.calc = toys.Springs(atoms)
        given = {"ensemble": "anneal", "temperature_K": 100.0, "temperature_end_K": 300.0, "interval": 20}
        return run_md(atoms, MDSettings(**given, thermostat="langevin", steps=steps), tmp_path)

    assert ramp(40).log()["target_K"].tolist() == [100.0, 200.0, 300.0]
    assert ramp(80).log()["target_K"].tolist() == [100.0, 200.0, 300.0, 300.0, 300.0]
    assert ramp(80).had_ended
