"""The command line: options reach what they are for, and bad input is told without a traceback."""

import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from ase.build import molecule
from ase.io import write
from click.testing import CliRunner

from asecalc_mlip import cli, extras
from asecalc_mlip._version import __version__
from asecalc_mlip.errors import CheckpointError
from tests.teacher import as_reference


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Run asecalc in an empty folder; returns click's result."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def stand_in(monkeypatch):
    """Put a module of plain functions in the place of a real one and record their calls."""
    calls = []

    def install(name, **functions):
        def recorded(function):
            return lambda *args, **kwargs: (calls.append((args, kwargs)), function(*args, **kwargs))[1]

        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**{k: recorded(v) for k, v in functions.items()}))
        return calls

    return install


def test_version_and_help(call):
    assert __version__ in call("--version").output
    for command in (
        "",
        "train",
        "pretrain",
        "finetune",
        "tune",
        "evaluate",
        "info",
        "data",
        "data xtb",
        "data convert",
    ):
        assert call(*command.split(), "--help").exit_code == 0


def test_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("asecalc_mlip", run_name="__main__")
    assert __version__ in capsys.readouterr().out


def test_train_separates_files_from_settings(call, stand_in, tmp_path):
    calls = stand_in("training.main", train=lambda configs, overrides: None)
    (tmp_path / "a.yaml").touch()
    assert call("train", "a.yaml", "training.epochs=3", "a=b=c").exit_code == 0
    assert calls == [((["a.yaml"], ["training.epochs=3", "a=b=c"]), {})]


def test_train_prints_every_setting_with_its_sentence(call, monkeypatch):
    """Also where nothing is installed that could train."""
    monkeypatch.setitem(sys.modules, "schnetpack", None)
    result = call("train", "--defaults")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for section, values in yaml.safe_load(result.output).items():
        for name in values:
            line = next(k for k in range(lines.index(f"{section}:"), len(lines)) if lines[k].startswith(f"  {name}:"))
            assert lines[line - 1].startswith("  # "), f"{section}.{name} has no sentence"
    assert {"max_epochs", "time"} <= set(yaml.safe_load(result.output)["run"])
    assert "give at least data.train=FILE" in call("train").stderr


def test_pretrain_and_finetune_separate_files_from_settings(call, stand_in, tmp_path):
    (tmp_path / "a.yaml").touch()
    for name, arguments, wanted in (("pretrain", [], ()), ("finetune", ["b ase.pt"], ("b ase.pt",))):
        calls = stand_in("training.main", **{name: lambda *arguments: None})
        before = len(calls)
        assert call(name, *arguments, "a.yaml", "run.seed=1").exit_code == 0
        assert calls[before:] == [((*wanted, ["a.yaml"], ["run.seed=1"]), {})]
        assert "absent.yaml: no such file" in call(name, *arguments, "absent.yaml").stderr


def test_tune_passes_settings_and_options(call, stand_in, tmp_path):
    calls = stand_in("training.tune", main=lambda configs, overrides, **options: None)
    (tmp_path / "a.yaml").touch()
    options = ["--space", "weak.pitc=1:2", "--space", "weak.order=first,trapezoid", "--trials", 5, "-o", "out"]
    assert call("tune", "a.yaml", "run.seed=1", *options, "--timeout", 1.5, "--no-prune").exit_code == 0
    space = ("weak.pitc=1:2", "weak.order=first,trapezoid")
    wanted = {"space": space, "trials": 5, "timeout": 1.5, "output": "out", "prune": False}
    assert calls == [((["a.yaml"], ["run.seed=1"]), wanted)]
    assert "absent.yaml: no such file" in call("tune", "absent.yaml").stderr


def test_tune_without_optuna_says_how_to_install_it(call, monkeypatch, tmp_path):
    pytest.importorskip("schnetpack")
    for name in ("training.tune", "training.tune.search", "training.tune.storage"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    (tmp_path / "a.yaml").touch()
    result = call("tune", "a.yaml")
    assert result.exit_code == 2 and extras.install("tune") in result.stderr


def test_train_names_a_missing_file(call, stand_in):
    stand_in("training.main", train=lambda configs, overrides: None)
    result = call("train", "absent.yaml")
    assert (result.exit_code, result.stderr) == (2, "Error: absent.yaml: no such file\n")


def test_evaluate_hands_on_its_options(call, stand_in, tmp_path):
    calls = stand_in("asecalc_mlip.data.errors", evaluate_file=lambda model, data, **kw: "errors")
    (tmp_path / "d.xyz").touch()
    result = call("evaluate", "m.pt", "d.xyz", "-o", "out.json", "--batch-size", 4, "--energy-unit", "Hartree")
    assert result.exit_code == 0 and result.stdout == "errors\nout.json\n"
    ((arguments, options),) = calls
    assert arguments == ("m.pt", "d.xyz") and options["batch_size"] == 4 and options["energy_unit"] == "Hartree"
    assert options["output"] == "out.json"


def test_input_errors_have_no_traceback(call, stand_in):
    def refuse(path):
        raise CheckpointError(f"{path} is a pickle")

    stand_in("asecalc_mlip.checkpoint", describe=refuse)
    result = call("info", "m.pt")
    assert (result.exit_code, result.stderr) == (2, "Error: m.pt is a pickle\n")


def test_missing_training_extra_is_explained(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "training.main", None)

    monkeypatch.setitem(sys.modules, "schnetpack", None)
    (tmp_path / "a.yaml").touch()
    result = call("train", "a.yaml")
    assert result.exit_code == 2 and extras.install("train") in result.stderr


def test_convert(call, tmp_path, ethanol_frames):
    write(tmp_path / "a.xyz", as_reference(ethanol_frames))
    result = call("data", "convert", "a.xyz", "b.xyz", "--index", "::10")
    assert result.exit_code == 0 and "energy 6/6, forces 6/6, stress 0/6" in result.output
    assert "exists already" in call("data", "convert", "a.xyz", "b.xyz").stderr
    assert call("data", "convert", "a.xyz", "b.xyz", "--overwrite").exit_code == 0
    # Again and again in place, every call would change the units, or take a tenth of what is left.
    before = (tmp_path / "a.xyz").read_bytes()
    in_place = call("data", "convert", "a.xyz", "./a.xyz", "--overwrite", "--energy-unit", "kcal/mol")
    assert in_place.exit_code == 2 and "is the file that is read" in in_place.stderr
    assert (tmp_path / "a.xyz").read_bytes() == before


def test_xtb(call, tmp_path):
    pytest.importorskip("tblite")
    write(tmp_path / "water.xyz", molecule("H2O"))
    arguments = ["-n", 2, "-T", 300, "--seed", 3, "--spacing", 1, "--equilibration", 2, "--no-progress"]
    result = call("data", "xtb", "water.xyz", *arguments)
    assert result.exit_code == 0, result.output
    assert "energy 2/2, forces 2/2" in result.output
    assert "seed=3" in (tmp_path / "water_xtb_300K.xyz").read_text()
    assert call("data", "xtb", "absent.xyz").exit_code == 2


def test_starts_load_only_what_they_need():
    """Help in a tenth of a second; a calculator without SciPy's optimisers, figures and the training stack."""
    code = """if True:
        import sys
        import asecalc_mlip.cli
        heavy = {"torch", "numpy", "ase", "scipy", "matplotlib", "yaml"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        from asecalc_mlip import PIWSLCalculator
        PIWSLCalculator.load("aspirin.pt", device="cpu")
        heavy = {"scipy.optimize", "matplotlib", "schnetpack", "pytorch_lightning"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
