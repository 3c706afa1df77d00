"""The command for the day a GPU is there, rehearsed on the CPU with tiny sizes; what its process survives."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from click.testing import CliRunner

from asecalc_mlip.engine import SumEngine
from asecalc_mlip.engine.base import EngineName
from asecalc_mlip.errors import InputError
from benchmarks.speed import gpu, gpu_bench, gpu_plan, gpu_report
from tests import processes
from tests.cases import make_potential
from tools import collect_wheels


@pytest.fixture(autouse=True, scope="module")
def quick_workers():
    """Processes that measure have done their imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": processes.Popen}))
        yield


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    result = CliRunner().invoke(gpu.main, ["--all", "--rehearse", "--results", str(folder)])
    assert result.exit_code == 0, result.output[-2000:]
    return folder, json.loads((folder / "gpu_check.json").read_text())


def test_every_row_is_there_and_none_failed(rehearsal):
    folder, done = rehearsal
    assert {key: row for key, row in done.items() if "failed" in row} == {}
    assert set(done) == {row.key for row in gpu_plan.plan("cpu", True)}
    # Left out are only engines that need a GPU, and packages that are not there.
    measured = [key for key, row in done.items() if "skipped" not in row]
    assert len(measured) > 20
    for start in (
        "machine",
        "call, tensornet",
        "tests",
        "batch",
        "drift",
        "shipped",
        "calculator",
        "lists",
        "training step, tensornet, kernels",
        "training parity, painn",
    ):
        assert any(key.startswith(start) for key in measured), start
    assert done["lists, quartz-72"]["vesin_same"] and done["lists, quartz-72"]["torch_same_as_cpu"]
    assert done["call, painn, aspirin, cuda-graph, float32"]["energy_error_eV_per_atom"] < 1e-6
    assert done["tests marked gpu"]["tests_failed"] == 0
    for architecture in ("painn", "tensornet"):
        assert done[f"training parity, {architecture}"]["gradient_error"] < 1e-5
        assert done[f"training parity, {architecture}"]["loss_error"] < 1e-6
    assert (folder / "gpu_check.png").stat().st_size > 5000


def test_the_same_command_goes_on(rehearsal):
    """A row that is missing is measured, the others stay as they are."""
    folder, done = rehearsal
    kept = {key: row for key, row in done.items() if key != "lists, 8 x aspirin"}
    again = folder / "again"
    again.mkdir()
    (again / "gpu_check.json").write_text(json.dumps(kept))
    check = gpu._Check(again, "cpu", True, ["lists"])
    check.run(time.monotonic() + 60)
    assert set(check.done) == set(done) and all(check.done[key] == row for key, row in kept.items())
    assert "lists, 8 x aspirin" in (again / "gpu_check.log").read_text()


WORKER = """
import json, os, sys, time
skip = [sys.argv[k + 1] for k, word in enumerate(sys.argv) if word == "--skip"]
for key, what in (("good", 1), ("hangs", 2), ("dies", 3), ("breaks", 4), ("last", 5)):
    if key in skip:
        continue
    print(json.dumps({"begin": key, "limit": 0.3 if key == "hangs" else 20}), flush=True)
    if key == "hangs":
        time.sleep(60)
    if key == "dies":
        os._exit(139)
    if key == "breaks":
        print(json.dumps({"row": {"failed": "CUDA error: an illegal memory access"}}), flush=True)
        print(json.dumps({"end": "broken"}), flush=True)
        sys.exit()
    print(json.dumps({"row": {"ms": what}}), flush=True)
print(json.dumps({"end": "complete"}), flush=True)
"""


def test_rows_that_hang_or_break_the_process_do_not_end_the_others(tmp_path, capsys):
    (tmp_path / "worker.py").write_text(WORKER)
    check = gpu._Check(tmp_path, "cpu", False, [])
    check.command = [sys.executable, str(tmp_path / "worker.py")]
    begun = time.monotonic()
    check.run(begun + 60)
    assert time.monotonic() - begun < 30
    done = json.loads((tmp_path / "gpu_check.json").read_text())
    assert done["good"] == {"ms": 1} and done["last"] == {"ms": 5}
    assert "took too long" in done["hangs"]["failed"]
    assert "ended" in done["dies"]["failed"] and "illegal memory" in done["breaks"]["failed"]
    # Next time those that failed are tried again, the others not, and those that ended their process after all others.
    check = gpu._Check(tmp_path, "cpu", False, [])
    assert check.done == done
    seen = []
    check._attempt = lambda deadline, later: seen.append(set(later)) or False
    check.run(time.monotonic() + 60)
    assert seen == [{"hangs", "dies", "breaks"}, set()]


BREAKS = """
import json, sys
given = [(sys.argv[k], sys.argv[k + 1]) for k in range(1, len(sys.argv) - 1, 2)]
for key in ("call, a, triton", "call, b, triton", "call, c, triton", "call, d, eager"):
    if ("--skip", key) in given or any(name in key for word, name in given if word == "--without"):
        continue
    print(json.dumps({"begin": key, "limit": 20}), flush=True)
    print(json.dumps({"row": {"ms": 1}}), flush=True)
    if "triton" in key:
        print('{"end": "bro' if " a," in key else json.dumps({"end": "broken"}), end="", flush=True)
        sys.exit()
print(json.dumps({"end": "complete"}), flush=True)
"""


def test_an_engine_that_breaks_twice_is_left_out_and_what_it_measured_stays(tmp_path, capsys):
    """A start for each of its rows would take the time of all others; the last word of a process may be cut off."""
    (tmp_path / "worker.py").write_text(BREAKS)
    check = gpu._Check(tmp_path, "cpu", False, [])
    check.command = [sys.executable, str(tmp_path / "worker.py")]
    check.run(time.monotonic() + 60)
    assert list(check.done) == ["call, a, triton", "call, b, triton", "call, d, eager"]
    assert all(row["ms"] == 1 for row in check.done.values()) and "failed" not in check.done["call, a, triton"]
    assert "triton ended the process 2 times" in (tmp_path / "gpu_check.log").read_text()


def test_a_gpu_that_is_not_there_is_told_at_once(tmp_path):
    """And not by a failure of each row, with a process for each."""
    result = CliRunner().invoke(gpu.main, ["--all", "--device", "cuda:7", "--results", str(tmp_path)])
    assert result.exit_code == 1 and "nothing can be measured on cuda:7: " in result.output
    assert not (tmp_path / "gpu_check.json").exists()


def test_a_module_that_is_missing_is_told_at_once(monkeypatch):
    """As of a wheel that was not carried; its name would else be on a screen alone."""
    monkeypatch.setitem(sys.modules, "benchmarks.speed.gpu_plan", None)
    monkeypatch.setattr(gpu, "_end_with_parent", lambda: None)
    read, write = os.pipe()
    kept = os.dup(1)
    os.dup2(write, 1)
    try:
        gpu._work("cpu", True, [], [], [])
    finally:
        os.dup2(kept, 1)
        os.close(write)
    with os.fdopen(read) as answers:
        assert "benchmarks.speed.gpu_plan" in json.loads(answers.readline())["unusable"]


def test_a_process_ends_with_the_one_that_began_it(tmp_path):
    """After a kill it would go on using the GPU, beside the next command."""
    code = f"""
import os, subprocess, sys, time
if sys.argv[1:]:
    sys.path.insert(0, {str(gpu.ROOT)!r})
    from benchmarks.speed import gpu
    gpu._end_with_parent()
    print("begun", flush=True)
    time.sleep(20)
    print("still there", flush=True)
else:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
    time.sleep(60)
"""
    (tmp_path / "parent.py").write_text(code)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "begun\n"
    parent.kill()
    assert parent.stdout.read() == "" and parent.wait() < 0


def test_no_row_begins_when_time_is_over(tmp_path, capsys):
    (tmp_path / "worker.py").write_text(WORKER)
    check = gpu._Check(tmp_path, "cpu", False, [])
    check.command = [sys.executable, str(tmp_path / "worker.py")]
    assert check._attempt(time.monotonic() - 1) and check.done == {}


def test_a_row_that_outlasts_the_time_is_left_for_next_time(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "_GRACE", 0.1)
    slow = "import json, time\nprint(json.dumps({'begin': 'slow', 'limit': 60}), flush=True)\ntime.sleep(60)\n"
    (tmp_path / "worker.py").write_text(slow)
    check = gpu._Check(tmp_path, "cpu", False, [])
    check.command = [sys.executable, str(tmp_path / "worker.py")]
    begun = time.monotonic()
    check.run(begun + 1.5)
    assert time.monotonic() - begun < 15 and check.done == {}


def test_the_whole_plan_has_a_name_for_every_row_and_the_goals_find_theirs():
    rows = list({row.key: row for row in gpu_plan.plan("cuda", False)}.values())
    keys = [row.key for row in rows]
    assert 80 < len(keys) < 200
    assert keys[1:4] == [f"call, painn, aspirin, {engine}, float32" for engine in ("triton", "cuda-graph", "eager")]
    assert set(gpu_plan.Sizes().engines) == set(get_args(EngineName))
    done = {key: {"ms": 0.4, "atoms": 21, "energy_error_eV_per_atom": 1e-7, "atoms_per_s": 6e6} for key in keys}
    done["training parity, painn"] = {"gradient_error": 1e-6}
    done["call, painn, aspirin, eager, float32"]["ms"] = 4.0
    done["tests marked gpu"] = {"tests_failed": 0}
    found = gpu_report.verdicts(done)
    assert [one["reached"] for one in found] == [True] * 7
    assert [one["reached"] for one in gpu_report.verdicts({})] == [None] * 7
    done["call, painn, quartz-2025, cuda-graph, float32"]["ms"] = 0.3
    done["call, painn, quartz-72, eager, float32"]["energy_error_eV_per_atom"] = 1e-3
    assert [one["reached"] for one in gpu_report.verdicts(done)][4] is False


def wheel(folder, name, requires=()):
    import zipfile

    with zipfile.ZipFile(folder / name, "w") as archive:
        text = "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name.split('-')[0]}", *(f"Requires-Dist: {r}" for r in requires)]
        )
        archive.writestr(f"{name.split('-')[0]}-1.0.dist-info/METADATA", text + "\n\n")
    return folder / name


def test_wheels_are_checked(tmp_path):
    good = [
        wheel(tmp_path, "ase-1.0-py3-none-any.whl", ["numpy>=1", "typing_extensions; python_version < '3.11'"]),
        wheel(
            tmp_path,
            "matscipy-1.0-cp312-cp312-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
            ["ase", "x; extra == 'y'"],
        ),
    ]
    assert collect_wheels.bad_tags(good) == [] and collect_wheels.missing(good, ["numpy"]) == []
    other = wheel(tmp_path, "vesin-1.0-cp311-cp311-manylinux2014_x86_64.whl", ["cowsay>2"])
    assert collect_wheels.bad_tags([*good, other]) == [f"{other.name} is not for Python 3.12"]
    assert collect_wheels.missing([*good, other], ["numpy"]) == [f"{other.name} needs cowsay>2"]
    assert collect_wheels.lacking([*good, other], []) == []
    assert collect_wheels.lacking(good[:1], ["matscipy"]) == ["there is no wheel of vesin"]
    assert collect_wheels.pinned("vesin").startswith("vesin==")
    # What travels with them.
    assert sum(path.stat().st_size for path in collect_wheels.tracked()) < 50e6


def test_a_sum_is_timed_as_the_engine_of_a_calculator_runs_it(monkeypatch):
    """As one where that engine runs sums, and only otherwise part by part, which waits for the edges of each."""
    potential, bench = make_potential("sum"), gpu_bench.Bench(torch.device("cpu"), 8, 1, 1, 0.1, False)

    def of_parts(one, engine, **_):
        if one is potential:
            raise InputError("no sums")
        return SimpleNamespace(holds_edges=False)

    monkeypatch.setattr(gpu_bench, "make_engine", of_parts)
    assert isinstance(gpu_bench.engine_of(bench, potential, "triton"), SumEngine)
    monkeypatch.setattr(gpu_bench, "make_engine", lambda one, engine, **_: (one, engine))
    assert gpu_bench.engine_of(bench, potential, "triton") == (potential, "triton")
