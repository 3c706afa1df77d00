"""Fit, label and export of EAMs: known parameters come back, interrupted work goes on, bad labels are told."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.stress import voigt_6_to_full_3x3_stress
from click.testing import CliRunner

from asecalc_mlip import EAMCalculator, cli
from asecalc_mlip.checkpoint import LoadedModel, load
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.lammps.eam_table import check_eam_fs, export_eam_fs
from asecalc_mlip.models import build_potential, predict
from asecalc_mlip.models.eam import before_softplus
from tests import processes
from tests.cases import STRUCTURES, make_potential, make_structure, model_file
from training.eam import FitSettings, fit_eam, label
from training.eam import fit as eam_module
from training.eam.batches import collate, energies_forces_stress, fit_batch
from training.eam.report import EAMFit, still_falling

SMALL = FitSettings(cutoff=4.5, n_exponentials=2, epochs=4, lr=0.02, plateau_patience=3)


@pytest.fixture(scope="module")
def known():
    """An EAM of silicon with known parameters."""
    shape = {"elements": ["Si"], "cutoff": 4.5, "n_exponentials": 2}
    potential = build_potential("eam", shape, reference_energies={14: -3.0})
    network = potential.network
    values = {"depth": 0.6, "stiffness": 1.6, "decay": [0.8, 2.5], "share": [0.1, 0.2]}
    with torch.no_grad():
        for name, value in values.items():
            getattr(network, name).copy_(before_softplus(torch.tensor([value])))
        for name, value in {"bond": 2.5, "embedding": 0.7, "rest": 1.3}.items():
            getattr(network, name).fill_(value)
    return EAMCalculator(LoadedModel(potential.eval(), {}, Path("known.pt")), dtype="float64")


@pytest.fixture(scope="module")
def frames(known):
    """Crystals of several densities and clusters of four atoms with its labels."""
    rng = np.random.default_rng(0)
    structures = []
    for k in range(24):
        atoms = bulk("Si", "diamond", a=rng.uniform(4.8, 5.8), cubic=True) if k % 2 else cluster(rng)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        structures.append(atoms)
    return labelled(structures, known)


def cluster(rng):
    positions = np.zeros((1, 3))
    while len(positions) < 4:
        step = rng.normal(size=3)
        place = positions[rng.integers(len(positions))] + step / np.linalg.norm(step) * rng.uniform(1.9, 3.6)
        if np.linalg.norm(place - positions, axis=1).min() > 1.8:
            positions = np.vstack([positions, place])
    return Atoms("Si4", positions)


def labelled(structures, calculator):
    for atoms, result in zip(structures, calculator.evaluate(structures), strict=True):
        atoms.info["energy"], atoms.arrays["forces"] = result["energy"], result["forces"]
        if result["stress"] is not None:
            atoms.info["stress"] = voigt_6_to_full_3x3_stress(result["stress"])
    return structures


def test_terms_of_the_fit_are_those_of_the_model():
    potential = make_potential("eam", trainable=True)
    structures = [make_structure(name) for name in STRUCTURES]
    energy, forces, stress = energies_forces_stress(
        potential.network, collate([fit_batch(potential.network, atoms) for atoms in structures])
    )
    raw = predict(potential.network, graph_from_atoms(structures, potential.cutoff), stress=True)
    assert torch.allclose(energy, raw.energy, atol=1e-10)
    assert torch.allclose(forces, raw.forces, atol=1e-10)
    assert torch.allclose(stress[1:3], raw.stress[1:3], atol=1e-12)


def test_known_parameters_come_back(known, frames):
    fit = fit_eam(frames, replace(SMALL, n_exponentials=4, epochs=110), progress=False)
    before, after = (fit.errors[name].mae["forces"] for name in ("before", "after"))
    assert after < 0.05 * before
    distances = np.arange(1.9, 4.5, 0.05)
    expected = known.pair_curve("Si", "Si", distances).binding
    found = fit.calculator(dtype="float64").pair_curve("Si", "Si", distances).binding
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    decay = torch.nn.functional.softplus(fit.potential.network.decay)[0].sort().values
    assert decay.diff().min() > 0.1
    assert "fitted" in repr(fit) and "start values" in repr(fit)


def test_an_interrupted_fit_goes_on(frames, tmp_path, monkeypatch):
    few, checkpoint = frames[:6], tmp_path / "fit.ckpt"
    whole = fit_eam(few, SMALL, progress=False)
    step = eam_module._Fit._epoch

    def interrupted(self, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return step(self, epoch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(eam_module._Fit, "_epoch", interrupted)
        fit_eam(few, SMALL, progress=False, checkpoint=checkpoint)
    again = fit_eam(few, SMALL, progress=False, checkpoint=checkpoint)
    assert len(again.history) == len(whole.history) == 4
    for (name, ours), theirs in zip(
        again.potential.network.state_dict().items(), whole.potential.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    with pytest.raises(InputError, match="another fit: lr was 0.02, is 0.5"):
        fit_eam(few, replace(SMALL, lr=0.5), progress=False, checkpoint=checkpoint)
    with pytest.raises(InputError, match="the frames, their labels or the reference energies are others"):
        fit_eam(few[:5], SMALL, progress=False, checkpoint=checkpoint)
    given = {str(symbol): -1.0 for atoms in few for symbol in atoms.symbols}
    with pytest.raises(InputError, match="the reference energies are others"):
        fit_eam(few, SMALL, progress=False, checkpoint=checkpoint, e0="given", given=given)
    checkpoint.write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read"):
        fit_eam(few, SMALL, progress=False, checkpoint=checkpoint)


def test_stress_goes_on_to_count_when_epochs_are_added(frames, tmp_path, monkeypatch, capsys):
    counts, few = [], frames[:6]
    step = eam_module._Fit._step

    def noted(self, batch, with_stress):
        counts.append(with_stress)
        return step(self, batch, with_stress)

    monkeypatch.setattr(eam_module._Fit, "_step", noted)
    settings = replace(SMALL, batch_size=6, epochs=1)
    for epochs in (1, 3, 40):
        fit_eam(few, replace(settings, epochs=epochs), progress=False, checkpoint=tmp_path / "fit.ckpt")
    assert counts == [False] + 39 * [True]
    assert capsys.readouterr().err.count("stress labels count from epoch 2 on, which a fit of 1 has not") == 1


@pytest.mark.parametrize(("factor", "message"), [(-1.0, "wrong sign"), (160.2, r"\d+ times.*GPa")])
def test_stress_of_the_wrong_sign_or_unit_is_told(frames, factor, message):
    wrong = [atoms.copy() for atoms in frames[1::2]]
    for atoms in wrong:
        atoms.info["stress"] = factor * atoms.info["stress"]
    with pytest.raises(DataError, match=message):
        fit_eam(wrong, replace(SMALL, epochs=40), progress=False)


def test_bad_data(frames):
    with pytest.raises(DataError, match="no frames"):
        fit_eam([], SMALL)
    alone = Atoms("Si")
    alone.info["energy"], alone.arrays["forces"] = -3.0, np.zeros((1, 3))
    with pytest.raises(DataError, match="single atom"):
        fit_eam([alone], SMALL)
    without = frames[0].copy()
    del without.arrays["forces"]
    with pytest.raises(DataError, match="no forces"):
        fit_eam([frames[1], without], SMALL)
    spoiled = [atoms.copy() for atoms in frames[:4]]
    spoiled[3].info["stress"] = np.full((3, 3), np.nan)
    with pytest.raises(DataError, match="the stress of 1 frame.s. is NaN"):
        fit_eam(spoiled, replace(SMALL, epochs=1), progress=False)
    spoiled[3].pbc = False  # of which a stress says nothing
    assert "stress" in fit_eam(spoiled, replace(SMALL, epochs=1), progress=False).errors["after"].mae
    with pytest.raises(InputError, match="lr is 0"):
        replace(SMALL, lr=0)


def test_a_weight_of_the_stress_needs_a_stress(frames, tmp_path):
    clusters, weighted = frames[::2][:4], replace(SMALL, epochs=1, stress_weight=7.0)
    with pytest.raises(DataError, match="weight of the stress is 7, but no frame that is periodic .* leave the weight"):
        fit_eam(clusters, weighted, progress=False)
    # Fits of before, which had it all the same, go on.
    checkpoint = tmp_path / "eam.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.eam.fit._check_stress", lambda *_: None)
        fit_eam(clusters, weighted, checkpoint=checkpoint, progress=False)
    assert len(fit_eam(clusters, replace(weighted, epochs=2), checkpoint=checkpoint, progress=False).history) == 2
    # The default is no wish, and 0 asks for none.
    for settings in (SMALL, replace(SMALL, stress_weight=0.0)):
        fit_eam(clusters, replace(settings, epochs=1), progress=False)


@pytest.mark.realdata
def test_beats_morse_on_silica(data_file):
    silica = read_frames(data_file("silica_zeo22_train.xyz"), index=":1200:10")
    few = [atoms for atoms in silica if len(atoms) == 15][:12]
    settings = FitSettings(cutoff=6.0, epochs=60, lr=0.01, batch_size=2)
    force = {}
    for density in (True, False):
        fit = fit_eam(few, replace(settings, density=density), progress=False)
        force[density] = fit.errors["after"].mae["forces"]
        if density:
            decay = torch.nn.functional.softplus(fit.potential.network.decay).sort().values
            assert decay.diff().min() > 0.01  # ten exponentials are still ten
    assert force[True] < 0.9 * force[False]


def test_table_agrees_with_the_model(tmp_path):
    calculator = EAMCalculator.load(model_file(tmp_path, "eam"), dtype="float64")
    path = export_eam_fs(calculator, tmp_path / "random.eam.fs")
    found = check_eam_fs(path, calculator, [make_structure(name) for name in ("molecule", "crystal", "skewed")])
    assert found.energy < 1e-4 and found.forces < 1e-3
    assert "ASE" in repr(found)
    head = path.read_text().splitlines()[:5]
    assert "E0" in head[1] and "Si -7000.0" in head[1]
    assert head[3] == "4 H C O Si" and head[4].split()[-1] == f"{4.0:.16e}"
    with pytest.raises(InputError, match="ends with .eam.fs"):
        export_eam_fs(calculator, tmp_path / "random.table")


@pytest.fixture
def labeller(tmp_path):
    return EAMCalculator.load(model_file(tmp_path, "eam"))


@pytest.mark.parametrize("suffix", ["xyz", "db"])
def test_labels_are_those_of_the_model(labeller, tmp_path, suffix):
    structures = [make_structure("crystal", seed=k) for k in range(2)] + [make_structure("molecule")]
    path = label(structures, labeller, tmp_path / f"out.{suffix}", rounds=3, strength=0.4, progress=False)
    found = read_frames(path)
    assert len(found) == 9
    for k, atoms in enumerate(found):
        assert (atoms.info["structure"], atoms.info["round"]) == (k // 3, k % 3 + 1)
        result = labeller.evaluate([atoms])[0]
        assert atoms.info["energy"] == pytest.approx(result["energy"], abs=1e-4)
        assert np.allclose(atoms.arrays["forces"], result["forces"], atol=1e-3)
        assert ("stress" in atoms.info) == bool(atoms.pbc.all())
        if atoms.pbc.all():
            assert np.allclose(atoms.info["stress"], voigt_6_to_full_3x3_stress(result["stress"]), atol=1e-5)
    assert np.allclose(found[3].positions, structures[1].positions, atol=1e-9)
    assert not np.allclose(found[5].positions, structures[1].positions, atol=1e-3)
    if suffix == "xyz":
        assert found[0].info["model"] == "eam.pt" and found[0].info["strength"] == 0.4


def test_labelling_goes_on_after_a_kill(labeller, tmp_path, monkeypatch):
    monkeypatch.setattr("training.eam.labelling.CHUNK", 4)
    structures = [make_structure("crystal", seed=k) for k in range(5)]
    options = {"rounds": 2, "strength": 0.4, "progress": False}
    whole = label(structures, labeller, tmp_path / "whole.xyz", **options).read_bytes()
    part = tmp_path / "part.xyz"
    for size in (len(whole) // 2, len(whole) - 30, 10):
        part.write_bytes(whole[:size])
        assert label(structures, labeller, part, **options).read_bytes() == whole
    assert label(structures, labeller, part, **options).read_bytes() == whole
    for change, message in (({"strength": 0.5}, "strength 0.4 there, 0.5 now"), ({"seed": 1}, "seed 0 there, 1 now")):
        with pytest.raises(InputError, match=message):
            label(structures, labeller, part, **{**options, **change})
    with pytest.raises(InputError, match="source_sha256"):
        label(structures[::-1], labeller, part, **options)
    assert part.read_bytes() == whole


def test_a_process_that_labels_starts_without_the_trainer():
    names = ("schnetpack", "pytorch_lightning")
    code = f"import sys, training.eam.worker; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=processes.environment(), capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_labelling_in_two_processes(labeller, tmp_path, monkeypatch):
    monkeypatch.setattr("training.eam.labelling.CHUNK", 2)
    structures = [make_structure("crystal", seed=k) for k in range(3)]
    one = label(structures, labeller, tmp_path / "one.xyz", rounds=2, progress=False)
    two = label(structures, labeller, tmp_path / "two.xyz", rounds=2, progress=False, workers=2)
    assert one.read_bytes() == two.read_bytes()


def test_what_cannot_be_labelled(labeller, tmp_path):
    good = make_structure("crystal")
    for structures, message in (
        ([], "no structures"),
        ([good, Atoms("Si")], "structure 1 has 1 atom"),
        ([good, Atoms("FeO", [[0, 0, 0], [0, 0, 2]])], "structure 1: .* does not know the element Fe.* H, C, O, Si"),
    ):
        with pytest.raises(InputError, match=message):
            label(structures, labeller, tmp_path / "out.xyz", progress=False)
    with pytest.raises(InputError, match=".xyz, .extxyz, .db"):
        label([good], labeller, tmp_path / "out.traj", progress=False)
    with pytest.raises(InputError, match="does not exist"):
        label([good], labeller, tmp_path / "nowhere" / "out.xyz", progress=False)
    other = tmp_path / "notes.xyz"
    other.write_text("3\nof another kind\nH 0 0 0\nH 0 0 1\nH 0 0 2\n")
    with pytest.raises(InputError, match="another recipe"):
        label([good], labeller, other, progress=False)
    assert other.read_text().startswith("3\nof another")


@pytest.mark.parametrize("cutoff", [5.0, 9.0])
def test_pair_curves_go_to_the_cutoff(cutoff):
    shape = {"elements": ["Si"], "cutoff": cutoff, "n_exponentials": 2}
    potential = build_potential("eam", shape, reference_energies={14: -1.0})
    (curve,) = EAMFit(potential, None, {}, {}).pair_curves()
    assert curve.distances[0] == 0.3 and curve.distances[-1] == pytest.approx(cutoff)


def test_from_the_command_line(frames, tmp_path, monkeypatch):
    from ase.io import write

    monkeypatch.chdir(tmp_path)
    plain = []
    for atoms in frames[:8]:
        copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        copy.info["REF_energy"], copy.arrays["REF_forces"] = atoms.info["energy"], atoms.arrays["forces"]
        plain.append(copy)
    write("data.xyz", plain, format="extxyz")

    def call(text):
        result = CliRunner().invoke(cli.main, text.split())
        assert result.exit_code == 0, result.output
        return result.output

    fit = "eam fit data.xyz -o si.pt --epochs 2 --cutoff 4.5 --exponentials 2 --n-train 5 --core zbl --compare"
    output = call(f"{fit} --no-progress")
    assert "Morse only, held-out" in output and "EAMCalculator.load" in output
    assert load("si.pt").card["training_data"] == {"file": "data.xyz", "train": 5}
    assert [curve["symbols"] for curve in json.loads(Path("si.json").read_text())["pair_curves"]] == [["Si", "Si"]]
    assert Path("si.png").stat().st_size > 10_000
    assert load("si.pt").reference["closest"]["Si-Si"] > 1.0
    assert "energy 16/16" in call("eam label data.xyz si.pt -o more.xyz --rounds 2 --strength 0.3 --no-progress")
    assert "eV/atom" in call("eam export si.pt -o si.eam.fs --check data.xyz")
    for bad in ("eam fit data.xyz -o si.txt", "eam fit data.xyz --n-train 99", "eam export si.pt -o si.table"):
        assert CliRunner().invoke(cli.main, bad.split()).exit_code == 2


@pytest.mark.parametrize(("n", "epochs"), [(30, 1500), (200, 240), (1160, 60), (4, 3000)])
def test_length_of_a_fit_by_the_number_of_frames(n, epochs):
    assert FitSettings().whole(n).epochs == epochs
    assert FitSettings(epochs=7).whole(n).epochs == 7


def test_a_fit_that_is_still_falling_says_so(frames, capsys):
    short = fit_eam(frames, replace(SMALL, epochs=20), progress=False)
    assert "the loss is still falling" in repr(short) and "--epochs 60" in repr(short)
    flat = [{"loss": 1.0 + 0.001 * (k % 2)} for k in range(100)]
    assert still_falling(flat) is None and still_falling([]) is None
    assert still_falling([{"loss": 2.0 - 0.01 * k} for k in range(100)])


def test_a_fit_is_quiet_without_a_terminal(frames, capfd):
    fit_eam(frames[:4], replace(SMALL, epochs=2), progress=True)
    assert capfd.readouterr().err == ""


def test_isolated_atoms_are_e0s_of_a_fit_too(frames, known):
    atom = Atoms("Si", cell=[20, 20, 20], pbc=True)
    atom.info.update(energy=-3.0, config_type="IsolatedAtom")
    fit = fit_eam([*frames, atom], SMALL, progress=False)
    assert fit.e0.values == {14: -3.0} and fit.card["training_data"]["train"] == len(frames)


def test_the_source_of_e0_says_first_of_what_energies_the_fit_was():
    assert eam_module._beside_the_eam("fit on 9 energies") == "fit on 9 energies less those of the EAM, in the same fit"
    told = eam_module._beside_the_eam("least squares on 9 energies; they do not describe single atoms")
    assert told.endswith("in the same fit; they do not describe single atoms")
