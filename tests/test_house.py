"""The house: arrows point one way, no circle of files, no import by a string, library code does not print."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.count_house import House

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def house():
    return House(ROOT)


def test_arrows_point_one_way(house):
    """The package knows neither training nor md_protocols, but in a command that runs; nobody knows md_protocols."""
    assert [f"{found.source}:{found.line} imports {found.target}" for found in house.upward()] == []


def test_no_circle_of_files(house):
    """Of imports at any time, in functions too; the way out is a room below both, or a hand-over when called."""
    assert house.circles() == []


def test_no_import_by_a_string(house):
    """No reader and no tool follows import_module("…"): a plain import in the function does the same."""
    assert [f"{name}:{line}" for name, line in house.by_string()] == []


def test_library_code_does_not_print(house):
    """It logs to logging.getLogger("asecalc_mlip"); only commands and scripts print."""
    assert [f"{name}:{line}" for name, line in house.prints()] == []


def test_options_are_declared_once(house):
    """Else a new one is allowed at one place and refused at another."""
    assert house.repeated_options() == []


@pytest.mark.parametrize("module", ["asecalc_mlip", "asecalc_mlip.cli"])
def test_import_loads_no_torch(module):
    heavy = ("torch", "schnetpack", "pytorch_lightning")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr


SOURCES = {
    "asecalc_mlip/__init__.py": "",
    "asecalc_mlip/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from training import typed\n",
    "asecalc_mlip/b.py": "def f():\n    from training.train import run\n",
    "asecalc_mlip/commands/__init__.py": "from asecalc_mlip.commands import late\n",
    "asecalc_mlip/commands/late.py": "def f():\n    import training.train\n    import md_protocols.nvt\n    print(1)\n",
    "training/__init__.py": "",
    "training/train.py": "from . import typed\nimport importlib as i\ni.import_module('x')\nprint(1)\n",
    "training/typed.py": "def f():\n    from training.train import f\n",
    "md_protocols/nvt.py": "print(1)\nfrom asecalc_mlip import a\n",
}


def test_the_reader_of_imports_sees_what_it_must(tmp_path):
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    small = House(tmp_path)
    assert small.circles() == [["training.train", "training.typed"]]
    assert {(found.source, found.target) for found in small.upward()} == {
        ("asecalc_mlip.b", "training.train"),
        ("asecalc_mlip.commands.late", "md_protocols.nvt"),
    }
    assert small.by_string() == [("training.train", 3)] and small.prints() == [("training.train", 4)]
