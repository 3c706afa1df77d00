"""Everyday uses of ASE with the calculators: records of the model, properties that there are not, wrong arguments."""

import copy
import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.mixing import SumCalculator
from ase.calculators.morse import MorsePotential
from ase.db import connect
from ase.io import Trajectory, read

from asecalc_mlip import CommitteeCalculator, PIWSLCalculator
from asecalc_mlip.errors import CheckpointError, InputError
from tests.cases import make_structure, model_file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return model_file(tmp_path_factory.mktemp("models"))


@pytest.fixture
def calculator(file):
    return PIWSLCalculator.load(file, device="cpu", dtype="float64")


def test_databases_and_trajectories_name_the_model(calculator, tmp_path):
    atoms = molecule("H2O")
    atoms.calc = calculator
    atoms.get_forces()
    connect(tmp_path / "a.db").write(atoms)
    row = connect(tmp_path / "a.db").get(1)
    with Trajectory(tmp_path / "a.traj", "w", atoms) as trajectory:
        trajectory.write()
    stored = read(tmp_path / "a.traj").calc
    for name, parameters in ((row.calculator, row.calculator_parameters), (stored.name, stored.parameters)):
        assert name == "piwslcalculator"
        assert parameters["model"] == "painn.pt"
        assert parameters["checksum"] == calculator.model.checksum
        assert (parameters["dtype"], parameters["device"]) == ("float64", "cpu")
    assert row.energy == stored.results["energy"] == atoms.get_potential_energy()
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        assert other.parameters == calculator.parameters
    committee = CommitteeCalculator.load([calculator.model.path] * 2, device="cpu")
    assert committee.todict()["model"] == ["painn.pt", "painn.pt"]


def test_options_do_not_change_afterwards(calculator):
    with pytest.raises(InputError, match=r"skin, dtype cannot be set: .*PIWSLCalculator\.load"):
        calculator.set(skin=1.0, dtype="float32")
    assert calculator.set() == {}
    assert calculator.parameters["dtype"] == "float64"


def test_programs_pass_over_a_stress_that_there_is_not(calculator):
    """As those that ask for every property and leave out what is not implemented."""
    water, crystal = molecule("H2O"), make_structure("crystal")
    water.calc = SumCalculator([calculator, MorsePotential()])
    assert np.isfinite(water.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError, match="three directions"):
        water.get_stress()
    with pytest.raises(InputError, match="three directions"):
        calculator.get_stress(make_structure("slab"))
    assert calculator.get_stress(crystal).shape == (6,)


def test_wrong_arguments_are_named(calculator, tmp_path):
    with pytest.raises(InputError, match=r"\['a.pt', 'b.pt'\], not one file: CommitteeCalculator.load takes several"):
        PIWSLCalculator.load(["a.pt", "b.pt"])
    with pytest.raises(InputError, match="the model is None, not one file: give the path"):
        PIWSLCalculator.load(None)
    with pytest.raises(CheckpointError, match="is a folder: give the model file in it, which has no .pt"):
        PIWSLCalculator.load(tmp_path)
    with pytest.raises(CheckpointError, match="is a folder: give the model file in it, painn.pt"):
        PIWSLCalculator.load(calculator.model.path.parent)
    with pytest.raises(InputError, match=r"the structure is 'a.xyz', not an ase.Atoms object: read a file with ase.io"):
        calculator.get_potential_energy("a.xyz")
    with pytest.raises(InputError, match="structure 1 of 2 is None, not an ase.Atoms object"):
        calculator.evaluate([Atoms("C"), None])
    with pytest.raises(InputError, match="structure 0 is 'a.xyz', not an ase.Atoms object"):
        list(calculator.evaluate_iter(["a.xyz"]))
