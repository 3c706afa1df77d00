"""Scans of molecules: geometry, forces along the way, and smooth against broken bonds."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.plots.probes import scan_figure
from asecalc_mlip.probes import angle_scan, bond_scan, bond_smoothness, dihedral_scan
from asecalc_mlip.probes.fragments import bonds_of, far_side, in_ring
from tests.cases import DIRECT, model_file
from tests.commands import asecalc
from tests.probes.toys import Pair, cut, morse, with_bump


@pytest.fixture
def calc(tmp_path):
    return PIWSLCalculator.load(model_file(tmp_path, "eam"), dtype="float64")


def test_bonds_and_fragments():
    ethanol, benzene = molecule("CH3CH2OH"), molecule("C6H6")
    assert len(bonds_of(ethanol)) == 8 and len(bonds_of(benzene)) == 12
    # C–O: the far side of O is OH.
    carbon, oxygen = next((i, j) for i, j in bonds_of(ethanol) if set(ethanol.numbers[[i, j]]) == {6, 8})
    if ethanol.numbers[carbon] == 8:
        carbon, oxygen = oxygen, carbon
    assert sorted(ethanol.symbols[far_side(ethanol, carbon, oxygen)]) == ["H", "O"]
    assert not in_ring(ethanol, carbon, oxygen) and in_ring(benzene, 0, 1)
    assert sorted(benzene.symbols[far_side(benzene, 0, 1)]) == ["C", "H"]


def test_scans_measure_what_they_say(calc, monkeypatch):
    atoms = molecule("CH3CH2OH")
    seen = []
    evaluate = calc.evaluate
    monkeypatch.setattr(calc, "evaluate", lambda structures: (seen.extend(structures), evaluate(structures))[1])
    measures = {"bond": Atoms.get_distance, "angle": Atoms.get_angle, "dihedral": Atoms.get_dihedral}
    h, o, c, other = 3, 2, 1, 0
    assert atoms.symbols[[h, o, c, other]].get_chemical_formula() == "C2HO"
    for scan_of in (
        lambda: bond_scan(atoms, calc, c, o, values_A=np.linspace(1.2, 1.8, 7)),
        lambda: angle_scan(atoms, calc, other, c, o, values_deg=np.linspace(90, 130, 9)),
        lambda: dihedral_scan(atoms, calc, other, c, o, h, values_deg=np.linspace(100, 250, 16)),
    ):
        scan = scan_of()
        found = [measures[scan.kind](a, *scan.atoms_indices) for a in seen[:-1]]
        np.testing.assert_allclose(found, scan.values, atol=1e-8)
        assert measures[scan.kind](seen[-1], *scan.atoms_indices) == pytest.approx(scan.start)
        seen.clear()


@pytest.mark.parametrize("kind", ["bond", "angle", "dihedral"])
def test_force_is_minus_the_slope(calc, kind):
    atoms = molecule("CH3CH2OH")
    scan = {
        "bond": lambda h: bond_scan(atoms, calc, 1, 2, values_A=1.4 + h * np.arange(-1, 2)),
        "angle": lambda h: angle_scan(atoms, calc, 0, 1, 2, values_deg=105 + 100 * h * np.arange(-1, 2)),
        "dihedral": lambda h: dihedral_scan(atoms, calc, 0, 1, 2, 3, values_deg=130 + 100 * h * np.arange(-1, 2)),
    }[kind](1e-4)
    slope = (scan.energies_eV[2] - scan.energies_eV[0]) / (scan.values[2] - scan.values[0])
    assert scan.forces[1] == pytest.approx(-slope, abs=1e-6 * max(1.0, abs(slope)))


def test_forces_of_a_scan_are_those_on_all_atoms():
    free = Atoms("Ar3", [[0, 0, 0], [0, 0, 3.5], [0, 3.5, 3.5]])
    held = free.copy()
    held.set_constraint(FixAtoms([0, 1]))
    forces = [bond_scan(atoms, LennardJones(sigma=3.4), 0, 1, values_A=[3.4, 3.6]).forces for atoms in (free, held)]
    assert forces[0][0] != 0.0 and np.array_equal(*forces)


def test_smooth_and_broken_bonds(tmp_path):
    atoms = Atoms("SiO", [[0, 0, 0], [0, 0, 1.6]])
    good = bond_smoothness(atoms, Pair(morse))
    assert good.score == 1.0 and len(good.bonds) == 1 and "100 %" in repr(good)
    assert "longest wrong way 0.00 Å (a smooth bond: at most 0.02 Å)" in repr(good)
    broken = {
        "jumps": cut(morse, 2.2, shift=False),
        "spurious_minima": with_bump(morse, -1.0, 2.2, 0.1),
        "hole_eV": with_bump(morse, -40.0, 1.1, 0.08),
        "wrong_way_A": with_bump(morse, 3.0, 2.1, 0.2),
    }
    for name, function in broken.items():
        found = bond_smoothness(atoms, Pair(function))
        assert getattr(found.bonds[0], name) > 0 and found.score == 0.0, name
    assert json.dumps(good.to_dict())
    scan_figure(good.scans, path=tmp_path / "s.png")


def test_direct_forces_show(tmp_path):
    atoms = molecule("CH3CH2OH")
    deviations = []
    for name in ("painn", DIRECT):
        calc = PIWSLCalculator.load(model_file(tmp_path, name), dtype="float64")
        deviations.append(bond_smoothness(atoms, calc, bonds=[(0, 1)]).bonds[0].deviation_eV_per_A)
    assert deviations[0] < 0.02 < deviations[1]


def test_bad_input_is_refused(calc):
    water = molecule("H2O")
    for call, match in (
        (lambda: bond_scan(water, calc, 0, 3), "numbers from 0 to 2"),
        (lambda: bond_scan(water, calc, 0, 0), "different numbers"),
        (lambda: bond_scan(water, calc, 0, 1, values_A=[2.0, 1.0]), "ascending"),
        (lambda: bond_scan(water, calc, 0, 1, stretch=(1.2, 0.8)), "lower end first"),
        (lambda: angle_scan(Atoms("CO2", [[0, 0, 0], [0, 0, 1.2], [0, 0, -1.2]]), calc, 1, 0, 2), "on a line"),
        (lambda: dihedral_scan(molecule("C6H6"), calc, 0, 1, 2, 3), "in a ring"),
        (lambda: bond_smoothness(Atoms("C"), calc), "no bonds"),
        (lambda: bond_smoothness(water, calc, stretch=(1.2, 2.0)), "around 1"),
        (lambda: bond_scan(Atoms("Si2", [[0, 0, 0], [1, 1, 1]], cell=[4] * 3, pbc=True), calc, 0, 1), "for molecules"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_command(tmp_path, monkeypatch):
    model = str(model_file(tmp_path, "eam"))
    molecule("H2O").write(tmp_path / "w.xyz")
    monkeypatch.chdir(tmp_path)
    assert asecalc("scan", model, "w.xyz", "-o", "s.json", "--figure", "s.png").exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text())["formula"] == "H2O" and (tmp_path / "s.png").is_file()
    assert asecalc("scan", model, "w.xyz", "--bond", "0,1", "--angle", "1,0,2", "-o", "t.json").exit_code == 0
    assert len(json.loads((tmp_path / "t.json").read_text())) == 2
    stretched = ("scan", model, "w.xyz", "--stretch", "0.9", "1.2", "-o", "u.json")
    assert asecalc(*stretched, "--bond", "0,1").exit_code == 0
    (found,) = json.loads((tmp_path / "u.json").read_text())
    assert found["values_A"][0] == pytest.approx(0.9 * found["start_A"])
    assert found["values_A"][-1] == pytest.approx(1.2 * found["start_A"], abs=0.011)
    result = asecalc(*stretched, "--angle", "1,0,2")
    assert result.exit_code == 2 and "--stretch is for bonds" in result.stderr
    result = asecalc("scan", model, "w.xyz", "--bond", "0-1")
    assert result.exit_code == 2 and "0,1" in result.stderr
