"""Isolated atoms and dimers of a table, given to a trained model: exact there, and nothing else changes at the data."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from click.testing import CliRunner

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.additions.dimers import DimerCurve, add_dimers, read_table
from asecalc_mlip.checkpoint import load
from asecalc_mlip.cli import main
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import parts_of
from asecalc_mlip.probes.diatomic_report import diatomic_report
from asecalc_mlip.probes.dimers import compare_dimers, reference_dimers, reference_frames
from tests.additions.test_core import frames
from tests.cases import model_file

TABLE = reference_frames()
E0 = {int(a.numbers[0]): a.info["energy"] for a in TABLE if len(a) == 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of random weights with a core, and the same one with dimers, by the command."""
    folder = tmp_path_factory.mktemp("dimers")
    plain = model_file(folder, "painn")
    write(folder / "data.xyz", frames())
    for command in (["core", str(plain), "-o", str(folder / "cored.pt")],
                    ["dimers", str(folder / "cored.pt"), "-o", str(folder / "new.pt"),
                     "--data", str(folder / "data.xyz")]):  # fmt: skip
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    assert "isolated atoms, and dimers H-H, C-H, H-O, C-C, C-O, O-O" in result.output.replace("H-C", "C-H")
    return folder / "cored.pt", folder / "new.pt"


def test_nothing_changes_at_the_data(models):
    old, new = (PIWSLCalculator.load(path, device="cpu", dtype="float64") for path in models)
    for one, other in zip(old.evaluate(frames()), new.evaluate(frames()), strict=True):
        assert other["energy"] == pytest.approx(one["energy"], abs=1e-4)
        assert np.allclose(other["forces"], one["forces"], atol=1e-9)
    assert new.card["cohesion_eV"].keys() == {"H", "C", "O"} and len(new.card["dimers"]["pairs"]) == 6


def test_atoms_and_dimers_are_those_of_the_table(models):
    new = PIWSLCalculator.load(models[1], device="cpu")
    assert [new.evaluate([Atoms([z], [[0, 0, 0]])])[0]["energy"] for z in E0] == pytest.approx(list(E0.values()))
    report = diatomic_report(new)
    assert not any(report.flags), report
    assert all(one.agrees for one in compare_dimers(report.curves))
    for pair, curve in reference_dimers().items():
        # The cutoff of this model is 4 Å, before which the curves fall to zero.
        for r, energy in zip(curve.distances_A[curve.distances_A < 3.0], curve.energies_eV, strict=False):
            atoms = Atoms(pair.split("-"), [[0, 0, 0], [0, 0, r]])
            found = new.evaluate([atoms])[0]["energy"] - sum(E0[z] for z in atoms.numbers)
            assert found == pytest.approx(energy, rel=2e-3, abs=0.05), (pair, r)


def test_twice_is_once(models):
    again = add_dimers(load(models[1]), TABLE, frames())
    assert [part.architecture for part in parts_of(again.potential)] == ["painn", "zbl", "cohesion"]
    first = load(models[1]).potential.network.state_dict()
    for name, value in again.potential.network.state_dict().items():
        assert np.allclose(value, first[name], atol=1e-3, rtol=1e-5), name


def test_curves_do_not_swing_between_their_points():
    """O-O changes its spin state at 2.1 Å: cubics with the slopes of both sides would have a well there."""
    _, curves = read_table(TABLE)
    r = np.linspace(0.11, 5.2, 3000)
    for pair, curve in curves.items():
        energies, slopes = curve(r, 5.0)
        lowest = int(energies.argmin())
        assert np.diff(energies[:lowest]).max() < 0 and np.diff(energies[lowest:]).min() > -0.01, pair
        assert np.allclose(np.gradient(energies, r)[5:-5], slopes[5:-5], rtol=0.05, atol=0.3)
        assert energies[-1] == 0.0
    steep = DimerCurve((8, 8), np.array([1.0, 1.2, 2.0, 2.3]), np.array([0.0, -6.0, -1.1, -0.7]),
                       np.array([60.0, 0.0, -6.0, -1.2]))  # fmt: skip
    between = steep(np.linspace(2.0, 2.3, 50), 5.0)[0]
    assert np.diff(between).min() >= 0


def test_what_cannot_be_is_named(models, tmp_path):
    model = load(models[0])
    with pytest.raises(InputError, match="no isolated atom of O"):
        add_dimers(model, [a for a in TABLE if 8 not in a.numbers], frames())
    with pytest.raises(InputError, match="a dimer, but no isolated atom of C"):
        add_dimers(model, [a for a in TABLE if a.numbers.tolist() != [6]], frames())
    bare = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], info={"energy": -2050.0})
    with pytest.raises(InputError, match="a frame is a dimer of H-O without energy or forces"):
        add_dimers(model, [*TABLE, bare], frames())
    other = next(a for a in TABLE if len(a) == 2).copy()
    other.info["energy"] += 0.1
    with pytest.raises(InputError, match="twice at .* Å; keep one"):
        add_dimers(model, [*TABLE, other], frames())
    with pytest.raises(InputError, match="two unlike energies of the atom H"):
        add_dimers(model, [*TABLE, Atoms("H", info={"energy": 0.0})], frames())
    helium = Atoms("He", info={"energy": -79.0})
    with pytest.raises(InputError, match="the data have He, which .* does not know"):
        add_dimers(model, [*TABLE, helium], [*frames(), Atoms("HeH", np.eye(2, 3))])
    with pytest.raises(InputError, match="so few neighbours"):
        add_dimers(model, TABLE, [*frames(), Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])])
    direct = load(model_file(tmp_path, "painn", direct_forces=True))
    with pytest.raises(InputError, match="force head"):
        add_dimers(direct, TABLE, frames())
