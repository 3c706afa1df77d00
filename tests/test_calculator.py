"""The calculator as users meet it: properties, dtypes side by side, batches, errors, memory."""

import copy
import gc
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import predict
from tests.cases import E0, MODELS, STRUCTURES, make_potential, make_structure, model_file

pytestmark = pytest.mark.parametrize("architecture", MODELS)


@pytest.fixture
def calculator(architecture, tmp_path):
    return PIWSLCalculator.load(model_file(tmp_path, architecture), dtype="float64", device="cpu")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_properties(calculator, architecture, structure):
    atoms = make_structure(structure)
    atoms.calc = calculator
    reference = predict(
        make_potential(architecture, dtype=torch.float32).double(), graph_from_atoms(atoms, 4.0), stress=atoms.pbc.all()
    )
    assert atoms.get_potential_energy() == pytest.approx(reference.energy.item(), abs=1e-9)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.allclose(atoms.get_forces(), reference.forces, atol=1e-10)
    if atoms.pbc.all():
        assert np.allclose(atoms.get_stress(voigt=False), reference.stress[0], atol=1e-12)
        assert atoms.get_stress().shape == (6,)
    else:
        with pytest.raises(InputError, match="three directions"):
            atoms.get_stress()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()


def test_single_atom_and_large_cell(calculator):
    for alone in (Atoms("Si"), Atoms("Si", cell=[20, 20, 20], pbc=True)):
        alone.calc = calculator
        assert np.isfinite(alone.get_potential_energy())
        assert np.all(alone.get_forces() == 0)
    large = bulk("SiO", "rocksalt", a=4.4, cubic=True) * (7, 6, 6)
    large.positions += np.random.default_rng(0).normal(0, 0.05, large.positions.shape)
    assert len(large) == 2016
    large.calc = calculator
    assert np.abs(large.get_forces().sum(0)).max() < 1e-8
    assert np.all(np.isfinite(large.get_stress()))


def test_evaluate_equals_one_at_a_time(calculator):
    structures = [make_structure(STRUCTURES[k % 4], seed=k) for k in range(11)] + [Atoms("C")]
    results = calculator.evaluate(structures, batch_size=5)
    assert len(results) == len(structures)
    for atoms, result in zip(structures, results, strict=True):
        atoms.calc = calculator
        assert result["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert np.allclose(result["forces"], atoms.get_forces(), atol=1e-10)
        assert (result["stress"] is None) == (not atoms.pbc.all())
        if atoms.pbc.all():
            assert np.allclose(result["stress"], atoms.get_stress(), atol=1e-12)
    assert calculator.evaluate([]) == []
    assert calculator.evaluate(structures[0])[0]["energy"] == pytest.approx(results[0]["energy"])


def test_two_dtypes_in_one_process(architecture, tmp_path):
    path = model_file(tmp_path, architecture)
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    single, double = PIWSLCalculator.load(path), PIWSLCalculator.load(path, dtype="float64")
    atoms = make_structure("crystal")
    values = []
    for _ in range(3):
        for calculator in (single, double):
            moved = atoms.copy()
            moved.calc = calculator
            values.append(moved.get_potential_energy())
    assert values[0::2] == [values[0]] * 3
    assert values[1::2] == [values[1]] * 3
    assert values[0] != values[1]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before


def test_two_calculators_of_one_loaded_model(architecture, tmp_path):
    model = load(model_file(tmp_path, architecture))
    single, double = PIWSLCalculator(model, dtype="float32"), PIWSLCalculator(model, dtype="float64")
    assert (single.potential.dtype, double.potential.dtype) == (torch.float32, torch.float64)
    atoms = molecule("H2O")
    for calculator in (single, double):
        atoms.calc = calculator
        assert np.isfinite(atoms.get_forces()).all()


def test_failed_calculation_leaves_no_old_results(calculator):
    good, bad = molecule("H2O"), molecule("H2O")
    bad.positions[1] = bad.positions[0]
    good.calc = bad.calc = calculator
    good.get_potential_energy()
    with pytest.raises(InputError, match="overlap"):
        calculator.calculate(bad)
    with pytest.raises(InputError, match="overlap"):
        bad.get_potential_energy()
    fresh = PIWSLCalculator(calculator.model)
    with pytest.raises(InputError, match="no structure yet"):
        fresh.calculate()
    assert fresh.get_property("forces", good, allow_calculation=False) is None


def test_evaluates_again_what_changed_and_nothing_else(calculator):
    atoms = make_structure("crystal")
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    atoms.set_initial_charges(np.ones(len(atoms)))
    atoms.set_momenta(np.ones((len(atoms), 3)))
    assert atoms.get_potential_energy() == energy and calculator.neighbors.calls == 1
    for calls, change in enumerate(
        [
            lambda: atoms.positions.__setitem__((0, 0), np.nextafter(atoms.positions[0, 0], 9.0)),
            lambda: atoms.set_cell(atoms.cell.array * (1 + 1e-15)),
            lambda: atoms.set_pbc([True, True, False]),
            lambda: atoms.numbers.__setitem__(slice(None), atoms.numbers[::-1].copy()),
            lambda: atoms.__delitem__(0),
        ],
        start=2,
    ):
        assert calculator.check_state(atoms) == []
        change()
        assert len(calculator.check_state(atoms)) >= 1
        atoms.get_forces()
        assert calculator.neighbors.calls == calls
    # The calculator keeps a copy of its own.
    calculator.calculate(atoms)
    atoms.positions += 0.1
    assert calculator.check_state(atoms) == ["positions"]


def test_copies_and_inference_mode(calculator):
    atoms = make_structure("crystal")
    atoms.calc = calculator
    forces = atoms.get_forces()
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        other.reset()
        atoms.calc = other
        assert np.array_equal(atoms.get_forces(), forces)
    calculator.reset()
    atoms.calc = calculator
    with torch.inference_mode():
        assert np.array_equal(atoms.get_forces(), forces)
        assert np.allclose(calculator.evaluate([atoms])[0]["forces"], forces)
    forces[:] = 0.0
    assert np.abs(atoms.get_forces()).max() > 0


def test_loaded_in_inference_mode(architecture, tmp_path):
    path, atoms = model_file(tmp_path, architecture), make_structure("crystal")
    with torch.inference_mode():
        calculators = [PIWSLCalculator.load(path, device="cpu", compile=engine) for engine in ("auto", "eager")]
    one, other = (calculator.evaluate([atoms])[0]["forces"] for calculator in calculators)
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_threads_wait_for_each_other(calculator):
    """One calculator, four threads with structures of their own, through ASE and in batches."""
    rng = np.random.default_rng(0)
    structures = [make_structure("crystal") for _ in range(12)]
    for atoms in structures:
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    expected = [calculator.get_potential_energy(atoms) for atoms in structures]

    def energies(atoms):
        return calculator.evaluate([atoms])[0]["energy"], calculator.get_potential_energy(atoms)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(energies, structures * 5))
    np.testing.assert_allclose(np.array(found), np.repeat(np.array(expected * 5)[:, None], 2, axis=1), rtol=1e-10)


def test_results_do_not_depend_on_the_skin(architecture, tmp_path):
    path = model_file(tmp_path, architecture)
    with_skin, without = PIWSLCalculator.load(path, skin=1.0), PIWSLCalculator.load(path, skin=0.0)
    atoms, rng = make_structure("slab"), np.random.default_rng(0)
    for _ in range(10):
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        forces = []
        for calculator in (with_skin, without):
            moved = atoms.copy()
            moved.calc = calculator
            forces.append(moved.get_forces())
        assert np.array_equal(*forces)
    assert with_skin.stats()["neighbor_builds"] < without.stats()["neighbor_builds"] == 10


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("CFe", [[0, 0, 0], [0, 0, 2]]), r"does not know the element Fe; it was trained on H, C, O, Si"),
        (Atoms("CX", [[0, 0, 0], [0, 0, 2]]), r"atoms \[1\] are X, which is no element: leave ghost atoms out"),
        (Atoms("CO", [[0, 0, 0], [0, 0, np.nan]]), r"atoms \[1\] are not finite"),
        (Atoms("CO", [[0, 0, 0], [0, 0, 0]]), "atoms 0 and 1 are 0.000 Å apart"),
        (Atoms("CO", [[0, 0, 0], [0, 0, 0.05]]), "overlap"),
        (Atoms(), "no atoms"),
        (Atoms("C", pbc=True), "no volume"),
        (Atoms(numbers=[119], positions=[[0, 0, 0]]), "atomic numbers 119 to 119"),
        (Atoms(numbers=[-5], positions=[[0, 0, 0]]), "atomic numbers -5 to -5"),
        (Atoms("C", cell=[0.01, 0.01, 0.01], pbc=True), "0.01 Å thick"),
    ],
)
def test_bad_structures_are_named(calculator, atoms, message):
    with pytest.raises(InputError, match=message):
        calculator.get_potential_energy(atoms)
    with pytest.raises(InputError, match=message):
        calculator.evaluate([molecule("H2O"), atoms])
    good = molecule("H2O")
    good.calc = calculator
    assert np.isfinite(good.get_potential_energy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu9"}, "device 'tpu9' is unknown"),
        ({"dtype": "float16"}, "'float32'"),
        ({"device": "meta"}, "device 'meta' is unknown"),
        ({"device": None}, "device None is unknown"),
        ({"skin": -0.1}, "skin"),
        ({"skin": float("inf")}, "skin"),
        ({"compile": "fast"}, "compile is 'fast'; allowed: 'auto', True"),
        ({"compile": "cuda-graph", "device": "cpu"}, "it runs on a GPU"),
        ({"precision": "bf16", "device": "cpu"}, "precision='bf16' is for"),
    ],
)
def test_bad_options(architecture, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        PIWSLCalculator.load(model_file(tmp_path, architecture), **options)


def test_card_and_print(calculator):
    atoms = molecule("H2O")
    atoms.calc = calculator
    atoms.get_forces()
    card = calculator.card
    assert card["elements"] == ["H", "C", "O", "Si"]
    assert card["cutoff"] == 4.0
    assert card["licence"] == "MIT"
    assert card["reference_energies"]["values"]["Si"] == E0[14]
    text = str(calculator)
    for part in ("float64", "cpu", "skin 0.5", "1 made in 1 call (", "licence"):
        assert part in text
    short = repr(calculator)
    assert "\n" not in short and len(short) < 200
    assert short.startswith("PIWSLCalculator(") and "elements H, C, O, Si, cutoff 4 Å; " in short


def test_unknown_elements_are_named_in_good_grammar(calculator):
    with pytest.raises(InputError, match=r"does not know the element N; it was trained on H, C, O, Si\. .* with it$"):
        calculator.get_potential_energy(molecule("NH3"))
    with pytest.raises(InputError, match=r"does not know the elements N, Na; .* with them$"):
        calculator.get_potential_energy(Atoms("NaN", [[0, 0, 0], [0, 0, 2]]))


def test_a_thousand_calls_leak_nothing(architecture, tmp_path):
    import resource

    calculator = PIWSLCalculator.load(model_file(tmp_path, architecture))
    atoms, rng = make_structure("slab"), np.random.default_rng(0)
    atoms.calc = calculator

    def run(n):
        for _ in range(n):
            atoms.positions += rng.normal(0, 1e-3, atoms.positions.shape)
            atoms.get_forces()

    run(200)
    gc.collect()
    tensors = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(1000)
    gc.collect()
    assert sum(isinstance(o, torch.Tensor) for o in gc.get_objects()) <= tensors + 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # kB


def test_import_loads_no_training_stack(architecture):
    # Once for all architectures: a fresh process, because this one has imported everything.
    if architecture != MODELS[0]:
        return
    code = (
        "import time, torch; t = time.perf_counter(); import asecalc_mlip; asecalc_mlip.PIWSLCalculator; "
        "import sys; print(time.perf_counter() - t); "
        "print([m for m in ('schnetpack', 'pytorch_lightning', 'hydra', 'training', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert float(out[0]) < 2.5
    assert out[1] == "[]"
