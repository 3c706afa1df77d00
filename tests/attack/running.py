"""Long commands in their smallest form, each in a process of its own that can be killed."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ase.io

from tests import teacher
from tests.attack.folders import compare

__all__ = ["COMMANDS", "Changes", "Make", "Whole", "finished", "forked", "run", "whole"]

Make = Callable[[Path], list[str]]


def _dynamics(command: str, model: str, *options: str) -> Make:
    return lambda folder: [command, model, "--steps", "240", "--interval", "20", *options, "--output", str(folder)]


def _molecules(folder: Path, n: int = 30) -> Path:
    path = folder.parent / "molecules.xyz"
    if not path.exists():
        ase.io.write(path, teacher.as_reference(teacher.molecule_frames(n)))
    return path


def _crystals(folder: Path) -> Path:
    path = folder.parent / "crystals.xyz"
    if not path.exists():
        ase.io.write(path, teacher.as_reference(teacher.crystal_frames(8)))
    return path


SIZES = ("cutoff=4.0", "n_features=8", "n_interactions=1", "n_rbf=8")


def _settings(folder: Path, epochs: int) -> list[str]:
    given = [f"data.train={_molecules(folder)}", "data.n_train=16", "data.n_val=4", "optimizer.warmup_steps=3"]
    given += [f"run.max_epochs={epochs}", "run.threads=1", "run.device=cpu", "run.progress=false"]
    return given


def _train(folder: Path) -> list[str]:
    sizes = [f"model.hyperparameters.{size}" for size in SIZES]
    return ["train", *_settings(folder, 12), *sizes, f"run.output={folder}"]


def _ranks(folder: Path) -> list[str]:
    """Kills hit the first process; the other one has to end with it."""
    sizes = [f"model.hyperparameters.{size}" for size in SIZES]
    return ["train", *_settings(folder, 4), *sizes, "run.devices=2", f"run.output={folder}"]


def _corrected(folder: Path) -> list[str]:
    given = [f"data.train={_crystals(folder)}", "data.n_train=4", "data.n_val=2", "optimizer.warmup_steps=3"]
    given += ["run.max_epochs=2", "run.threads=1", "run.device=cpu", "run.progress=false", f"run.output={folder}"]
    sizes = [f"model.hyperparameters.{size}" for size in SIZES]
    teacher = [f"pretrain.teacher={_potential(folder)}", "pretrain.rounds=2", "pretrain.correct=2"]
    return ["pretrain", *given, *sizes, *teacher]


def _finetune(folder: Path) -> list[str]:
    given = [*_settings(folder, 4), f"finetune.old_data={_molecules(folder)}", "finetune.n_old=4"]
    return ["finetune", "ethanol.pt", *given, "finetune.replay=0.25", f"run.output={folder}"]


def _tune(folder: Path) -> list[str]:
    sizes = [f"model.hyperparameters.{size}" for size in SIZES]
    search = ["--trials", "3", "--space", "optimizer.lr=0.001:0.01:log", "-o", str(folder)]
    return ["tune", *_settings(folder, 2), *sizes, *search]


def _fit(folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    options = ["--epochs", "8", "--cutoff", "5", "--exponentials", "3", "--no-progress", "--compare"]
    return ["eam", "fit", str(_crystals(folder)), "-o", str(folder / "eam.pt"), *options]


def _label(ending: str) -> Make:
    def make(folder: Path) -> list[str]:
        folder.mkdir(exist_ok=True)
        options = ["-o", str(folder / f"labels{ending}"), "--rounds", "20", "--dimers", "4", "--no-progress"]
        return ["eam", "label", str(_crystals(folder)), str(_potential(folder)), *options]

    return make


def _potential(folder: Path) -> Path:
    path = folder.parent / "given.pt"
    if not path.exists():
        from asecalc_mlip.checkpoint import save
        from asecalc_mlip.models import build_potential

        sizes = {"elements": ["Na", "Cl"], "cutoff": 5.0, "n_exponentials": 3}
        save(path, build_potential("eam", sizes, reference_energies={11: -1.0, 17: -2.0}))
    return path


def _xtb(folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    start = folder.parent / "water.xyz"
    start.write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    options = ["-n", "8", "--equilibration", "5", "--spacing", "2", "--no-progress"]
    return ["data", "xtb", str(start), "-o", str(folder / "water_xtb.xyz"), *options]


def _atoms(folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    options = ["--level", "LDA/sto-3g", "--dimers", "3", "--longest", "2", "--no-progress"]
    return ["data", "atoms", "H", "He", *options, "-o", str(folder / "atoms.xyz")]


def _report(folder: Path) -> list[str]:
    return ["report", "ethanol.pt", "--quick", "--steps", "200", "--seeds", "1", "--output", str(folder)]


COMMANDS: dict[str, Make] = {
    "nvt langevin": _dynamics("nvt", "ethanol.pt", "--thermostat", "langevin"),
    "nvt nose-hoover": _dynamics("nvt", "ethanol.pt", "--thermostat", "nose-hoover"),
    "nvt bussi": _dynamics("nvt", "ethanol.pt", "--thermostat", "bussi"),
    "nve": _dynamics("nve", "ethanol.pt"),
    "npt": _dynamics("npt", "silica.pt", "--barostat", "full", "--steps", "120"),
    "anneal": _dynamics("anneal", "ethanol.pt", "--end-temperature", "600"),
    "campaign": _dynamics("campaign", "ethanol.pt", "--seeds", "3"),
    "train": _train,
    "train on two processes": _ranks,
    "pretrain by a corrected teacher": _corrected,
    "finetune": _finetune,
    "tune": _tune,
    "eam fit": _fit,
    "eam label": _label(".xyz"),
    "eam label to .db": _label(".db"),
    "data xtb": _xtb,
    "data atoms": _atoms,
    "report": _report,
}


def forked(arguments: list[str], log: Path, before: Callable[[], None] = lambda: None, told: Path | None = None) -> int:
    """Start a command in a process of its own, and return its number; what it prints goes to `log`.

    `before` is called in that process. A file `told` is written at its end: its changes of files, and its modules.
    """
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which the child has one
        child = os.fork()
    if child:
        return child
    code, changes = 99, Changes()
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from asecalc_mlip.cli import main

        # What one case computed is not there for the next one.
        os.environ["ASECALC_CACHE"] = str(log.parent / "cache")
        _save_often(arguments[0])
        if told:
            sys.addaudithook(changes)
        before()
        main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        if told:
            found = {"changes": changes.number, "seconds": time.process_time(), "modules": list(sys.modules)}
            told.write_text(json.dumps(found))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Changes:
    """Audit hook that counts files opened to be written, moved and removed, and ends the process before one of them.

    Parameters
    ----------
    fatal : int
        Which one, from 1; 0: none.
    """

    NAMES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "sqlite3.connect"})
    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self, fatal: int = 0):
        self.fatal, self.number = fatal, 0

    def __call__(self, name: str, arguments: tuple) -> None:
        if name in self.NAMES or (name == "open" and arguments[2] & self.WRITES):
            self.number += 1
            if self.number == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Whole:
    """A run that nothing happened to.

    Attributes
    ----------
    folder : Path
        What it wrote.
    seconds : float
        Of CPU time, with all modules imported before; the load of the machine does not change it.
    changes : int
        How often it changed a file.
    """

    folder: Path
    seconds: float
    changes: int


@cache
def whole(name: str) -> Whole:
    """Run a command to its end, twice: the first run tells which modules are worth to import for those to come."""
    place = Path(tempfile.mkdtemp(prefix="attack-whole-"))
    atexit.register(_remove, place, os.getpid())
    for part in ("a", "b"):
        folder, log, told = place / part / "run", place / part / "log", place / f"{part}.json"
        folder.parent.mkdir()
        code = finished(forked(COMMANDS[name](folder), log, told=told))
        found = json.loads(told.read_text())
        if code not in (0, 1):
            raise RuntimeError(f"the whole run of {name} ended with {code}: {log.read_text()[-1500:]}")
        _load(found["modules"])
    if unlike := compare(place / "a" / "run", place / "b" / "run"):
        raise RuntimeError(f"two whole runs of {name} differ: {unlike}")
    return Whole(folder, found["seconds"], found["changes"])


def _load(modules: list[str]) -> None:
    """Import what a run imports, so that faults fall into the run and not into its start."""
    for module in modules:
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if module not in sys.modules and "__" not in module:
                importlib.import_module(module)


def _remove(place: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(place, ignore_errors=True)


def _save_often(command: str) -> None:
    """Save every epoch of a training, where the default is every 30 seconds; networks of the difference are tiny."""
    if command == "pretrain":
        from training.pretrain import difference

        difference.NETWORK, difference.STEPS = {"n_features": 8, "n_interactions": 1, "n_rbf": 8}, 60
    if command in {"train", "finetune", "tune", "pretrain"}:
        from training.run.callbacks import LastCheckpoint

        assert LastCheckpoint.__init__.__kwdefaults__
        LastCheckpoint.__init__.__kwdefaults__["seconds"] = 0.0


def finished(child: int, seconds: float = 300.0) -> int | None:
    """Wait for a process, and return its exit code; None if it is still at work after `seconds` of CPU time."""
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.clock_gettime(_clock(child)) > seconds:
            return None
        time.sleep(0.002)


def _clock(process: int) -> int:
    """Return the clock of the CPU time of a process, as clock_getcpuclockid(3) does on Linux."""
    return (~process << 3) | 2


def run(arguments: list[str], log: Path) -> int | None:
    """Run a command to its end, and return its exit code."""
    return finished(forked(arguments, log))
