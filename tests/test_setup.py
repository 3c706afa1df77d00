"""Packaging and set-up: what is promised to users who install with pip or make."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("schnetpack", "pytorch_lightning", "lightning", "hydra", "torchmetrics", "tensorboard", "matplotlib.pyplot")
SET_UP = (ROOT / "setup.py").read_text()


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, **options)


def test_import_loads_no_training_stack():
    code = f"import sys, asecalc_mlip; print([m for m in {HEAVY} if m in sys.modules])"
    result = run(sys.executable, "-c", code)
    assert result.stdout.strip() == "[]", result.stderr


def test_import_is_quick_beyond_torch():
    code = "import time, torch; t = time.perf_counter(); import asecalc_mlip; print(time.perf_counter() - t)"
    seconds = min(float(run(sys.executable, "-c", code).stdout) for _ in range(2))
    assert seconds < 2.5


def test_import_changes_nothing():
    """No default dtype, no environment, no warning filters, no threads."""
    state = "(torch.get_default_dtype(), sorted(os.environ.items()), list(warnings.filters), torch.get_num_threads())"
    code = f"import os, warnings, ase, scipy.spatial, torch; a = {state}; import asecalc_mlip; print(a == {state})"
    result = run(sys.executable, "-c", code)
    assert result.stdout.strip() == "True", result.stderr


def test_versions_agree():
    from asecalc_mlip._version import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_constraints_pin_every_requirement():
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    required = {name.lower() for name in re.findall(r"[\"']([A-Za-z][\w-]*)>=", SET_UP)}
    assert {"numpy", "torch", "ase", "schnetpack", "progressbar", "tblite", "pytest"} <= required
    assert required <= pins


def test_inference_does_not_require_the_training_stack():
    inference = SET_UP.partition("INFERENCE = [")[2].partition("]")[0]
    assert "torch>=" in inference
    assert not any(name in inference for name in ("schnetpack", "lightning", "hydra", "tensorboard"))


def test_build_needs_no_torch():
    assert re.search(r"requires = \[\"setuptools[^,]*\"\]", (ROOT / "pyproject.toml").read_text())


def test_make_help_lists_the_main_targets():
    text = run("make", "-s", "help").stdout
    assert "make nvt" in text and "make test" in text


def test_make_refuses_an_old_python(tmp_path):
    fake = tmp_path / "python3.8"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    result = run("make", f"PYTHON={fake}", f"VENV={tmp_path / 'venv'}", "venv")
    assert result.returncode != 0
    assert "older than 3.11" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_no_private_paths_in_tracked_files():
    listed = run("git", "ls-files", "-z")
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name.endswith((".py", ".md", ".toml", ".yaml"))]
    marker = "/work" + "/"
    assert [name for name in names if (ROOT / name).is_file() and marker in (ROOT / name).read_text()] == []
