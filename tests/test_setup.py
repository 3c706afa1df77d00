"""Packaging and set-up: what is promised to users who install with pip or make."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PACKAGES = ("asecalc_mlip", "training", "md_protocols")
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
    # Once more where it was not: something else may have had the processor.
    assert any(float(run(sys.executable, "-c", code).stdout) < 2.5 for _ in range(2))


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


def test_the_training_extra_is_refused_where_it_cannot_train():
    """SchNetPack declares Python 3.12: without a marker pip says so on 3.11, where it would install what cannot run."""
    extras = distribution("extras_require")
    assert "schnetpack>=2.2" in extras["train"] and not any(";" in requirement for requirement in extras["train"])
    # make goes past it on 3.11, and brings what SchNetPack imports.
    assert {"h5py", "hydra-core", "torchmetrics"} <= {name.partition(">=")[0] for name in extras["train-python311"]}
    assert "train-python311" in (ROOT / "Makefile").read_text()


def test_every_file_of_the_packages_is_installed(tmp_path):
    listed = run("git", "ls-files", "-z", *PACKAGES)
    if listed.returncode:
        pytest.skip("not a git checkout")
    result = run(sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path))
    assert result.returncode == 0, result.stderr
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    installed = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert tracked - installed == set()
    kinds = {Path(name).suffix for name in installed} | {Path(name).name for name in installed}
    assert {".py", ".pt", ".xyz", ".json", ".cpp", ".h", "protocols.yaml", "defaults.yaml", "py.typed"} <= kinds


def test_one_wheel_serves_every_python():
    """The kernels are a plain library, loaded by ctypes."""
    assert distribution("get_command_obj('bdist_wheel')", "ensure_finalized()", "get_tag()")[:2] == ["py3", "none"]


def distribution(*path: str):
    """What setup.py hands to setuptools, as JSON."""
    *steps, last = path
    code = (
        "import json, setuptools\nfrom distutils.core import run_setup\nfound = run_setup('setup.py', None, 'init')\n"
    )
    for step in steps:
        code += f"found = found.{step} or found\n"
    result = run(sys.executable, "-W", "ignore", "-c", f"{code}print(json.dumps(found.{last}))")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_build_needs_no_torch():
    assert re.search(r"requires = \[\"setuptools[^,]*\"\]", (ROOT / "pyproject.toml").read_text())


def test_make_help_lists_the_main_targets():
    text = run("make", "-s", "help").stdout
    assert "make nvt" in text and "make test" in text


def test_what_make_starts_keeps_what_it_compiled(tmp_path, monkeypatch):
    """Images of containers set this variable, and then each process compiles torch anew."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "more.mk").write_text('told: ; @echo "<$$PYTHONDONTWRITEBYTECODE>"\n')
    told = run("make", "-s", "-f", "Makefile", "-f", str(tmp_path / "more.mk"), "told")
    assert told.stdout == "<>\n", told.stderr


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
