"""Relaxation, equation of state, elastic constants, phonons: against phonopy, matscipy and closed forms."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read
from ase.units import GPa

from asecalc_mlip import PIWSLCalculator, extras
from asecalc_mlip.errors import InputError
from asecalc_mlip.plots.probes import elastic_figure, eos_figure, phonon_figure
from asecalc_mlip.probes import elastic_constants, equation_of_state, phonons, relax
from asecalc_mlip.probes.elastic import hill_moduli
from asecalc_mlip.probes.phonons import supercell_for
from tests.cases import DIRECT, model_file
from tests.commands import asecalc

needs_phonopy = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('phonopy')", reason="no phonopy")
ARGON = {"sigma": 3.4, "epsilon": 0.0104, "rc": 6.5, "ro": 5.0, "smooth": True}


def argon(a=5.2):
    return bulk("Ar", a=a), LennardJones(**ARGON)


@pytest.fixture(scope="module")
def copper():
    """Relaxed by EMT, whose own bulk modulus and lattice constant are known to ASE."""
    return relax(bulk("Cu"), EMT(), cell="full", fmax_eV_per_A=1e-5).atoms


def test_relaxation_of_atoms_and_cell():
    atoms, calc = bulk("Cu", a=3.7, cubic=True), EMT()
    atoms.positions[0] += 0.1
    found = relax(atoms, calc, cell="full", fmax_eV_per_A=1e-4)
    assert found.converged and found.max_force_eV_per_A < 1e-4 and found.max_stress_GPa < 0.01
    assert found.atoms.cell.lengths() == pytest.approx([3.59] * 3, abs=0.01)
    assert found.volume_change_percent == pytest.approx(100 * ((3.59 / 3.7) ** 3 - 1), abs=0.5)
    assert atoms.cell.lengths() == pytest.approx([3.7] * 3)  # what was given stays
    assert json.dumps(found.to_dict()) and "relaxed in" in repr(found)
    short = relax(atoms, calc, cell="full", steps=1)
    assert not short.converged and "NOT relaxed" in repr(short)
    same = relax(atoms, calc, cell="volume", fmax_eV_per_A=1e-3).atoms.cell
    np.testing.assert_allclose(same.angles(), 90.0, atol=1e-6)


def test_a_relaxation_that_went_up_says_so():
    found = relax(bulk("Cu"), EMT())
    assert "0.0000 eV lower" in repr(found)
    risen = dataclasses.replace(found, energy_eV=found.energy_start_eV + 0.5)
    assert "0.5000 eV HIGHER than at the start (a saddle point?" in repr(risen)


def test_relaxation_refuses_bad_input(tmp_path):
    direct = PIWSLCalculator.load(model_file(tmp_path, DIRECT), dtype="float64")
    for call, match in (
        (lambda: relax(molecule("H2O"), EMT(), cell="full"), "cell='fixed'"),
        (lambda: relax(bulk("Cu"), EMT(), cell="shape"), "allowed: fixed, full, volume"),
        (lambda: relax(bulk("Cu"), EMT(), optimizer="sgd"), "allowed: bfgs, fire"),
        (lambda: relax(bulk("Cu"), EMT(), steps=0), "above 0"),
        (lambda: relax(molecule("H2O"), EMT(), keep_symmetry=True), "keep_symmetry keeps a space group"),
        (lambda: relax(bulk("Si"), direct, cell="full"), "no stress"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_equation_of_state(copper, tmp_path):
    found = equation_of_state(copper, EMT(), relax_positions=False)
    assert found.equilibrium_volume_A3 == pytest.approx(copper.get_volume(), rel=1e-4) and found.inside
    # The bulk modulus is also the slope of the pressure at that volume.
    shares = (0.999, 1.001)
    pressures = []
    for share in shares:
        squeezed = copper.copy()
        squeezed.calc = EMT()
        squeezed.set_cell(copper.cell * share ** (1 / 3), scale_atoms=True)
        pressures.append(-squeezed.get_stress()[:3].mean())
    bulk_modulus = -(pressures[1] - pressures[0]) / (shares[1] - shares[0]) / GPa
    assert found.bulk_modulus_GPa == pytest.approx(bulk_modulus, rel=0.01)
    assert found.residual_meV_per_atom < 0.01 and json.dumps(found.to_dict())
    eos_figure([found], path=tmp_path / "e.png")
    with pytest.raises(InputError, match="needs a crystal"):
        equation_of_state(molecule("H2O"), EMT())
    with pytest.raises(InputError, match="no minimum|WARNING"):
        equation_of_state(bulk("Cu", a=6.5), EMT(), relax_positions=False)


def test_equation_of_state_of_a_soft_framework_agrees_with_its_elastic_constants():
    """Quartz: ±6 % of volume, once the default, gave 51 GPa."""
    from benchmarks.studies.quartz import RESULTS, quartz

    calc = PIWSLCalculator.load("silica.pt", device="cpu")
    relaxed = relax(quartz(), calc, cell="full").atoms
    found = equation_of_state(relaxed, calc)
    elastic = json.loads((RESULTS / "quartz.json").read_text())["silica"]["bulk_modulus_GPa"]
    assert found.bulk_modulus_GPa == pytest.approx(elastic, rel=0.04) and "WARNING" not in repr(found)
    wide = equation_of_state(relaxed, calc, volume_range_percent=6.0)
    assert wide.bulk_modulus_GPa > 1.2 * elastic and "by the inner half of the volumes" in repr(wide)


def test_elastic_constants_agree_with_matscipy_and_the_equation_of_state(copper, tmp_path):
    from matscipy.elasticity import measure_triclinic_elastic_constants

    found = elastic_constants(bulk("Cu", cubic=True), EMT(), symmetry="cubic", fmax_eV_per_A=1e-4)
    cubic = relax(bulk("Cu", cubic=True), EMT(), cell="full", fmax_eV_per_A=1e-5).atoms
    reference = np.asarray(measure_triclinic_elastic_constants(cubic, delta=1e-3)) / GPa
    for index, full in (((0, 0), (0, 0, 0, 0)), ((0, 1), (0, 0, 1, 1)), ((3, 3), (1, 2, 1, 2))):
        assert found.constants_GPa[index] == pytest.approx(reference[full], rel=0.01)
    free = elastic_constants(bulk("Cu", cubic=True), EMT(), fmax_eV_per_A=1e-4)
    np.testing.assert_allclose(free.constants_GPa, found.constants_GPa, atol=0.01 * found.constants_GPa[0, 0])
    eos = equation_of_state(copper, EMT(), relax_positions=False)
    assert found.bulk_modulus_GPa == pytest.approx(eos.bulk_modulus_GPa, rel=0.01)
    assert found.stable and json.dumps(found.to_dict()) and "Hill" in repr(found)
    assert "stiffness C, GPa" in repr(found) and "taken as cubic" in repr(found)
    assert "no symmetry assumed" in repr(free) and "triclinic" not in repr(free)
    elastic_figure(found, path=tmp_path / "c.png")


def test_hill_moduli_of_an_isotropic_body():
    k, g = 100.0, 40.0
    c = np.zeros((6, 6))
    c[:3, :3] = k - 2 * g / 3
    c[np.arange(3), np.arange(3)] += 2 * g
    c[3:, 3:] = g * np.eye(3)
    assert hill_moduli(c) == pytest.approx((k, g))


def test_elastic_constants_refuse_bad_input():
    for call, match in (
        (lambda: elastic_constants(molecule("H2O"), EMT()), "need a crystal"),
        (lambda: elastic_constants(bulk("Cu"), EMT(), symmetry="round"), "allowed: .*cubic"),
        (lambda: elastic_constants(bulk("Cu"), EMT(), n_strains=1), "3 or more"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_what_did_not_relax_is_told():
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.05, seed=1)
    found = equation_of_state(rattled, EMT(), n_volumes=5, steps=1)
    assert found.not_relaxed == 5 and "at 5 volumes the atoms were not fully relaxed" in repr(found)
    # A basis that is no centre of symmetry moves under strain.
    crystal = relax(bulk("Al", "hcp", a=2.85, c=4.65), EMT(), cell="full", fmax_eV_per_A=1e-5).atoms
    options = {"relax_first": False, "fmax_eV_per_A": 1e-4}
    assert elastic_constants(crystal, EMT(), **options).converged
    loose = elastic_constants(crystal, EMT(), steps=1, **options)
    assert not loose.converged and "in a strained cell" in repr(loose)


def test_a_crystal_without_any_force_is_told():
    gas, model = bulk("Ar", a=30.0, cubic=True), LennardJones(epsilon=0.01, sigma=3.4, rc=8.0)
    with pytest.raises(InputError, match="does not hold it together"):
        elastic_constants(gas, model)


@needs_phonopy
def test_phonons_of_a_crystal_without_any_force_are_refused():
    with pytest.raises(InputError, match="does not hold this crystal together"):
        phonons(bulk("Ar", a=30.0), LennardJones(epsilon=0.01, sigma=3.4, rc=8.0), relax_first=False)


@needs_phonopy
def test_phonons_agree_with_phonopy_driven_by_ase(tmp_path):
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    atoms, calc = argon()
    found = phonons(atoms, calc, supercell=(2, 2, 2), mesh=(6, 6, 6), points_per_segment=5)
    crystal = found.phonopy.unitcell  # relaxed
    unit = PhonopyAtoms(symbols=["Ar"], cell=crystal.cell, scaled_positions=[[0, 0, 0]])
    by_hand = Phonopy(unit, np.diag([2, 2, 2]), primitive_matrix="P")
    by_hand.generate_displacements(distance=0.01)
    forces = []
    for cell in by_hand.supercells_with_displacements:
        moved = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        moved.calc = LennardJones(**ARGON)
        forces.append(moved.get_forces())
    by_hand.forces = forces
    by_hand.produce_force_constants()
    by_hand.run_qpoints([[0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [0.5, 0.25, 0.75]])
    for name, expected in zip("XLW", by_hand.get_qpoints_dict()["frequencies"], strict=True):
        at = found.label_positions_1_per_A[found.labels.index(name)]
        here = int(np.abs(found.path_1_per_A - at).argmin())
        np.testing.assert_allclose(np.sort(found.frequencies_THz[here]), np.sort(expected), atol=0.01)
    assert not found.has_imaginary and found.relaxed and "no imaginary" in repr(found)
    # At high temperature every mode has k_B: 3 R per atom; the Γ point's three acoustic ones are left out.
    assert found.heat_capacity_J_per_K_mol[-1] == pytest.approx(3 * 8.314, rel=0.01)
    integral = np.trapezoid(found.dos_per_THz, found.dos_frequencies_THz)
    assert integral == pytest.approx(3.0, rel=0.02)
    assert json.dumps(found.to_dict())
    phonon_figure([found, found], path=tmp_path / "p.png")


@needs_phonopy
def test_phonons_agree_with_the_exact_hessian_of_the_supercell(tmp_path):
    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.probes import vibrations

    calc = PIWSLCalculator.load(model_file(tmp_path, "eam"), dtype="float64")
    atoms = bulk("Si", a=5.4)
    found = phonons(atoms, calc, supercell=(2, 2, 2), relax_first=False, mesh=(2, 2, 2))
    exact = vibrations(atoms * (2, 2, 2), calc)  # all q points of the 2×2×2 mesh at once
    thz = np.sort(exact.frequencies_cm1 / 33.3564095)
    found.phonopy.run_qpoints([[i / 2, j / 2, k / 2] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    by_phonopy = np.sort(found.phonopy.get_qpoints_dict()["frequencies"].reshape(-1))
    rigid = np.argsort(np.abs(by_phonopy))[:3]
    np.testing.assert_allclose(np.delete(by_phonopy, rigid), thz, atol=0.01)


@needs_phonopy
def test_phonons_of_heavier_isotopes_are_slower():
    light, calc = argon()
    heavy = light.copy()
    heavy.set_masses(4.0 * light.get_masses())
    few = {"supercell": (2, 2, 2), "relax_first": False, "mesh": (2, 2, 2), "points_per_segment": 3}
    fast, slow = (phonons(atoms, calc, **few).frequencies_THz.max() for atoms in (light, heavy))
    assert slow == pytest.approx(0.5 * fast, rel=1e-6)


@needs_phonopy
def test_imaginary_modes_are_never_hidden(tmp_path):
    atoms, calc = bulk("Ar", "bcc", a=4.2), LennardJones(**ARGON)  # bcc argon shears into fcc
    found = phonons(atoms, calc, supercell=(2, 2, 2), mesh=(6, 6, 6), relax_first=False, points_per_segment=11)
    assert found.has_imaginary and found.imaginary_percent > 0 and "IMAGINARY" in repr(found)
    assert "enlarge it until the phonons stay the same" in repr(found)  # not: as far as cutoff times layers
    assert found.to_dict()["lowest_THz"] == found.lowest_THz == pytest.approx(found.frequencies_THz.min(), abs=0.3)
    assert not found.relaxed or found.max_force_eV_per_A < 1e-3
    phonon_figure([found], path=tmp_path / "p.png")


def test_phonons_refuse_bad_input(monkeypatch):
    with pytest.raises(InputError, match="need a crystal"):
        phonons(molecule("H2O"), EMT())
    with pytest.raises(InputError, match="displacement_A is 0.0 Å"):
        phonons(bulk("Cu"), EMT(), displacement_A=0.0)
    with pytest.raises(InputError, match="three numbers"):
        phonons(bulk("Cu"), EMT(), supercell=(0, 1, 1), relax_first=False)
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(InputError, match=re.escape(extras.install("phonons"))):
        phonons(bulk("Cu"), EMT())


def test_phonons_of_a_crystal_with_left_handed_vectors():
    right, calc = argon()
    left = right.copy()
    left.set_cell(right.cell.array[[1, 0, 2]])
    assert left.cell.handedness < 0
    options = {"supercell": (2, 2, 2), "mesh": (2, 2, 2), "points_per_segment": 3, "relax_first": False}
    one, other = (phonons(atoms, calc, **options) for atoms in (right, left))
    np.testing.assert_allclose(other.frequencies_THz.max(), one.frequencies_THz.max(), rtol=1e-6)
    np.testing.assert_allclose(other.heat_capacity_J_per_K_mol, one.heat_capacity_J_per_K_mol, rtol=1e-6)


@pytest.mark.parametrize("probe", [phonons, equation_of_state, elastic_constants, lambda *a: relax(*a, cell="full")])
def test_a_cell_without_volume_is_told(probe):
    for atoms in (Atoms("Cu", pbc=True), Atoms("Cu", cell=[3, 3, 0], pbc=True)):
        with pytest.raises(InputError, match=r"a crystal; the cell is .* has no volume"):
            probe(atoms, EMT())
    with pytest.raises(InputError, match="no atoms"):
        probe(Atoms(cell=[3, 3, 3], pbc=True), EMT())


def test_supercell_is_as_high_as_it_should_be():
    assert supercell_for(bulk("Cu", a=3.6, cubic=True)) == (4, 4, 4)
    assert supercell_for(bulk("Cu", a=3.6)) == (6, 6, 6)


@pytest.mark.parametrize(
    "script, options",
    [
        ("relax", ["--cell", "full", "--write", "out.xyz", "--fmax", "0.01"]),
        ("eos", ["--rigid", "--as-is", "--volumes", "5", "--figure", "out.png"]),
        ("elastic", ["--as-is", "--strains", "3", "--symmetry", "cubic", "--figure", "out.png"]),
        ("phonons", ["--as-is", "--supercell", "1", "1", "1", "--mesh", "2", "2", "2", "--figure", "out.png"]),
    ],
)
def test_commands(script, options, tmp_path, monkeypatch):
    if script == "phonons":
        pytest.importorskip("phonopy")
    model = model_file(tmp_path, "eam")
    bulk("SiO", "rocksalt", a=4.4).write(tmp_path / "s.xyz")
    monkeypatch.chdir(tmp_path)
    result = asecalc(script, model, "s.xyz", "-o", "out.json", *options)
    if script == "eos" and result.exit_code == 2:  # a random model need not hold a crystal together, and says so
        assert "no minimum" in result.stderr
        return
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "out.json").read_text())
    assert asecalc(script, model, "absent.xyz").exit_code == 2


@pytest.mark.parametrize("script, options", [("eos", ["--rigid"]), ("elastic", ["--as-is", "--strains", "3"])])
def test_constraints_are_left_out_and_told(script, options, tmp_path, monkeypatch):
    """A structure may come after options."""
    monkeypatch.chdir(tmp_path)
    crystal = bulk("SiO", "rocksalt", a=4.4)
    crystal.set_constraint(FixAtoms([0]))
    crystal.write("held.traj")
    result = asecalc(script, model_file(tmp_path, "eam"), *options, "held.traj")
    assert "Warning: " in result.stderr
    assert "the constraints of the structure (FixAtoms) are left out" in result.stderr


def test_relaxation_ends_where_it_is_told_to():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    seen = []

    def tell(step, force):
        seen.append((step, force))
        return step == 2

    result = relax(atoms, EMT(), fmax_eV_per_A=1e-6, tell=tell)
    assert [step for step, _ in seen] == [0, 1, 2] and not result.converged and result.n_steps == 2
    assert seen[-1][1] == pytest.approx(result.max_force_eV_per_A)


def test_relax_tells_by_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.2, seed=1)
    atoms.write("s.xyz")
    model = model_file(tmp_path, "eam")
    result = asecalc("relax", model, "--steps", "1", "s.xyz", "--write", "out.xyz")
    assert result.exit_code == 1
    assert "NOT relaxed" in result.stdout and (tmp_path / "out.xyz").exists()
    for name, message in (("out.nosuch", "no such format"), ("nowhere/out.xyz", "no folder")):
        result = asecalc("relax", model, "s.xyz", "--write", name)
        assert result.exit_code == 2 and message in result.stderr


def test_relax_writes_its_structure_and_replaces_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = bulk("SiO", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    atoms.write("s.xyz")
    model = model_file(tmp_path, "eam")
    for name in ("s-relaxed.xyz", "s-relaxed-2.xyz", "other.cif"):
        output = ["-o", name] if name == "other.cif" else []
        result = asecalc("relax", model, "s.xyz", "--steps", "1", *output)
        assert name in result.stdout.splitlines()
        assert np.abs(read(name).positions - atoms.positions).max() > 0
    result = asecalc("relax", model, "s.xyz", "-o", "a.xyz", "--write", "b.xyz")
    assert result.exit_code == 2 and "a .json file" in result.stderr


def test_figures_that_cannot_be_written_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, message in (("x.nosuch", "figures end with"), ("nowhere/x.png", "no folder"), (".", "is a folder")):
        result = asecalc("eos", "absent.pt", "s.xyz", "--figure", name)
        assert result.exit_code == 2 and message in result.stderr
