"""A missing package is told with a command that installs it here; packages of the user's that hide ours are named."""

import os
import subprocess
import sys

import pytest

from asecalc_mlip import extras
from asecalc_mlip.errors import InputError


def test_command_works_from_where_the_package_comes_from(monkeypatch, tmp_path):
    monkeypatch.chdir(extras.ROOT)
    assert extras.install("train") == 'pip install ".[train]"'
    monkeypatch.chdir(tmp_path)
    assert extras.install("train") == f'pip install "{extras.ROOT}[train]"'
    monkeypatch.setattr(extras, "ROOT", tmp_path)  # as in site-packages
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution(None))
    assert extras.install("train") == 'pip install "asecalc-mlip[train]"'


def test_command_finds_the_checkout_that_was_installed(monkeypatch, tmp_path):
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    (checkout / "setup.py").touch()
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    for folder, wanted in ((checkout, f"{checkout}[tune]"), (tmp_path / "gone", "asecalc-mlip[tune]")):
        told = Distribution(f'{{"url": "{folder.as_uri()}"}}')
        monkeypatch.setattr("importlib.metadata.distribution", lambda name, told=told: told)
        assert extras.install("tune") == f'pip install "{wanted}"'


class Distribution:
    """The metadata of an installed package."""

    def __init__(self, direct_url):
        self.direct_url = direct_url

    def read_text(self, name):
        return self.direct_url if name == "direct_url.json" else None


def test_python_3_11_is_told_of_3_12_and_make(monkeypatch):
    monkeypatch.setattr(sys, "version_info", Version(3, 11))
    text = str(extras.needs("asecalc train", "schnetpack"))
    assert "3.12 or newer" in text and "this is 3.11" in text and "run make" in text and "[train]" in text
    monkeypatch.setattr(sys, "version_info", Version(3, 12))
    assert str(extras.needs("asecalc train", "schnetpack")).endswith(extras.install("train"))


class Version(tuple):
    """Stands in for sys.version_info."""

    def __new__(cls, *numbers):
        return super().__new__(cls, numbers)

    major, minor = (property(lambda self, k=k: self[k]) for k in range(2))


def test_what_no_extra_brings_is_told_by_its_own_name():
    assert str(extras.needs("a figure", "nowhere")).endswith("pip install nowhere")
    with pytest.raises(InputError, match="a study needs optuna_of_nobody"):
        extras.require("a study", "numpy", "optuna_of_nobody")


@pytest.mark.parametrize("hidden", ["training.py", "training/__init__.py", "training/data.txt"])
def test_a_folder_of_the_users_that_hides_ours_is_named(monkeypatch, tmp_path, hidden):
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "training"]:
        monkeypatch.delitem(sys.modules, name)
    if hidden.endswith(".txt"):  # a folder without modules hides nothing
        extras.check_ours("training")
        return
    with pytest.raises(InputError, match="rename it") as told:
        extras.check_ours("training")
    assert str(tmp_path / "training") in str(told.value)


def test_the_command_names_the_folder_that_hides_ours(tmp_path):
    """Not a traceback of "No module named 'training.train'"."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    command = [sys.executable, "-m", "asecalc_mlip.cli", "train", "data.train=x.xyz"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(extras.ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"Error: {tmp_path / 'training'} hides the package training of asecalc-mlip")
