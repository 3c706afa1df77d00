"""`asecalc rdf`: table, comparison with a reference or other frames, figure, and the reference file it can make."""

import json

import pytest
from ase.build import bulk, molecule
from ase.io import write
from click.testing import CliRunner

from asecalc_mlip.analysis import PeriodicReference, load_reference
from asecalc_mlip.cli import main


@pytest.fixture
def frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    for k in range(6):
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
        atoms.rattle(0.1, seed=k)
        atoms.info["phase"] = "a" if k < 3 else "b"
        made.append(atoms)
    write("frames.extxyz", made)
    return "frames.extxyz"


def run(*arguments):
    result = CliRunner().invoke(main, ["rdf", *arguments])
    return result.exit_code, result.output


def test_table_reference_and_figure(frames, tmp_path):
    code, output = run(frames, "--save-reference", "r.json", "--group-by", "phase", "--protocol", "eam-mptrj")
    assert code == 0 and "Cl-Na" in output and "Å" in output
    reference = PeriodicReference.load("r.json")
    assert list(reference.groups) == ["a", "b"] and reference.protocol == "eam-mptrj"
    common = [frames, "--index", ":3", "-o", "g.json", "--figure", "g.png"]
    code, output = run(*common, "--reference", "r.json", "--group", "a")
    errors = json.loads((tmp_path / "g.json").read_text())["errors"]
    assert code == 0 and errors["Cl-Na"]["error_percent"] < 0.1  # the file has six digits
    assert (tmp_path / "g.png").stat().st_size > 10_000
    code, output = run(*common, "--reference", frames, "--pair", "Na-Cl")
    errors = json.loads((tmp_path / "g.json").read_text())["errors"]
    assert list(errors) == ["Cl-Na"] and 0.1 < errors["Cl-Na"]["error_percent"] < 100


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.xyz"], "no such file"),
        (["frames.extxyz", "--pair", "Na-O"], "the frames have all, Cl-Cl, Cl-Na, Na-Na"),
        (["frames.extxyz", "--reference", "frames.json"], "frames.json cannot be read"),
    ],
)
def test_bad_input(frames, arguments, message):
    code, output = run(*arguments)
    assert code == 2 and message in output


def test_a_molecule_has_h(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [molecule("CH3CH2OH") for _ in range(20)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    write("m.xyz", frames)
    code, output = run("m.xyz", "--save-reference", "r.json", "-o", "h.json", "--figure", "h.png")
    assert code == 0 and "all" in output and (tmp_path / "h.png").stat().st_size > 5_000
    assert load_reference("r.json").n_frames == 20
    assert json.loads((tmp_path / "h.json").read_text())["histograms"]["all"]["n_frames"] == 20
    for reference, expected in (("r.json", 0.0), ("m.xyz", 0.0)):
        code, output = run("m.xyz", "--reference", reference, "-o", "h.json")
        assert code == 0 and json.loads((tmp_path / "h.json").read_text())["errors"]["all"]["error"] == expected
    code, output = run("m.xyz", "--index", ":10", "--reference", "r.json", "-o", "h.json")
    assert 0.0 < json.loads((tmp_path / "h.json").read_text())["errors"]["all"]["error"] < 2.0
    code, output = run("m.xyz", "--pair", "C-H")
    assert code == 2 and "leave it out" in output


def test_where_there_is_no_pair_no_distance_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("m.xyz", molecule("O"))
    code, output = run("m.xyz", "--figure", "h.png")
    assert code == 0 and output.splitlines()[1].split() == ["all", "1", "none", "none", "0.00"]


def test_a_molecule_and_a_crystal_are_not_compared(frames):
    write("m.xyz", molecule("H2O"))
    assert run("m.xyz", "--save-reference", "r.json")[0] == 0
    for reference in ("r.json", "m.xyz"):
        code, output = run(frames, "--reference", reference)
        assert code == 2 and "periodic" in output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--kind", "solid"], "--kind needs a reference to write: add --save-reference FILE"),
        (["--group-by", "phase", "--temperature", "300"], "--group-by, --temperature need a reference to write"),
        (["--protocol", "eam-mptrj", "--source", "me"], "--protocol, --source need a reference to write"),
        (["--group", "a"], "--group needs a reference with groups: add --reference FILE.json"),
        (["--group", "a", "--reference", "frames.extxyz"], "--group needs a reference with groups"),
        (["--reference", "r.json", "--r-max", "4"], "r.json has 120 bins up to 6 Å"),
        (["--reference", "r.json", "--bins", "60", "--save-reference", "new.json"], "leave --r-max and --bins out"),
    ],
)
def test_options_without_effect_are_refused(frames, tmp_path, arguments, message):
    assert run(frames, "--save-reference", "r.json", "--group-by", "phase")[0] == 0
    code, output = run(frames, *arguments)
    assert code == 2 and message in output and not (tmp_path / "new.json").exists()
    assert run(frames, "--reference", "r.json", "--r-max", "6", "--bins", "120")[0] == 0


def test_a_molecule_has_no_group(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("m.xyz", molecule("H2O"))
    assert run("m.xyz", "--save-reference", "r.json")[0] == 0
    code, output = run("m.xyz", "--reference", "r.json", "--group", "a")
    assert code == 2 and "without groups" in output
