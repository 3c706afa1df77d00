"""Errors on labels: what is told, which frames are worst, what absurd errors mean, what is written."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from click.testing import CliRunner

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.cli import main
from asecalc_mlip.data.errors import evaluate_file, evaluate_frames
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError
from tests.cases import make_structure, model_file


@pytest.fixture(scope="module")
def calculator(tmp_path_factory):
    return PIWSLCalculator.load(model_file(tmp_path_factory.mktemp("model")), device="cpu", dtype="float64")


def labelled(calculator, structure="molecule", n=12, energy=0.0, forces=0.0):
    """Frames whose labels are those of the model, and errors of these standard deviations."""
    rng = np.random.default_rng(0)
    frames = [make_structure(structure, seed=k) for k in range(n)]
    for atoms, result in zip(frames, calculator.evaluate(frames), strict=True):
        atoms.info["energy"] = result["energy"] + energy * rng.standard_normal()
        atoms.arrays["forces"] = result["forces"] + forces * rng.standard_normal((len(atoms), 3))
    return frames


def test_mean_error_beside_mae_and_rmse(calculator):
    frames = labelled(calculator)
    for k, atoms in enumerate(frames):
        atoms.info["energy"] -= 0.010 + (0.001 if k % 2 else -0.001)
    errors = evaluate_frames(calculator, frames)
    assert errors.mean_error["energy"] == pytest.approx(10.0) and errors.mae["energy"] == pytest.approx(10.0)
    assert errors.rmse["energy"] == pytest.approx(np.sqrt(101.0))
    for part in ("MAE    10.00", "RMSE    10.05", "mean    +10.00 meV", "12 structures"):
        assert part in repr(errors)
    assert "mean     +0.00 meV" in repr(replace(errors, mean_error={"energy": -0.001, "forces": 0.001}))


@pytest.mark.parametrize(("structure", "per_atom"), [("molecule", False), ("crystal", True), ("slab", True)])
def test_energies_of_crystals_are_per_atom_too(calculator, structure, per_atom):
    frames = labelled(calculator, structure, 4)
    for atoms in frames:
        atoms.info["energy"] -= 0.02
    errors = evaluate_frames(calculator, frames)
    assert ("energy_per_atom" in errors.mae) is per_atom and errors.mae["energy"] == pytest.approx(20.0)
    if per_atom:
        assert errors.mae["energy_per_atom"] == pytest.approx(20.0 / len(frames[0]))
        assert "meV/atom" in str(errors)


def test_a_stress_of_molecules_is_not_looked_at(calculator):
    frames = labelled(calculator, "molecule")
    for atoms in frames:
        atoms.info["stress"] = np.zeros((3, 3))
    errors = evaluate_frames(calculator, frames)
    assert set(errors.mae) - {"energy_per_atom"} == {"energy", "forces"} and "stress" in frames[0].info


def test_frames_of_several_sizes_are_compared_per_atom(calculator):
    frames = labelled(calculator, n=3) + labelled(calculator, "molecule", 3)
    frames = [*frames, *labelled(calculator, "crystal", 2)]
    assert "energy_per_atom" in evaluate_frames(calculator, frames).mae


def test_worst_frames_by_energy_and_by_force(calculator):
    frames = labelled(calculator, energy=1e-6, forces=1e-6)
    frames[3].info["energy"] += 0.7
    frames[8].info["energy"] -= 0.2
    frames[5].arrays["forces"][2] += [0.0, 0.3, 0.4]
    errors = evaluate_frames(calculator, frames)
    energy, forces = errors.worst["energy"], errors.worst["forces"]
    assert [row["index"] for row in energy[:2]] == [3, 8] and len(energy) == len(forces) == 5
    assert energy[0]["error"] == pytest.approx(-700.0, rel=0.01) and energy[1]["error"] == pytest.approx(200, rel=0.01)
    assert forces[0]["index"] == 5 and forces[0]["error"] == pytest.approx(500.0, rel=0.01)
    assert forces[0]["atom"] == f"{frames[5].symbols[2]}2"
    assert "worst by energy, meV: frame 3 (-700" in str(errors) and "frame 5 (500" in str(errors)


def test_indices_are_those_of_the_file_though_isolated_atoms_are_left_out(calculator):
    frames = labelled(calculator)
    frames[4].info["energy"] += 1.0
    atom = Atoms("H", info={"energy": 100.0})
    atom.arrays["forces"] = np.zeros((1, 3))
    errors = evaluate_frames(calculator, [atom, *frames])
    assert errors.worst["energy"][0]["index"] == 5 and errors.n_structures == 12 and errors.counts["energy"] == 12
    assert errors.mae["energy"] == pytest.approx(1000.0 / 12) and "energy_per_atom" not in errors.mae
    assert "1 frames of one isolated atom are E0s and left out" in str(errors)
    assert evaluate_frames(calculator, [atom]).n_structures == 1


def test_a_table_by_config_type(calculator):
    frames = labelled(calculator)
    assert evaluate_frames(calculator, frames).config_types == {}
    for k, atoms in enumerate(frames[:9]):
        atoms.info["config_type"] = "cold" if k < 6 else "a rather hot one"
    for atoms in frames[6:9]:
        atoms.info["energy"] -= 0.05
        del atoms.arrays["forces"]
    errors = evaluate_frames(calculator, frames)
    found = errors.config_types
    assert {name: row["structures"] for name, row in found.items()} == {"cold": 6, "a rather hot one": 3, "none": 3}
    hot = found["a rather hot one"]
    assert hot["mae"] == pytest.approx({"energy": 50.0}) and found["cold"]["mae"]["energy"] < 1e-6
    assert "a rather hot one       3" in str(errors) and "config_type" in str(errors)


def shifted(frames, energy=0.0, factor=1.0):
    for atoms in frames:
        atoms.info["energy"] += energy
        atoms.arrays["forces"] *= factor
    return frames


def test_kinds_of_one_size_are_compared_per_atom_beside_others(calculator):
    frames = labelled(calculator, n=3) + labelled(calculator, "crystal", n=3)
    for k, atoms in enumerate(frames):
        atoms.info["energy"] += 0.3
        atoms.info["config_type"] = "molecules" if k < 3 else "crystals"
    found = evaluate_frames(calculator, frames)
    molecules = found.config_types["molecules"]["mae"]
    assert molecules["energy_per_atom"] == pytest.approx(300.0 / len(frames[0])) and "–" not in str(found)


def test_another_level_of_theory_is_told_from_other_units(calculator):
    (text, forces) = evaluate_frames(calculator, shifted(labelled(calculator, forces=0.01), -10852.0)).hints
    assert "+1206 eV per atom" in text and "another level of theory" in text and "forces are sane" in forces
    text = str(evaluate_frames(calculator, shifted(labelled(calculator), -10.0, 23.0605)))
    assert "in kcal/mol/Å" in text and "sane" not in text
    text = str(evaluate_frames(calculator, shifted(labelled(calculator), factor=1 / 51.42)))
    assert "in Hartree/Bohr" in text
    text = str(evaluate_frames(calculator, shifted(labelled(calculator), factor=-1.0)))
    assert "the opposite sign" in text
    frames = labelled(calculator)
    for k, atoms in enumerate(frames):
        atoms.info["energy"] += 20.0 * (-1) ** k
        atoms.arrays["forces"] = atoms.arrays["forces"][::-1].copy()
    text = str(evaluate_frames(calculator, frames))
    assert "by no constant" in text and "order of the atoms" in text


def test_shifts_that_differ_by_element_are_one_level_of_theory(calculator):
    frames = [*labelled(calculator), *labelled(calculator, "crystal", 6)]
    for atoms in frames:
        atoms.info["energy"] += 30.0 * np.sum(atoms.symbols == "H") - 500.0 * np.sum(atoms.symbols == "Si")
    assert "once a constant per element is taken off" in str(evaluate_frames(calculator, frames))


def test_good_and_bad_models_get_no_hint(calculator):
    for energy, forces in ((0.0, 0.0), (0.2, 0.1)):
        assert evaluate_frames(calculator, labelled(calculator, energy=energy, forces=forces)).hints == []


def test_the_command_writes_predictions_figure_and_json(calculator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = labelled(calculator, "crystal", 4, energy=0.01, forces=0.01)
    for atoms, result in zip(frames, calculator.evaluate(frames), strict=True):
        atoms.info["REF_energy"], atoms.info["config_type"] = atoms.info.pop("energy"), "bulk"
        atoms.set_array("REF_forces", atoms.arrays.pop("forces"))
        atoms.info["REF_stress"] = np.diag(result["stress"][:3])
    write("data.xyz", frames, format="extxyz")
    command = ["evaluate", str(calculator.model.path), "data.xyz", "-o", "e.json"]
    result = CliRunner().invoke(main, [*command, "--predictions", "p.xyz", "--figure", "parity.png"])
    assert result.exit_code == 0 and "worst by energy, meV/atom: frame " in result.output
    stored = json.loads((tmp_path / "e.json").read_text())
    for name in ("mae", "rmse", "mean_error", "worst", "config_types", "counts"):
        assert stored[name]
    assert (tmp_path / "parity.png").stat().st_size > 10_000
    written = read("p.xyz", index=":")
    expected = calculator.evaluate(frames)
    for atoms, label, result in zip(written, frames, expected, strict=True):
        assert atoms.info["predicted_energy"] == pytest.approx(result["energy"], abs=1e-3)
        assert np.allclose(atoms.arrays["predicted_forces"], result["forces"], atol=1e-3)
        assert atoms.info["REF_energy"] == pytest.approx(label.info["REF_energy"])
        assert atoms.info["predicted_stress"].shape == (3, 3) and atoms.info["config_type"] == "bulk"
    again = read_frames("p.xyz")  # labels are found first, so that the file can be evaluated again
    assert again[0].info["energy"] == pytest.approx(frames[0].info["REF_energy"])


def test_names_of_labels_are_suggested(calculator):
    atoms = make_structure("molecule")
    atoms.info["my_E"] = -3.0
    with pytest.raises(DataError, match=r"no labels in any of its 1 frames: .*; perhaps --energy-key my_E"):
        evaluate_frames(calculator, [atoms])


def test_predictions_need_no_labels(calculator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [make_structure(name) for name in ("molecule", "crystal")]
    frames[0].info["my_E"] = -3.0
    write("bare.xyz", frames)
    command = ["evaluate", str(calculator.model.path), "bare.xyz"]
    result = CliRunner().invoke(main, [*command, "--predictions", "p.xyz"])
    assert result.exit_code == 0 and "no labels to compare with; perhaps --energy-key my_E\n" in result.output
    for atoms, expected in zip(read("p.xyz", index=":"), calculator.evaluate(frames), strict=True):
        assert atoms.info["predicted_energy"] == pytest.approx(expected["energy"], abs=1e-3)
        assert np.allclose(atoms.arrays["predicted_forces"], expected["forces"], atol=1e-3)
    for option in ("-o", "--figure"):
        result = CliRunner().invoke(main, [*command, "--predictions", "q.xyz", option, "e.png"])
        assert result.exit_code == 2 and "give --predictions FILE.xyz alone" in result.stderr
        assert not (tmp_path / "q.xyz").exists()
    result = CliRunner().invoke(main, ["evaluate", "bare.xyz", str(calculator.model.path)])
    assert result.exit_code == 2 and "is a model by its name, and no data" in result.stderr
    assert "in the order MODEL DATA" in result.stderr


def test_files_that_cannot_be_written_are_refused_first(calculator, tmp_path):
    write(tmp_path / "data.xyz", Atoms("H"))
    for option in ({"predictions": "no/p.xyz"}, {"output": "no/e.json"}, {"figure": "parity.txt"}):
        with pytest.raises(ValueError, match=next(iter(option.values())).replace("/", ".*")):
            evaluate_file(str(calculator.model.path), str(tmp_path / "data.xyz"), **option)


@pytest.mark.parametrize("option", ["--predictions", "--output", "--figure"])
def test_the_data_are_not_overwritten(option, calculator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("data.xyz", labelled(calculator, n=2), format="extxyz")
    before = (tmp_path / "data.xyz").read_bytes()
    result = CliRunner().invoke(main, ["evaluate", str(calculator.model.path), "data.xyz", option, "./data.xyz"])
    assert result.exit_code == 2 and "is the file that is read" in result.output
    assert (tmp_path / "data.xyz").read_bytes() == before
