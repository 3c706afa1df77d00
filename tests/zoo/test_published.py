"""Published weights: the numbers of their authors, the catalogue, and files that are not what they should be."""

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from click.testing import CliRunner

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import CheckpointError, load, save
from asecalc_mlip.cli import main
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import build_potential, predict
from asecalc_mlip.zoo.catalogue import CATALOGUE, published
from asecalc_mlip.zoo.fetch import convert_matgl, get
from asecalc_mlip.zoo.matgl import read_matgl
from tests.attack.matgl_files import contents, folder_of_matgl
from tests.conftest import REPOSITORY

NAMES = [model.folder for model in CATALOGUE]


@pytest.fixture(scope="session")
def published_dir() -> Path:
    """Folder with one folder for each model, and reference numbers; skips the test where there is none."""
    for folder in (os.environ.get("ASECALC_MODELS"), REPOSITORY.parent / "shared" / "models"):
        if folder and (Path(folder) / "reference").is_dir():
            return Path(folder)
    pytest.skip("no published weights: set ASECALC_MODELS to a folder with those of MatGL and their reference numbers")


def structure(archive, name: str) -> Atoms:
    fields = {key: archive[f"{name}.{key}"] for key in ("numbers", "positions", "cell", "pbc")}
    return Atoms(fields["numbers"], fields["positions"], cell=fields["cell"], pbc=fields["pbc"])


@pytest.mark.realdata
@pytest.mark.parametrize("folder", NAMES)
def test_energies_forces_and_stress_are_those_of_the_reference(published_dir, folder):
    potential = read_matgl(published_dir / folder).potential.double()
    archive = np.load(published_dir / "reference" / f"{folder}.npz")
    for name in map(str, archive["structures"]):
        atoms = structure(archive, name)
        graph = graph_from_atoms(atoms, potential.cutoff)
        assert graph.n_edges == archive[f"{name}.n_edges"]
        found = predict(potential, graph, stress=bool(atoms.pbc.all()))
        assert abs(found.energy.item() - archive[f"{name}.energy"]) < 1e-9 * len(atoms)
        assert np.abs(found.forces.numpy() - archive[f"{name}.forces"]).max() < 1e-9
        if atoms.pbc.all():
            assert np.abs(found.stress[0].numpy() - archive[f"{name}.stress"]).max() < 1e-10


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ["TensorNet-MatPES-PBE-v2025.1-PES", "M3GNet-ANI-1x-Subset-PES"])
def test_float32_stays_within_its_rounding(published_dir, folder):
    potential = read_matgl(published_dir / folder).potential
    archive = np.load(published_dir / "reference" / f"{folder}.npz")
    for name in map(str, archive["structures"]):
        atoms = structure(archive, name)
        found = predict(potential, graph_from_atoms(atoms, potential.cutoff))
        assert abs(found.energy.item() - archive[f"{name}.energy"]) < 2e-6 * len(atoms)
        assert np.abs(found.forces.numpy() - archive[f"{name}.forces"]).max() < 2e-4


@pytest.mark.realdata
def test_a_published_model_is_had_by_its_name(published_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("ASECALC_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="asecalc zoo get TensorNet-MatPES-PBE"):
        load("TensorNet-MatPES-PBE")
    folder = published_dir / "TensorNet-MatPES-PBE-v2025.1-PES"
    result = CliRunner().invoke(main, ["zoo", "get", "TensorNet-MatPES-PBE", "--from", str(folder)])
    assert result.exit_code == 0 and "BSD-3-Clause" in result.output
    calc = PIWSLCalculator.load("TensorNet-MatPES-PBE", device="cpu", dtype="float64")
    assert calc.card["level_of_theory"] == "PBE" and "2503.04070" in calc.card["citation"]
    # CsCl-type MoS, a number that can be checked by hand.
    atoms = bulk("MoS", "cesiumchloride", a=4.0)
    atoms.calc = calc
    assert atoms.get_potential_energy() == pytest.approx(-10.488424163, abs=1e-7)
    assert atoms.get_stress()[0] == pytest.approx(0.08742467, abs=1e-7)


@pytest.mark.realdata
def test_a_file_with_another_checksum_is_refused(published_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("ASECALC_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "copy"
    shutil.copytree(published_dir / "TensorNet-ANI-1x-Subset-PES", copy)
    (copy / "model.json").write_text((copy / "model.json").read_text() + " ")
    with pytest.raises(InputError, match="SHA-256"):
        get("TensorNet-ANI-1x", source=copy)
    assert not list((tmp_path / "cache").rglob("*.pt"))


def test_the_catalogue_names_every_model():
    result = CliRunner().invoke(main, ["zoo", "list"])
    assert result.exit_code == 0
    assert all(model.name in result.output and model.licence.split(",")[0] in result.output for model in CATALOGUE)
    assert published("tensornet-matpes-pbe").name == "TensorNet-MatPES-PBE"
    with pytest.raises(InputError, match="there are TensorNet-MatPES-PBE"):
        published("MACE-OFF")


class Evil:
    def __reduce__(self):
        return (os.system, ("touch executed",))


@pytest.mark.parametrize(
    ("state", "model", "told"),
    [
        (None, "{}", "holds no model of MatGL"),
        (None, "[" * 100_000, "holds no model of MatGL"),
        ({"x": Evil()}, None, "holds Python objects"),
        ([1, 2], None, "no dictionary of tensors"),
        (None, None, "no such file"),
        ({"data_std": torch.ones(())}, None, "is missing or unknown"),
        ({"x": torch.zeros(1).expand(10**12)}, None, "entry 'x' is no dense tensor"),
        ({"x": torch.ones(2, 2).to_sparse()}, None, "entry 'x' is no dense tensor"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, monkeypatch, state, model, told):
    monkeypatch.chdir(tmp_path)
    arguments = {"element_types": ["H"], "units": 8, "nblocks": 1, "cutoff": 5.0, "max_n": 3}
    arguments |= {"equivariance_invariance_group": "O(3)"}
    named = {"@module": "matgl.models._tensornet_pyg", "init_args": arguments}
    Path("model.json").write_text(json.dumps({"kwargs": {"model": named}}) if model is None else model)
    if state is not None:
        torch.save(state, "state.pt")
    with pytest.raises(CheckpointError, match=told):
        read_matgl(tmp_path)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("where", "name"), [("kwargs", "calc_repuls"), ("init_args", "is_intensive"), ("init_args", "include_state")]
)
def test_what_no_weight_would_tell_is_refused(tmp_path, where, name):
    """With the repulsion of MatGL left out, energies of close atoms would be wrong without a word."""
    description, state = copy.deepcopy(contents())
    assert read_matgl(folder_of_matgl(tmp_path / "good", description, state)).potential.elements == [1, 6, 8]
    (description["kwargs"] if where == "kwargs" else description["kwargs"]["model"]["init_args"])[name] = True
    with pytest.raises(CheckpointError, match=f"{name} is True; False is converted"):
        read_matgl(folder_of_matgl(tmp_path / "odd", description, state))


def test_weights_of_unknown_origin_are_converted_with_a_warning(tmp_path, caplog):
    """Of the convention of later versions of MatGL, they would give nonsense, smooth and invariant."""
    with caplog.at_level("WARNING", "asecalc_mlip"):
        convert_matgl(folder_of_matgl(tmp_path / "folder", *contents()), tmp_path / "model.pt")
    assert "compare the energy of a structure with that of MatGL" in caplog.text


@pytest.mark.parametrize("architecture", ["tensornet", "m3gnet"])
def test_a_model_file_keeps_every_option(tmp_path, architecture):
    options = {
        "tensornet": {"radial_basis": "gaussian", "envelope": "cosine", "messages": "own", "group": "SO3"},
        "m3gnet": {"radial_basis": "spherical_bessel", "n_angular": 2, "three_body_cutoff": 3.0},
    }[architecture]
    potential = build_potential(architecture, {"n_features": 8, **options}, reference_energies={1: -13.0, 8: -2000.0})
    save(tmp_path / "m.pt", potential.eval(), card={})
    read = load(tmp_path / "m.pt").potential
    graph = graph_from_atoms(Atoms("OH2", [[0, 0, 0], [0, 0.8, 0.6], [0, -0.8, 0.6]]), potential.cutoff)
    # Sums over threads may round otherwise from call to call.
    torch.testing.assert_close(read(graph), potential(graph), rtol=1e-14, atol=1e-14)
