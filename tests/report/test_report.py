"""The report: a page that holds everything and asks for nothing, whatever a card says; it goes on after a kill."""

import ast
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.io import read, write
from click.testing import CliRunner

import asecalc_mlip.report as package
from asecalc_mlip import cli
from asecalc_mlip.analysis import PeriodicReference
from asecalc_mlip.errors import InputError
from asecalc_mlip.plots.summary import PairCurve, summary_figure
from asecalc_mlip.quantities import parse_seeds
from asecalc_mlip.report import ReportSettings, build, findings, make_report
from asecalc_mlip.report.dynamics import Stopped, _plain
from asecalc_mlip.report.findings import mean_std
from asecalc_mlip.report.page import _with_spread
from asecalc_mlip.report.subject import subject_of
from tests.teacher import as_reference, labelled

SHORT = {"steps": 200, "seeds": (0, 1), "quick": True, "device": "cpu"}


def run(model, folder, **options):
    return make_report(ReportSettings(str(model), output=str(folder), **{**SHORT, **options}))


def test_page_of_a_molecule_is_whole_and_escaped(model, tmp_path, figures):
    report = run(model, tmp_path / "out", temperature_K=2.0)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=http" not in page and "&lt;script&gt;" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', page)
    assert len(sources) >= 3 and all(source.startswith("data:image/png") for source in sources)
    assert (tmp_path / "out" / "summary.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert stored["warnings"] == report.to_dict()["warnings"]
    assert [r["seed"] for r in stored["nvt"]["runs"]] == [0, 1] and stored["nve"]["runs"][0]["steps_done"] == 100
    assert any("data of this model are from 100 to 200 K and the run is at 2 K" in line for line in report.warnings)
    assert any("level of theory, test errors" in line for line in report.warnings)
    assert "stable in 2 of 2 runs" in repr(report) and "m$o$del.pt" in repr(report)


def test_broken_runs_are_told_on_top(model, tmp_path):
    report = run(model, tmp_path / "out", temperature_K=5000.0, seeds=(3,))
    assert report.warnings[0].startswith("NVT run with seed 3 broke at ")
    assert "broke (" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_periodic_model_with_labelled_data(model, crystals, tmp_path, figures):
    model.with_suffix(".xyz").unlink()
    report = run(model, tmp_path / "out", data=str(crystals), temperature_K=2.0, seeds=(0,), frames=5)
    errors = report.found["errors"]
    assert set(errors["mae"]) == {"energy", "energy_per_atom", "forces", "stress"} and errors["n_structures"] == 5
    assert report.found["how"]["structure"] == "first structure of crystals.xyz"
    row = report.found["nvt"]["runs"][0]
    assert re.search(r"^  g\(r\) of the runs, error \S+ % of the reference's structure$", repr(report), re.MULTILINE)
    assert row["structure_errors"]["all"]["error_percent"] > 0 and set(row["partial"]) == {"O-O", "O-Si", "Si-Si"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Partial g(r)" in page and "12 structures of crystals.xyz" in page and "meV/Å³" in page


def test_periodic_reference_is_made_of_data_with_other_cells(model, crystals, tmp_path):
    """g(r) needs the same composition, not the same number of atoms."""
    cell = tmp_path / "primitive.xyz"
    write(cell, bulk("SiO", "rocksalt", a=4.4))
    model.with_suffix(".xyz").unlink()
    subject = subject_of(ReportSettings(str(model), data=str(crystals), structure=str(cell), device="cpu"))
    assert isinstance(subject.reference, PeriodicReference) and len(subject.atoms) == 2 and not subject.rule
    assert subject.reference_source == "12 structures of crystals.xyz"
    write(cell, bulk("SiO", "rocksalt", a=4.4) + bulk("Si", "sc", a=4.4))
    other = subject_of(ReportSettings(str(model), data=str(crystals), structure=str(cell), device="cpu"))
    assert other.reference is None and "of this composition" in other.reference_source


def test_fixed_atoms_stay_and_isotopes_keep_their_masses(model, tmp_path):
    start = molecule("CH3CH2OH")
    start.set_masses([18.0 if z == 8 else None for z in start.numbers])
    plain = start.copy()
    start.set_constraint(FixAtoms([0, 4]))
    write(model.with_suffix(".xyz"), start)
    report = run(model, tmp_path / "out", temperature_K=2.0, seeds=(0,))
    for kind in ("nvt", "nve"):
        frames = read(
            tmp_path
            / "out"
            / "runs"
            / report.found[kind]["folder"]
            / "m$o$del-start000-2K-seed0"
            / "trajectory.extxyz",
            ":",
        )
        moved = np.abs(frames[-1].positions - start.positions).max(axis=1)
        assert moved[[0, 4]].max() < 1e-7 and np.delete(moved, [0, 4]).min() > 1e-5
        assert frames[-1].get_masses()[2] == 18.0
    assert "9 atoms, 2 of them fixed" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    drift = report.found["nve"]["runs"][0]["energy_drift"]
    assert drift["n_atoms"] == 7
    assert len({str(_plain(atoms)) for atoms in (start, plain, molecule("CH3CH2OH"))}) == 3
    start.set_constraint(FixBondLength(0, 1))
    write(model.with_suffix(".traj"), start)
    with pytest.raises(InputError, match="FixBondLengths.*FixAtoms is allowed"):
        subject_of(ReportSettings(str(model), structure=str(model.with_suffix(".traj")), device="cpu"))


def test_a_killed_report_goes_on_where_it_was(model, tmp_path, monkeypatch):
    from asecalc_mlip.md.replicas import Batch

    whole = run(model, tmp_path / "whole", temperature_K=2.0, steps=300)
    step, made = Batch._step, []

    def killed(self):
        made.append(1)
        if len(made) == 250:
            raise SystemExit(9)
        return step(self)

    monkeypatch.setattr(Batch, "_step", killed)
    with pytest.raises(SystemExit):
        run(model, tmp_path / "cut", temperature_K=2.0, steps=300)
    lines, made[:] = [], [0] * 1000
    again = "asecalc_mlip.report.measurements.diatomic_report"
    monkeypatch.setattr(again, lambda *a, **k: pytest.fail("measured twice"))
    settings = ReportSettings(str(model), output=str(tmp_path / "cut"), **{**SHORT, "steps": 300, "temperature_K": 2.0})
    again = make_report(settings, echo=lines.append)
    assert len(made) == 1000 + 100 + 150  # from the restart point at step 200 on
    assert lines[0].startswith("[1/5] Diatomic curves of 1 pairs: found in ")
    for name in ("nvt", "nve"):
        for one, two in zip(whole.found[name]["runs"], again.found[name]["runs"], strict=True):
            assert one["curves"] == two["curves"]
    assert len(list((tmp_path / "cut" / "runs").glob("nvt-*"))) == 1


def test_a_hole_comes_with_its_remedy_and_errors_with_their_units(model, tmp_path):
    """Only quantities that were compared are told, each in its own unit."""
    data = tmp_path / "labelled.xyz"
    frames = [labelled(molecule("CH3CH2OH")) for _ in range(3)]
    write(data, as_reference(frames))
    report = run(model, tmp_path / "out", data=str(data), temperature_K=2.0, seeds=(0,))
    told = next(line for line in repr(report).splitlines() if "MAE on" in line)
    assert told.endswith(" meV/Å") and " meV, " in told and "meV/Å³" not in told
    hole = {"name": "attractive hole", "distance_A": 0.3, "size": 2.0, "unit": "eV", "text": "inside 0.30 Å"}
    (line,) = findings._flags({"pairs": [{"pair": "C-H", "flags": [hole]}]}, "my model.pt")
    assert "asecalc core 'my model.pt' -o 'my model_core.pt'" in line and "model.prior=zbl" in line


def test_a_damaged_piece_is_made_anew(tmp_path):
    pieces = build.Pieces(tmp_path, lambda line: None)
    assert pieces.get("a", [1], lambda: {"x": float("nan")}, "") == {"x": None}
    (tmp_path / "a.json").write_text('{"key"')
    assert pieces.get("a", [1], lambda: {"x": 2}, "") == {"x": 2}
    assert pieces.get("a", [1], lambda: {"x": 3}, "") == {"x": 2}
    assert pieces.get("a", [2], lambda: {"x": 3}, "") == {"x": 3}
    assert pieces.get("a", [2], lambda: {"x": 4}, "", files=["lost.png"]) == {"x": 4}


def test_bad_input_is_named(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = lambda *arguments: CliRunner().invoke(cli.main, ["report", *map(str, arguments)])  # noqa: E731
    missing = call(model, "--data", "absent.xyz")
    assert missing.exit_code == 2
    assert "--data absent.xyz: no such file" in missing.stderr and "leave --data out" in missing.stderr
    for arguments, words in (
        (("absent.pt",), "shipped models"),
        ((model, "--steps", 3), "--steps is '3'; expected a whole number from 200 to 10⁸"),
        ((model, "--seeds", "x"), "such as 1234,2345,3456"),
        ((model, "--temperature", -1), "--temperature is"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2 and words in result.stderr, arguments
    model.with_suffix(".xyz").unlink()
    assert "--structure FILE" in call(model).stderr


def test_a_signal_is_told_and_leaves_its_exit_code(model, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise Stopped(15)

    monkeypatch.setattr(package, "make_report", stop)
    result = CliRunner().invoke(cli.main, ["report", str(model), "-o", str(tmp_path)])
    assert result.exit_code == 143 and "Give the same command again to continue" in result.stderr


def test_settings_come_from_card_reference_and_system(model):
    subject = subject_of(ReportSettings(str(model), device="cpu"))
    nvt, nve = subject.dynamics("nvt"), subject.dynamics("nve", seed=2)
    assert (nvt.temperature_K, nvt.timestep_fs, nvt.thermostat) == (150.0, 0.5, "nose-hoover")
    assert (nve.ensemble, nve.temperature_K, nve.seed) == ("nve", 150.0, 2)
    assert parse_seeds("2") == (0, 1) and parse_seeds("7,3") == (7, 3) and parse_seeds(None) is None
    with pytest.raises(InputError, match="dtype is 'half'"):
        ReportSettings("m.pt", dtype="half")


@pytest.mark.parametrize(("lowest", "end"), [(-11.2, -12.88), (-0.1, -1.0), (-3000.0, -14.0)])
def test_the_panel_of_dimers_shows_whole_wells_and_no_whole_holes(lowest, end):
    curve = PairCurve("C–O", np.array([0.5, 1.1, 5.0]), np.array([50.0, lowest, 0.0]))
    figure = summary_figure([], [], [curve], title="", heads=[""] * 4, footer="", target_K=300.0, end_ps=1.0)
    (axes,) = [one for one in figure.axes if one.get_xlabel() == "Distance of the two atoms (Å)"]
    assert axes.get_ylim() == pytest.approx((end, 10.0))


def test_mean_and_spread_have_the_same_digits():
    assert mean_std([0.0012, 0.0104, -0.008]) == "0.0012 ± 0.0092"
    assert mean_std([0.0329, -0.0331]) == "0.000 ± 0.047"
    assert mean_std([0.25]) == "0.25" and mean_std([]) == "not known" and mean_std([2.0, 2.0]) == "2"


def test_a_report_of_one_warning_and_of_runs_that_broke_reads_well(tmp_path):
    run = {"stable": False, "time_ps": 0.0, "settings": {"temperature_K": 300.0}, "energy_drift": None}
    speed = {"step_ms": 1.0, "ns_per_day": 43.2, "atoms": 3}
    found = {"model": {"name": "m.pt"}, "nvt": {"runs": [run]}, "nve": {"runs": [run]}, "speed": speed, "errors": None}
    text = repr(build.Report(tmp_path, found, ["One."]))
    assert "m.pt: 1 warning\n" in text and "NVE: too few stable frames for a drift\n" in text
    assert (
        _with_spread(222.0, 0.0) == "222" and _with_spread(300.4, 9.6) == "300 ± 10" and _with_spread(None, None) == "–"
    )


def test_no_module_reaches_backwards():
    """training and md_protocols are imported inside functions, or for types only."""
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in getattr(node, "names", [])] + [getattr(node, "module", "") or ""]
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert not any(name.startswith(("training", "md_protocols")) for name in names), path


def test_the_command_makes_the_same_report(tmp_path):
    data = tmp_path / "some data.xyz"
    data.touch()
    settings = ReportSettings("a.pt", data=str(data), structure=str(data), temperature_K=400.0, seeds=(4,), quick=True)
    words = shlex.split(settings.command())
    assert words[:3] == ["asecalc", "report", "a.pt"] and str(data) in words
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert parse_seeds(given["--seeds"]) == (4,)
    assert float(given["--temperature"]) == 400.0 and given["--steps"] == "600" and given["--structure"] == str(data)
