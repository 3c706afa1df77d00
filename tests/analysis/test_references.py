"""References of any kind: made of frames, through JSON and model files, described, doubted."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from click.testing import CliRunner

from asecalc_mlip.analysis import (
    ContactReference,
    MoleculeReference,
    PeriodicReference,
    load_reference,
    make_reference,
    shortest_by_pair,
)
from asecalc_mlip.analysis.references import describe_reference, reference_from_dict, temperature_doubt
from asecalc_mlip.cli import main
from asecalc_mlip.errors import InputError


def molecules(n=30, temperature_K=None):
    frames = [molecule("CH3CH2OH") for _ in range(n)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.03, seed=k)
        if temperature_K:
            atoms.info["temperature_K"] = temperature_K
    return frames


def crystals(n=6, temperatures_K=()):
    frames = [bulk("NaCl", "rocksalt", a=5.64, cubic=True) for _ in range(n)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=k)
        if temperatures_K:
            atoms.info["temperature"] = temperatures_K[k % len(temperatures_K)]
    return frames


MIXED = [molecule("H2O"), molecule("CH3CH2OH")]
KINDS = {
    MoleculeReference: molecules(),
    PeriodicReference: crystals(),
    ContactReference: MIXED,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_each_kind_of_frames_has_its_reference_which_survives_files(kind, tmp_path):
    made = make_reference(KINDS[kind], "made up")
    assert type(made) is kind and made.n_frames == len(KINDS[kind]) and made.source == "made up"
    assert made.closest == shortest_by_pair(KINDS[kind])
    again = reference_from_dict(json.loads(json.dumps(made.to_dict())))
    assert type(again) is kind and again.to_dict() == made.to_dict()
    made.save(tmp_path / "r.json")
    loaded = load_reference(tmp_path / "r.json")
    assert type(loaded) is kind and loaded.closest == pytest.approx(made.closest, rel=1e-5)
    assert repr(made).startswith(kind.__name__)


def test_isolated_atoms_are_no_structures():
    frames = [Atoms("H"), Atoms("C", cell=[15, 15, 15], pbc=True), *molecules()]
    assert make_reference(frames).n_frames == 30
    with pytest.raises(InputError, match="all frames are isolated atoms"):
        make_reference(frames[:2])


def test_slabs_and_mixtures_have_contacts_only():
    slab = crystals(2)
    for atoms in slab:
        atoms.pbc = [True, True, False]
    for frames in (slab, [*crystals(2), *slab], [*crystals(2), *molecules(2)]):
        assert type(make_reference(frames)) is ContactReference
    assert make_reference(MIXED).matches(molecule("CH4")) and not make_reference(MIXED).matches(molecule("NH3"))


def test_shortest_distances_are_those_of_all_frames_though_distributions_take_some():
    frames = molecules(50)
    frames[7].positions[4] += 0.4 * (frames[7].positions[1] - frames[7].positions[4])
    made = make_reference(frames, most=10)
    assert made.n_frames == 10 and made.closest == shortest_by_pair(frames)
    periodic = make_reference(crystals(20), most=5)
    assert periodic.n_frames == 5 and periodic.closest == shortest_by_pair(crystals(20))


def test_closest_approach_by_hand():
    line = Atoms("OCO", [[0, 0, 0], [0, 0, 1.2], [0, 0, 2.5]])
    assert shortest_by_pair(line) == pytest.approx({"C-O": 1.2, "O-O": 2.5})
    assert shortest_by_pair(Atoms("He", cell=[3, 4, 5], pbc=True)) == pytest.approx({"He-He": 3.0})
    assert shortest_by_pair(Atoms("He")) == {}


@pytest.mark.parametrize(("temperatures_K", "kind"), [((), "liquid"), ((300.0,), "solid"), ((300.0, 1000.0), "liquid")])
def test_a_strict_limit_of_g_needs_a_trajectory_at_one_temperature(temperatures_K, kind):
    made = make_reference(crystals(6, temperatures_K))
    assert made.kind == kind and make_reference(crystals(6, temperatures_K), kind="solid").kind == "solid"
    doubt = temperature_doubt(made)
    if not temperatures_K:
        assert "state no temperature" in doubt and "state no temperature" in temperature_doubt(made, 300.0)
        return
    assert made.temperatures_K == (min(temperatures_K), max(temperatures_K))
    assert (doubt is None) == (len(temperatures_K) == 1)
    assert temperature_doubt(made, 300.0) is None and "300" in temperature_doubt(made, 2000.0)


def test_old_files_without_closest_approach_load():
    old = make_reference(molecules()).to_dict()
    del old["closest"], old["temperatures_K"]
    again = reference_from_dict(old)
    assert again.closest == {} and again.temperatures_K is None and len(again.bonds) == 8


def test_one_line_says_what_there_is():
    text = describe_reference(make_reference(molecules(30, 500.0)).to_dict())
    for part in ("bond lengths, h(r)", "C-H", "of 30 frames, 500 K"):
        assert part in text
    assert "g(r) (unstable beyond 3 Å)" in describe_reference(make_reference(crystals()).to_dict())
    assert "\n" not in text and "no reference" in describe_reference({"format": "other"})


def test_load_reference_takes_frames(tmp_path):
    write(tmp_path / "train.xyz", molecules(), format="extxyz")
    made = load_reference(tmp_path / "train.xyz")
    assert type(made) is MoleculeReference and made.n_frames == 30 and made.source == "train.xyz"
    write(tmp_path / "run.traj", crystals())
    assert type(load_reference(tmp_path / "run.traj")) is PeriodicReference


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"format": "x"}', "a.json is no reference"),
        ("a.json", "[1, 2]", "a.json is no reference"),
        ("a.json", '{"format": ["H"]}', "a.json is no reference"),
        ("a.json", '{"format"', r"a.json cannot be read \(JSON\)"),
        ("a.xyz", "5\nhello\n", "a.xyz: frame 0"),
        ("b.json", None, "b.json cannot be read"),
        ("b.xyz", None, "b.xyz cannot be read"),
    ],
)
def test_what_is_no_reference_is_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_reference(tmp_path / name)


def test_damaged_dicts_are_refused():
    whole = make_reference(molecules()).to_dict()
    for damaged in ({**whole, "histogram": 3}, {**whole, "version": 2}, {"format": whole["format"]}, {}, "text"):
        with pytest.raises(InputError):
            reference_from_dict(damaged)


def test_bad_input():
    with pytest.raises(InputError, match="at least one frame"):
        make_reference([])
    with pytest.raises(InputError, match="kind: for periodic frames only"):
        make_reference(molecules(), kind="solid")


def test_the_command_makes_one_of_a_molecule_or_a_crystal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("train.xyz", molecules(), format="extxyz")
    write("crystal.xyz", crystals(6, (300.0,)), format="extxyz")
    result = CliRunner().invoke(main, ["reference", "train.xyz", "-o", "mine.json"])
    assert result.exit_code == 0 and "state no temperature" in result.output and "h(r)" in result.output
    assert load_reference("mine.json").source == "train.xyz"
    result = CliRunner().invoke(main, ["reference", "train.xyz", "-o", "mine.json", "--range", "300", "500"])
    assert result.exit_code == 0 and load_reference("mine.json").temperatures_K == (300.0, 500.0)
    command = ["reference", "crystal.xyz", "-o", "c.json", "--temperature", "300", "--protocol", "eam-mptrj"]
    result = CliRunner().invoke(main, [*command, "--index", ":4"])
    assert result.exit_code == 0 and "note" not in result.output
    made = load_reference("c.json")
    assert (made.kind, made.temperature_K, made.protocol, made.n_frames) == ("solid", 300.0, "eam-mptrj", 4)
    for wrong in (
        ["nowhere.xyz", "-o", "x.json"],
        ["train.xyz", "-o", "train.xyz"],
        ["train.xyz", "-o", "no/x.json"],
        ["train.xyz"],
    ):
        assert CliRunner().invoke(main, ["reference", *wrong]).exit_code == 2


def test_pairs_of_one_frame_agree_with_ase():
    atoms = crystals(1)[0]
    distances = atoms.get_all_distances(mic=True) + 99.0 * np.eye(len(atoms))
    is_na = atoms.symbols == "Na"
    found = shortest_by_pair(atoms)
    assert found["Cl-Na"] == pytest.approx(distances[np.ix_(is_na, ~is_na)].min())
    assert found["Na-Na"] == pytest.approx(distances[np.ix_(is_na, is_na)].min())
