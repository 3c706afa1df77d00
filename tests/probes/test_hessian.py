"""Second derivatives: against finite differences, for every architecture; vibrations that they give."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.io import read
from ase.units import _c

from asecalc_mlip import CommitteeCalculator, PIWSLCalculator
from asecalc_mlip.engine import hessian as engine
from asecalc_mlip.errors import InputError, NotEnoughMemoryError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.probes import relax, vibrations
from asecalc_mlip.probes.vibrations import finite_difference_hessian
from asecalc_mlip.zoo import FOLDER as ZOO
from tests.cases import DIRECT, PHYSICAL, make_potential, make_structure, model_file
from tests.commands import asecalc


@pytest.mark.parametrize("structure", ["molecule", "skewed"])
@pytest.mark.parametrize("architecture", PHYSICAL)
def test_agrees_with_finite_differences(tmp_path, architecture, structure):
    calc = PIWSLCalculator.load(model_file(tmp_path, architecture), dtype="float64")
    atoms = make_structure(structure)
    exact = calc.hessian(atoms)
    # Differences of fourth order: those of second order are themselves off by more than 1e-6.
    near, far = (finite_difference_hessian(atoms, calc, delta_A=d) for d in (1e-4, 2e-4))
    np.testing.assert_allclose(exact, (4 * near - far) / 3, rtol=0, atol=1e-6 * max(1.0, np.abs(exact).max()))
    np.testing.assert_array_equal(exact, exact.T)
    assert np.abs(exact.reshape(len(exact), -1, 3).sum(1)).max() < 1e-9 * max(1.0, np.abs(exact).max())  # translation


@pytest.mark.parametrize("architecture", ["eam", "painn", "tensornet", "torchmd_et"])
def test_rows_at_once_change_nothing(tmp_path, architecture):
    calc = PIWSLCalculator.load(model_file(tmp_path, architecture), dtype="float64")
    graph = graph_from_atoms(make_structure("molecule"), calc.cutoff)
    potential = engine.double(calc.potential)
    found = [engine.hessian(potential, graph, rows=rows) for rows in (1, 4, 100)]
    found.append(engine.hessian(potential, graph))  # PaiNN and TensorNet by forward tangents
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [{"messages": "own"}, {"group": "SO3"}, {"n_interactions": 1}])
@pytest.mark.parametrize("n_features", [8, 48])
def test_tangents_of_every_tensornet(options, n_features):
    # With 8 features there are more coordinates than channels, with 48 fewer than invariants.
    potential = make_potential("tensornet", dtype=torch.float64, n_features=n_features, **options)
    graph = graph_from_atoms(make_structure("skewed"), 4.0)
    own, rows = engine.hessian(potential, graph), engine.hessian(potential, graph, rows=1)
    torch.testing.assert_close(own, rows, rtol=0, atol=1e-12 * max(1.0, rows.abs().max().item()))


@pytest.mark.parametrize("architecture", ["painn", "tensornet"])
def test_tangents_take_no_tensor_of_the_host(architecture):
    """Those of torch without values stand for a GPU: tensors of the host are refused, and nothing can wait for one."""
    potential, there = make_potential(architecture), torch.device("meta")
    graph = graph_from_atoms(make_structure("crystal"), potential.cutoff).to(there)
    own, network = potential.network.traits.hessian, potential.network.to(there)
    assert own.compute(network, graph).shape == (3 * graph.n_atoms, 3 * graph.n_atoms)


def test_float32_calculators_have_the_same_and_are_left_as_they_are(tmp_path):
    path, atoms = model_file(tmp_path, "painn"), make_structure("molecule")
    calc = PIWSLCalculator.load(path)
    atoms.calc = calc
    before = atoms.get_forces()
    np.testing.assert_array_equal(calc.hessian(atoms), PIWSLCalculator.load(path, dtype="float64").hessian(atoms))
    atoms.calc.reset()
    np.testing.assert_array_equal(atoms.get_forces(), before)


def test_committee_has_the_mean_of_its_members(tmp_path):
    paths = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        paths.append(model_file(folder, "painn", seed=seed))
    atoms = make_structure("molecule")
    mean = np.mean([PIWSLCalculator.load(path).hessian(atoms) for path in paths], axis=0)
    np.testing.assert_allclose(CommitteeCalculator.load(paths).hessian(atoms), mean, atol=1e-12)


def test_one_atom_and_far_atoms_have_none(tmp_path):
    calc = PIWSLCalculator.load(model_file(tmp_path, "painn"))
    np.testing.assert_array_equal(calc.hessian(Atoms("C")), np.zeros((3, 3)))
    np.testing.assert_array_equal(calc.hessian(Atoms("CO", [[0, 0, 0], [0, 0, 9]])), np.zeros((6, 6)))


def test_bad_input_is_refused(tmp_path, monkeypatch):
    calc = PIWSLCalculator.load(model_file(tmp_path, DIRECT))
    with pytest.raises(InputError, match="not the derivative of its energy"):
        calc.hessian(molecule("H2O"))
    assert vibrations(molecule("H2O"), calc).method.startswith("differences")
    calc = PIWSLCalculator.load(model_file(tmp_path, "painn"))
    with pytest.raises(InputError, match="does not know the element Fe"):
        calc.hessian(Atoms("Fe"))
    monkeypatch.setattr(engine, "available_bytes", lambda device: 1e4)
    with pytest.raises(NotEnoughMemoryError, match="Hessian of 3 atoms"):
        calc.hessian(molecule("H2O"))


def test_vibrations_of_a_morse_molecule_in_closed_form():
    depth, rho, bond = 4.0, 3.0, 1.2  # E = D (e^(−2ρ(r/r0−1)) − 2 e^(…)), k = 2 D ρ²/r0²
    calc = MorsePotential(epsilon=depth, r0=bond, rho0=rho, rcut1=50, rcut2=60)
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, bond]])
    found = vibrations(atoms, calc, delta_A=1e-3)
    mass = np.prod(atoms.get_masses()) / atoms.get_masses().sum()
    omega = np.sqrt(2 * depth * rho**2 / bond**2 / mass * 9.648533e27)  # eV/Å²/u in 1/s²
    assert found.frequencies_cm1 == pytest.approx([omega / (2 * np.pi * _c * 100)], rel=1e-4)
    assert len(found.rigid_cm1) == 5 and np.abs(found.rigid_cm1).max() < 1.0
    assert found.zero_point_energy_eV == pytest.approx(found.frequencies_cm1[0] * 1.239842e-4 / 2, rel=1e-4)
    assert found.warnings == [] and found.to_dict()["frequencies_cm1"] == found.frequencies_cm1.tolist()
    with pytest.raises(InputError, match="method='differences'"):
        vibrations(atoms, calc, method="exact")


def test_imaginary_modes_are_told():
    calc = MorsePotential(epsilon=1.0, r0=1.2, rho0=3.0, rcut1=50, rcut2=60)
    straight = Atoms("Ar3", [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]])
    saddle = relax(straight, calc, fmax_eV_per_A=1e-6).atoms  # straight by symmetry; it would bend to a triangle
    found = vibrations(saddle, calc, delta_A=1e-3)
    assert len(found.imaginary_cm1) == 2 and len(found.rigid_cm1) == 5
    assert any("imaginary" in text for text in found.warnings) and "WARNING" in repr(found)
    assert "not relaxed" in " ".join(vibrations(straight, calc).warnings)


@pytest.mark.parametrize("shape, n_rigid", [("zigzag", 4), ("straight", 3)])
def test_a_wire_turns_about_its_axis(shape, n_rigid):
    """Else one of its vibrations is that rotation, of 1 cm⁻¹."""
    second, length = ([1.6, 0.0, 2.0], 4.0) if shape == "zigzag" else ([0.0, 0.0, 2.2], 4.4)
    wire = Atoms("Cu2", [[0, 0, 0], second], cell=[0, 0, length], pbc=[False, False, True])
    found = vibrations(relax(wire, EMT(), fmax_eV_per_A=1e-5).atoms, EMT())
    assert len(found.rigid_cm1) == n_rigid and np.abs(found.rigid_cm1).max() < 2.0
    assert len(found.frequencies_cm1) == 6 - n_rigid and np.abs(found.frequencies_cm1).min() > 50.0


@pytest.mark.parametrize("probe", [relax, vibrations])
def test_no_atoms(probe):
    with pytest.raises(InputError, match="atoms; the structure has none"):
        probe(Atoms(), EMT())


@pytest.mark.parametrize("name", ["ethanol", "ethanol_painn"])
def test_exact_and_differences_agree_on_a_real_model(name):
    calc = PIWSLCalculator.load(f"{name}.pt", dtype="float64")
    atoms = relax(read(ZOO / f"{name}.xyz"), calc).atoms
    exact, differences = vibrations(atoms, calc), vibrations(atoms, calc, method="differences", delta_A=1e-3)
    np.testing.assert_allclose(exact.frequencies_cm1, differences.frequencies_cm1, atol=1.0)
    assert len(exact.frequencies_cm1) == 21 and np.abs(exact.rigid_cm1).max() < 5.0
    assert 3500 < exact.frequencies_cm1[-1] < 3900  # O–H stretch


def test_command(tmp_path):
    files = ["-o", str(tmp_path / "v.json"), "--figure", str(tmp_path / "v.png")]
    result = asecalc("vibrations", "ethanol_painn.pt", *files)
    assert result.exit_code == 0, result.stderr
    assert "21 vibrations" in result.stdout and (tmp_path / "v.png").is_file()
    assert asecalc("vibrations", "ethanol_painn.pt", "absent.xyz").exit_code == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--delta", "0.02"],
            "the Hessian of ethanol_painn.pt is exact: leave it out, or take the method 'differences'",
        ),
        (["--delta", "0.01", "--method", "exact"], "is exact: leave it out"),
        (["--as-is", "--fmax", "0.01"], "--fmax has no effect with --as-is, which relaxes nothing: leave it out"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    result = asecalc("vibrations", "ethanol_painn.pt", *options)
    assert result.exit_code == 2 and message in result.stderr
