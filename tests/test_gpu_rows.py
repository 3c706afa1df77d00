"""What rows of gpu.py say where something fails: a kernel, a library, a capture, or the time."""

import subprocess
import sys
import warnings

import pytest
import torch

from asecalc_mlip.engine import cache, choose
from asecalc_mlip.engine.compiled import CompilerError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels.chosen import chosen
from benchmarks.speed import gpu, gpu_bench, gpu_rows
from tests.cases import make_potential, make_structure

BENCH = gpu_bench.Bench(torch.device("cpu"), 16, 1, 1, 0.01, True)
SAID = b"""[gw0] [ 10%] PASSED tests/a.py::one
[gw1] [ 20%] FAILED tests/a.py::two
tests/b.py::three PASSED [ 30%]
tests/b.py::four """


def test_tests_that_outlast_their_time_are_counted(monkeypatch):
    def run(command, seconds):
        raise subprocess.TimeoutExpired(command, seconds, output=SAID)

    monkeypatch.setattr(gpu_rows, "_completed", run)
    row = gpu_rows.tests(["tests/a.py"], BENCH, seconds=2.0)
    assert (row["tests_passed"], row["tests_failed"]) == (2, 1)
    assert row["failures"] == ["[gw1] [ 20%] FAILED tests/a.py::two"]
    assert row["summary"] == "ended after 2 s, at: tests/b.py::four "
    assert "failed" not in row, "they are not begun again by the same command"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_outlasts_its_time_ends_with_all_that_it_began():
    """As the processes of pytest-xdist, which would go on using the GPU beside the next row."""
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        gpu_rows._completed(["sh", "-c", "(sleep 30; echo late) & echo begun; wait"], 0.3)
    assert caught.value.stdout == b"begun\n"
    assert gpu_rows._completed(["sh", "-c", "echo done; exit 3"], 20).returncode == 3


@pytest.mark.parametrize("raises", [None, gpu_bench.NotHere("not here"), RuntimeError("bad\nmore")])
def test_a_row_says_what_was_warned_of(raises):
    def measure():
        for _ in range(3):
            warnings.warn("no CUDA graph can be captured (why)", stacklevel=2)
            warnings.warn("of no interest", DeprecationWarning, stacklevel=2)
        if raises is not None:
            raise raises
        return {"ms": 1.0}

    row = gpu._measured(measure, gpu_bench.NotHere)
    assert row.pop("warned") == ["no CUDA graph can be captured (why)"]
    if raises is None:
        assert row.pop("row_s") >= 0
    expected = {
        "NoneType": {"ms": 1.0},
        "NotHere": {"skipped": "not here"},
        "RuntimeError": {"failed": "RuntimeError: bad"},
    }
    assert row == expected[type(raises).__name__]


def test_a_process_without_random_numbers_is_left(monkeypatch):
    """As after a capture that failed."""
    assert gpu_bench.is_sound("cpu")

    def fails(*size, **options):
        raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    monkeypatch.setattr(torch, "rand", fails)
    assert not gpu_bench.is_sound("cpu")


def test_the_reference_is_plain_torch(monkeypatch):
    """On a GPU the kernels of trainings would take its messages."""
    seen = []
    monkeypatch.setattr(gpu_rows, "predict", lambda potential, graph: seen.append((chosen(), potential.dtype)))
    gpu_rows._float64(make_potential("schnet", dtype=torch.float32), graph_from_atoms(make_structure("molecule"), 4.0))
    assert seen == [("plain", torch.float64)]


def test_without_vesin_there_are_the_other_lists(monkeypatch):
    def fails(*given):
        raise RuntimeError("no NVRTC\nmore")

    monkeypatch.setattr(gpu_rows, "vesin_list", fails)
    row = gpu_rows.lists(BENCH, "quartz-72")
    assert row["vesin_failed"] == "no NVRTC" and row["torch_same_as_cpu"] and row["torch_ms"] > 0


@pytest.mark.parametrize("error", [CompilerError("no C++ compiler"), cache.CacheError("no C++ compiler")])
def test_without_a_compiler_no_other_engine_is_measured_as_the_compiled_one(monkeypatch, tmp_path, error):
    def fails(potential, target):
        raise error

    monkeypatch.setenv("ASECALC_CACHE", str(tmp_path))
    monkeypatch.setattr("asecalc_mlip.engine.compiled._build", fails)
    row = gpu._measured(lambda: gpu_rows.call(BENCH, "painn", "aspirin", "compiled", "float32"), gpu_bench.NotHere)
    assert row == {"skipped": "no C++ compiler"}


def test_without_a_c_compiler_no_other_engine_is_measured_as_the_fused_kernels(monkeypatch):
    """As on a machine that has Triton and nothing to build its launchers with; the machine's row tells of it."""

    def fails(potential, **_):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setitem(choose._WHY_NOT, "triton", lambda potential: None)
    monkeypatch.setattr("asecalc_mlip.engine.triton.engine.FusedEngine", fails)
    row = gpu._measured(lambda: gpu_rows.call(BENCH, "painn", "aspirin", "triton", "float32"), gpu_bench.NotHere)
    assert "the fused kernels cannot be used" in row["failed"] and "Failed to find C compiler" in row["warned"][0]
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert gpu_bench._c_compiler() == "none: Triton launches no kernel"
