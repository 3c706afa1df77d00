"""Speed measurements: structures, fair timing, and the command. Times themselves are not tested."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import fcc111
from ase.calculators.calculator import Calculator
from ase.io import write
from click.testing import CliRunner

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.bench import peers, report
from asecalc_mlip.bench.measure import batch_row, compare, n_edges, ns_per_day, schnetpack_calculator, size_row, sizes
from asecalc_mlip.bench.report import BenchReport, bench
from asecalc_mlip.bench.structures import NAMES, enlarged, quartz, structure
from asecalc_mlip.bench.timing import Times, Walk, race
from asecalc_mlip.cli import main
from asecalc_mlip.engine.compiled import CompilerError
from asecalc_mlip.errors import InputError
from asecalc_mlip.plots.speed import size_scaling
from benchmarks.speed import engines, speed
from tests.simulated_gpu import simulated_gpu

ATOMS = {"ethanol": 9, "aspirin": 21, "quartz-72": 72, "water-192": 192, "quartz-576": 576, "quartz-2025": 2025}


@pytest.fixture(scope="module")
def ethanol():
    return PIWSLCalculator.load("ethanol_painn.pt", device="cpu")


@pytest.mark.parametrize("name", NAMES)
def test_named_structures_are_physical(name):
    atoms = structure(name)
    assert len(atoms) == ATOMS[name]
    assert n_edges(atoms, 0.9) == 0 and n_edges(atoms, 5.0) > len(atoms)


def test_molecules_have_the_edges_of_the_published_times():
    assert (n_edges(structure("ethanol"), 5.0), n_edges(structure("aspirin"), 5.0)) == (72, 306)


def test_quartz_has_its_density_and_the_neighbours_that_the_documentation_names():
    atoms, page = quartz(), Path(__file__).parents[1] / "docs" / "studies" / "speed.md"
    told = re.findall(r"α-quartz,? with ([0-9.]+) neighbours", page.read_text(encoding="utf-8"))
    assert told == ["45", f"{n_edges(atoms, 5.0) / len(atoms):.1f}"]
    assert atoms.get_chemical_formula() == "O6Si3"
    assert atoms.get_masses().sum() * 1.66054 / atoms.get_volume() == pytest.approx(2.65, abs=0.01)


@pytest.mark.parametrize("name", ["aspirin", "quartz", "slab"])
def test_copies_do_not_overlap(name):
    atoms = {"aspirin": lambda: structure("aspirin"), "quartz": quartz, "slab": lambda: fcc111("Al", (1, 1, 3))}[name]()
    larger = enlarged(atoms, 3)
    assert len(larger) == 27 * len(atoms) and (larger.pbc == atoms.pbc).all()
    assert n_edges(larger, 0.9) == 0
    if atoms.pbc.all():
        assert n_edges(larger, 5.0) == 27 * n_edges(atoms, 5.0)


def test_walk_stays_near_its_start_and_never_repeats_a_step():
    class Recorder(Calculator):
        implemented_properties = ["forces"]
        seen = []

        def calculate(self, atoms, *args):
            self.seen.append(atoms.positions.copy())
            self.results = {"forces": np.zeros_like(atoms.positions)}

    start = structure("ethanol")
    times = Walk(Recorder(), start)(50)
    assert len(times.total_ms) == len(Recorder.seen) == 50
    steps = np.diff(Recorder.seen, axis=0)
    assert (np.abs(steps).max(axis=(1, 2)) > 0).all()
    assert np.ptp(np.abs(steps), axis=0).max() < 1e-12, "every step is as long as the others"
    assert np.abs(np.array(Recorder.seen) - start.positions).max() < 0.3


def test_race_gives_each_the_steps_that_were_asked_for_in_turns():
    calls = []

    def runner(name):
        return lambda steps: (calls.append(name), Times([1.0] * steps, [0.5] * steps))[1]

    times = race({"a": runner("a"), "b": runner("b")}, steps=7)
    assert [len(t.total_ms) for t in times.values()] == [7, 7]
    assert calls == ["a", "a", "b", "b"] + ["a", "b"] * 5
    assert times["a"].step() == 1.0 and times["a"].list_alone() == 0.5


def test_rare_lists_count_and_outliers_do_not():
    times = Times([1.0] * 9 + [11.0] + [500.0], [0.0] * 9 + [10.0] + [0.0])
    assert times.step() == pytest.approx(1.0 + 10.0 / 11)
    assert Times([1.0, 2.0, 90.0]).step() == 2.0 and "list_ms" not in Times([1.0]).to_dict()


def test_engines_without_a_compiler_say_so(monkeypatch):
    def missing(potential):
        raise CompilerError("InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr(engines, "CompiledEngine", missing)
    monkeypatch.setattr(engines, "first_call", None)
    before = engines.RESULTS.read_bytes()
    result = CliRunner().invoke(engines.main)
    assert result.exit_code == 1 and "there is no compiled engine here: InvalidCxxCompiler: No working" in result.output
    assert engines.RESULTS.read_bytes() == before


def test_compare_without_another(ethanol):
    row = compare(ethanol, None, structure("ethanol"), steps=3)
    assert row["atoms"] == 9 and row["edges"] == 72 and row["ours_steps"] == 3
    assert row["ours_ms"] == pytest.approx(row["ours_list_ms"] + row["ours_without_list_ms"], abs=1e-3)
    assert "ratio" not in row


def test_schnetpack_runs_the_same_weights(ethanol):
    pytest.importorskip("schnetpack")
    row = compare(ethanol, schnetpack_calculator(ethanol), structure("ethanol"), steps=2)
    assert row["ratio"] == pytest.approx(row["schnetpack_ms"] / row["ours_ms"], abs=0.01)
    assert row["force_difference_eV_per_A"] < 1e-4


def test_missing_schnetpack_is_told(ethanol, monkeypatch):
    monkeypatch.setitem(sys.modules, "schnetpack", None)
    report = bench(ethanol, ["ethanol"], steps=1, echo=lambda line: None)
    assert "schnetpack" in report.schnetpack and report.schnetpack.startswith("not measured")
    assert "ratio" not in report.structures["ethanol"] and report.schnetpack in repr(report)


@pytest.mark.filterwarnings("ignore:the fused kernels cannot be used", "ignore:vesin makes no")
def test_of_a_gpu_its_name_and_memory_are_told(ethanol):
    """And not the memory of the process, which holds none of the tensors there."""
    with simulated_gpu():
        there = PIWSLCalculator.load("ethanol_painn.pt", device="cuda")
        assert size_row(there, structure("ethanol"), steps=1)["peak_memory_GB"] == 3.0
        assert report._model(there)["device"] == "cuda (simulated)"
    assert report._model(ethanol)["device"] == "cpu"


def test_sizes_and_batches(ethanol):
    assert list(sizes(structure("ethanol"), 600)) == [1, 2, 3, 4]
    assert list(sizes(structure("aspirin"), 1)) == [1]
    assert size_row(ethanol, enlarged(structure("ethanol"), 2), steps=2)["atoms"] == 72
    assert batch_row(ethanol, structure("ethanol"), 4, structures=8, repeats=1)["molecules_per_second"] > 0
    assert ns_per_day(1.0, 0.5) == pytest.approx(43.2)


def test_command_writes_table_json_and_figure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("mine.xyz", structure("ethanol"))
    monkeypatch.setattr("asecalc_mlip.bench.report.BATCHES", (1, 2))
    arguments = "bench ethanol_painn.pt -s mine.xyz --steps 2 --threads 1 --scaling --largest 80 --batches"
    arguments += " -o b.json --figure b.png"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0, result.output
    assert "ns/day" in result.output and "mine.xyz, 72 atoms" in result.output and "batch of 2" in result.output
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["structures"]["mine.xyz"]["atoms"] == 9 and written["machine"]["threads"] == 1
    assert (tmp_path / "b.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("-s absent.xyz", "no such file, and no structure of that name; the names are ethanol"),
        ("-s quartz-72", "elements that the model does not know; it was trained on"),
        ("--timestep 0", "expected a number from"),
        ("-s broken.xyz", "broken.xyz cannot be read"),
        ("-s empty.xyz", "empty.xyz cannot be read"),
    ],
)
def test_bad_input_is_told(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.xyz").write_text("3\n\nH 0 0\n")
    (tmp_path / "empty.xyz").touch()
    result = CliRunner().invoke(main, ["bench", "aspirin.pt", *arguments.split()])
    assert result.exit_code == 2 and told in result.stderr and "Traceback" not in result.output


PEER = """
from asecalc_mlip.bench import peer_worker as worker
from ase.calculators.lj import LennardJones

def make(atoms):
    print("welcome")
    return LennardJones(rc=5.0), {"cutoff": 5.0, "model": "Lennard-Jones"}, None

worker.MAKERS["toy"] = make
worker.main("toy", "ethanol")
"""


def test_a_peer_runs_in_a_process_of_its_own(ethanol, tmp_path, monkeypatch):
    (tmp_path / "toy_worker.py").write_text(PEER)
    monkeypatch.setattr(peers, "WORKER", tmp_path / "toy_worker.py")
    row = peers.race_peer(ethanol, "toy", sys.executable, "ethanol", seconds=0.01)
    assert row["ratio"] == pytest.approx(row["peer_ms"] / row["ours_ms"], rel=0.05, abs=0.01)
    assert row["peer_steps"] >= 3 and row["peer"]["edges"] == row["edges"] == 72


def test_a_peer_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "toy_worker.py").write_text("raise MemoryError('too large')")
    monkeypatch.setattr(peers, "WORKER", tmp_path / "toy_worker.py")
    with pytest.raises(RuntimeError, match="ended with code 1 and said: MemoryError: too large"):
        peers.Worker(sys.executable, "toy", "ethanol", 1)


def test_bench_has_a_row_for_each_peer_that_is_here_and_names_the_others(ethanol, tmp_path, monkeypatch):
    (tmp_path / "toy_worker.py").write_text(PEER)
    monkeypatch.setattr(peers, "WORKER", tmp_path / "toy_worker.py")
    monkeypatch.setattr(peers, "PEERS", {"toy": "numpy", "other": "absent_package", "more": "absent_package"})
    report = bench(ethanol, ["ethanol"], steps=2, peers=True, echo=lambda line: None)
    assert report.peers["ethanol"]["toy"]["peer_steps"] == 2
    assert report.peers["ethanol"]["toy"]["ours"]["model"].startswith("ethanol_painn.pt, painn")
    told = repr(report)
    assert "toy" in told and "not installed here: absent_package (other, more)" in told


def test_a_peer_that_fails_is_a_line_of_the_report(ethanol, tmp_path, monkeypatch):
    (tmp_path / "toy_worker.py").write_text("raise MemoryError('too large')")
    monkeypatch.setattr(peers, "WORKER", tmp_path / "toy_worker.py")
    monkeypatch.setattr(peers, "PEERS", {"toy": "numpy"})
    told = []
    report = bench(ethanol, ["ethanol"], steps=1, peers=True, echo=told.append)
    assert "MemoryError: too large" in report.peers["ethanol"]["toy"]["failed"]
    assert any("toy" in line and "MemoryError" in line for line in told)


def test_packages_without_a_peer_are_refused():
    with pytest.raises(InputError, match="no peer is in the package 'numpy'; the packages are mace"):
        peers.interpreters(["numpy=/usr/bin/python"])


def test_peers_that_are_not_installed_are_rows_too():
    rows = speed.peer_rows(["aspirin"], ["mace=/absent/python"])
    assert rows["MACE 64x0e, aspirin, 1 threads"][0]["not_installed"] == "/absent/python has no mace"


def test_memory_is_told_in_plain_gigabytes(monkeypatch):
    drawn = []
    monkeypatch.setattr("asecalc_mlip.plots.speed.save_figure", lambda figure, path: drawn.append(figure))
    rows = {str(n): {"atoms": n, "ours_ms": 0.1 * n, "peak_memory_GB": 0.3 + n / 2000} for n in (10, 1000, 10_000)}
    size_scaling(rows, path="x.png")
    memory = drawn[0].axes[1]
    assert [text.get_text() for text in memory.get_yticklabels()][:4] == ["0.1", "0.2", "0.3", "0.5"]
    assert memory.yaxis.get_minor_formatter()(0.6) == ""


@pytest.mark.parametrize(("load", "told"), [(0.1, False), (9.0, True)])
def test_a_busy_machine_is_told(load, told):
    model = {"name": "m.pt", "engine": "native", "dtype": "float32", "device": "cpu"}
    report = BenchReport(model, {"processor": "x", "threads": 1, "torch": "2", "cores": 2}, 0.5, load=load)
    assert ("the machine is busy (load 9.0 on 2 cores)" in report.head()) is told
