"""g(r): ideal gas, crystal, other libraries, partial functions, images beyond half the cell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry.rdf import get_rdf
from ase.io import write
from matscipy.neighbours import neighbour_list

from asecalc_mlip.analysis import rdf
from asecalc_mlip.analysis.second_half import rdfs_of_second_half
from asecalc_mlip.errors import InputError


def gas(n=600, length=12.0, symbols=None, seed=0):
    positions = np.random.default_rng(seed).uniform(0, length, (n, 3))
    return Atoms(symbols or f"Ar{n}", positions, cell=[length] * 3, pbc=True)


def test_ideal_gas_is_one_also_beyond_half_the_cell():
    g = rdf([gas(seed=s) for s in range(5)], r_max=9.0, bins=30)  # half the cell is 6 Å
    far = g.r > 2.0
    assert np.abs(g.g[far] - 1.0).max() < 0.05
    assert g.g[far].mean() == pytest.approx(1.0, abs=0.01)


def test_partial_functions_of_a_mixed_gas_are_one_and_symmetric():
    frames = [gas(symbols="O150H450", seed=s) for s in range(4)]
    for pair in (("O", "H"), ("O", "O"), ("H", "H")):
        g = rdf(frames, pair, r_max=6.0, bins=10)
        assert g.g[3:].mean() == pytest.approx(1.0, abs=0.02)
    np.testing.assert_array_equal(rdf(frames[0], ("O", "H")).g, rdf(frames[0], ("H", "O")).g)


def test_crystal_shells_hold_the_right_number_of_atoms():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    density = 4 / 5.64**3
    for pair, shells in ((("Na", "Cl"), {2.82: 6, 4.885: 8}), (("Na", "Na"), {3.988: 12, 5.64: 6})):
        g = rdf(salt, pair, r_max=6.0, bins=600)
        number = g.g * density * 4 / 3 * np.pi * np.diff(g.edges**3)
        for radius, expected in shells.items():
            assert number[np.abs(g.r - radius) < 0.02].sum() == pytest.approx(expected)
        assert number.sum() == pytest.approx(sum(shells.values()))  # no like pairs mixed in


def test_one_atom_cell_sees_its_own_images():
    g = rdf(bulk("Cu", a=3.6), r_max=4.0, bins=400)
    number = g.g * (4 / 3.6**3) * 4 / 3 * np.pi * np.diff(g.edges**3)
    assert number.sum() == pytest.approx(12 + 6)


def test_bins_of_a_run_end_below_the_first_image_in_a_skewed_cell(tmp_path):
    atoms = Atoms("Ar", cell=[[6.0, 0, 0], [5.5, 5.0, 0], [0, 0, 20.0]], pbc=True)  # b - a is 5.02 Å long
    write(tmp_path / "run.xyz", [atoms, atoms], format="extxyz")
    g = rdfs_of_second_half(tmp_path / "run.xyz", 2, atoms)["all"]
    assert 4.9 < g.edges[-1] < 5.02 and not g.g.any()


def test_agrees_with_ase_and_matscipy():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 3
    atoms.rattle(0.2, seed=1)
    total = rdf(atoms, r_max=8.0, bins=80)
    expected, r = get_rdf(atoms, 8.0, 80)
    np.testing.assert_allclose(total.r, r)
    np.testing.assert_allclose(total.g, expected)
    exact = 4 / 3 * np.pi * np.diff(total.edges**3)
    counts = np.histogram(neighbour_list("d", atoms, 8.0), total.edges)[0]
    np.testing.assert_allclose(total.g, counts * atoms.get_volume() / (len(atoms) ** 2 * exact))


def test_errors_of_two_functions():
    a, b = rdf(gas(seed=1), r_max=6.0), rdf(gas(seed=2), r_max=6.0)
    crystal = rdf(bulk("Cu", cubic=True), r_max=6.0)
    assert a.error(a) == 0.0 and crystal.error_percent(crystal) == 0.0
    assert 0.0 < a.error(b) < a.error(crystal)
    assert "highest peak" in repr(crystal) and crystal.to_dict()["n_frames"] == 1


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="distance_histogram"):
        rdf(molecule("H2O"))
    with pytest.raises(InputError, match="its elements are Ar"):
        rdf(gas(10), ("O", "H"))
    with pytest.raises(InputError, match="at least one"):
        rdf([])
    for pair in (("Ar",), ("Ar", "Ar", "Ar"), "ArAr"):
        with pytest.raises(InputError, match="two chemical symbols are expected"):
            rdf(gas(10), pair)
