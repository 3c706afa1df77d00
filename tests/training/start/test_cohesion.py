"""With E0 of isolated atoms the mean binding energy is a part of the potential, and the network need not learn it."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.models import parts_of
from tests import teacher
from tests.training.levels import files, tiny

pytest.importorskip("schnetpack")
from training import train as training  # noqa: E402
from training.start.cohesion import cohesion_of  # noqa: E402
from training.start.initial import without_energies_of  # noqa: E402


def isolated(folder):
    atoms = [Atoms([z], info={"REF_energy": teacher.ATOM_ENERGY[z]}) for z in (11, 17)]
    write(folder / "atoms.xyz", atoms, format="extxyz")
    return f"model.isolated_atoms={folder / 'atoms.xyz'}"


def architectures(potential):
    return [part.architecture for part in parts_of(potential)]


def test_what_is_left_has_no_mean_and_the_forces_of_the_data():
    frames = teacher.crystal_frames(10)
    found = cohesion_of(frames, teacher.ATOM_ENERGY, 5.0)
    rest = without_energies_of([found], frames)
    e0 = [sum(teacher.ATOM_ENERGY[z] for z in atoms.numbers) for atoms in frames]
    before = np.array([atoms.info["energy"] for atoms in frames]) - e0
    after = np.array([atoms.info["energy"] for atoms in rest]) - e0
    assert abs(before.mean()) > 1.0 and abs(after.mean()) < 1e-4 and after.std() == pytest.approx(before.std())
    assert all(np.array_equal(a.arrays["forces"], b.arrays["forces"]) for a, b in zip(frames, rest, strict=True))


def test_the_stress_of_what_is_known_is_taken_off_as_well(tmp_path):
    frames, (_, eam) = teacher.crystal_frames(2), files(tmp_path)
    calculator = PIWSLCalculator.load(eam, dtype="float64")
    for atoms, found in zip(frames, calculator.evaluate(frames), strict=True):
        atoms.info["stress"] = voigt_6_to_full_3x3_stress(found["stress"])
    rest = without_energies_of([calculator.potential, calculator.potential], frames)
    for atoms, left in zip(frames, rest, strict=True):
        np.testing.assert_allclose(left.info["stress"], -atoms.info["stress"], atol=1e-9)


def test_data_with_dimers_and_data_without_binding_have_none(caplog):
    frames = teacher.crystal_frames(4)
    mean = {z: energy + np.mean([a.info["energy"] - sum(teacher.ATOM_ENERGY[z] for z in a.numbers) for a in frames])
            / len(frames[0]) for z, energy in teacher.ATOM_ENERGY.items()}  # fmt: skip
    assert cohesion_of(frames, mean, 5.0) is None
    dimer = Atoms([11, 17], [[0, 0, 0], [0, 0, 2.4]], info={"energy": -12.0})
    dimer.arrays["forces"] = np.zeros((2, 3))
    with caplog.at_level("INFO"):
        assert cohesion_of([*frames, dimer], teacher.ATOM_ENERGY, 5.0) is None
    assert "no cohesion: the data hold atoms with hardly a neighbour" in caplog.text


def test_a_run_has_it_with_isolated_atoms_and_keeps_it_in_the_file(tmp_path):
    data, _ = files(tmp_path)
    assert architectures(training.prepare(tiny(tmp_path, data)).potential) == ["painn"]
    asked = tiny(tmp_path, data, isolated(tmp_path), output="with")
    without = tiny(tmp_path, data, isolated(tmp_path), "model.cohesion=false", output="without")
    assert architectures(training.prepare(without).potential) == ["painn"]
    model = training.train(asked).model
    loaded = load(model)
    assert architectures(loaded.potential) == ["painn", "cohesion"]
    energies = loaded.card["cohesion_eV"]
    assert set(energies) == {"Na", "Cl"} and sum(energies.values()) < -1.0
    # A fine-tuning from there has one of it, not two.
    fine = training.prepare(tiny(tmp_path, data, f"finetune.base={model}", isolated(tmp_path), output="fine"))
    assert architectures(fine.potential) == ["painn", "cohesion"]


def test_a_fitted_base_gets_isolated_atoms_and_its_energies_stay(tmp_path):
    data, _ = files(tmp_path)
    base = training.train(tiny(tmp_path, data, "run.max_epochs=1", output="base")).model
    run = training.prepare(tiny(tmp_path, data, f"finetune.base={base}", isolated(tmp_path),
                                "model.reference_energies=isolated", output="fine"))  # fmt: skip
    assert architectures(run.potential) == ["painn", "cohesion"]
    from asecalc_mlip.graph import graph_from_atoms

    before, after = load(base).potential.eval(), run.potential.eval()
    shifts = []
    for atoms in run.training:
        energies = [float(p(graph_from_atoms(atoms, after.cutoff)).detach().sum()) for p in (before, after)]
        shifts.append((energies[1] - energies[0]) / len(atoms))
    assert np.std(shifts) < 1e-5
