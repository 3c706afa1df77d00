"""Block averages, equipartition, coordination, closest approach, bond drift, all partial g(r) at once."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.neighborlist import neighbor_list

from asecalc_mlip.analysis import (
    block_average,
    bond_drift,
    closest_approach,
    coordination,
    degrees_by_atom,
    equipartition,
    partial_rdfs,
    rdf,
    temperatures,
)
from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.pairs import pairs_within


def correlated(n, memory, seed):
    """x_{t+1} = a x_t + noise, standard deviation 1: (1 + a)/(1 − a) values count as one."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(1 - memory**2) * rng.standard_normal(n)
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for k in range(1, n):
        x[k] = memory * x[k - 1] + noise[k]
    return x


def test_block_average_of_independent_values_is_the_plain_error():
    values = np.random.default_rng(0).standard_normal(4096)
    result = block_average(values)
    assert result.error == pytest.approx(1 / 64, rel=0.3) and result.inefficiency < 2 and result.converged


def test_block_average_of_correlated_values_has_the_known_inefficiency():
    results = [block_average(correlated(20_000, 0.9, s)) for s in range(6)]
    assert np.mean([r.inefficiency for r in results]) == pytest.approx(19, rel=0.35)
    means = np.array([r.mean / r.error for r in results])
    assert np.abs(means).max() < 4.0


def test_a_series_shorter_than_its_memory_says_so():
    result = block_average(np.linspace(0.0, 1.0, 200))
    assert not result.converged and "lower bound" in repr(result)
    with pytest.raises(InputError, match="four finite"):
        block_average([1.0, np.nan, 2.0, 3.0])


def heated(atoms, temperature_K, n, removed, seed=0):
    """Frames with momenta of a canonical ensemble without the removed motions."""
    rng = np.random.default_rng(seed)
    masses = atoms.get_masses()[:, None]
    frames = []
    for _ in range(n):
        frame = atoms.copy()
        frame.set_momenta(rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature_K))
        if removed != "nothing":
            frame.set_velocities(frame.get_velocities() - frame.get_momenta().sum(axis=0) / masses.sum())
        if removed == "translation and rotation":
            from asecalc_mlip.md.integrators import _rigid_rotation

            frame.set_velocities(frame.get_velocities() - _rigid_rotation(frame, frame.get_velocities()))
        frames.append(frame)
    return frames


@pytest.mark.parametrize("removed", ["nothing", "translation", "translation and rotation"])
def test_every_element_has_the_temperature(removed):
    """Counting 3 for every atom would put the oxygen of ethanol 50 K below its hydrogen."""
    result = equipartition(heated(molecule("CH3CH2OH"), 300.0, 3000, removed), removed=removed)
    assert result.worst_deviation < 4.0 and "equal within errors" in repr(result)
    assert all(abs(b.mean - 300.0) < 4.5 * b.error for b in result.by_element.values())


def test_unequal_temperatures_are_seen():
    frames = heated(bulk("NaCl", "rocksalt", a=5.64, cubic=True), 300.0, 400, "nothing")
    for frame in frames:
        momenta = frame.get_momenta()
        momenta[frame.numbers == 11] *= 1.2
        frame.set_momenta(momenta)
    assert "NOT equal" in repr(equipartition(frames, removed="nothing"))
    assert temperatures(frames, removed="nothing", select="Na").mean() == pytest.approx(432.0, rel=0.1)


def test_atoms_that_are_held_have_no_degrees_of_freedom():
    frames = heated(molecule("CH3CH2OH"), 300.0, 300, "nothing")
    for frame in frames:
        frame.set_constraint(FixAtoms([0, 2]))
        frame.set_momenta(frame.get_momenta(), apply_constraint=True)
    np.testing.assert_allclose(temperatures(frames), [frame.get_temperature() for frame in frames])
    result = equipartition(frames)
    assert result.by_element["C"].mean == pytest.approx(300.0, rel=0.2)
    assert sorted(result.by_element) == ["C", "H"]  # the oxygen is held
    for frame in frames:
        frame.set_constraint(FixBondLength(0, 1))
    with pytest.raises(InputError, match="FixBondLength"):
        temperatures(frames)


def test_degrees_of_freedom_add_up():
    ethanol, dioxide = molecule("CH3CH2OH"), molecule("CO2")
    assert degrees_by_atom(ethanol, "nothing").sum() == 27
    assert degrees_by_atom(ethanol, "translation").sum() == pytest.approx(24)
    assert degrees_by_atom(ethanol, "translation and rotation").sum() == pytest.approx(21)
    assert degrees_by_atom(dioxide, "translation and rotation").sum() == pytest.approx(4)
    with pytest.raises(InputError, match="allowed"):
        degrees_by_atom(ethanol, "spin")


def test_single_temperature_is_that_of_ase():
    frame = heated(bulk("Cu", cubic=True), 500.0, 1, "nothing")[0]
    assert temperatures(frame, removed="nothing")[0] == pytest.approx(frame.get_temperature())


def test_coordination_of_rock_salt_and_against_ase():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    assert coordination(salt, ("Na", "Cl"), 3.0).mean == 6.0
    rough = salt * 2
    rough.rattle(0.4, seed=0)
    result = coordination([rough, salt], ("Cl", "Na"), 3.2)
    i, j = neighbor_list("ij", rough, 3.2)
    expected = np.sum((rough.numbers[i] == 17) & (rough.numbers[j] == 11)) / 32
    assert result.by_frame == pytest.approx([expected, 6.0])
    assert result.shares.sum() == pytest.approx(1.0) and "Na around Cl" in repr(result)
    assert result.mean == pytest.approx((32 * expected + 4 * 6) / 36)
    with pytest.raises(InputError, match="elements are Cl, Na"):
        coordination(salt, ("Na", "O"), 3.0)


def test_contacts_of_a_molecule_without_a_cell():
    ethanol = molecule("CH3CH2OH")
    assert closest_approach(ethanol).by_pair["H-O"] == pytest.approx(0.971, abs=0.001)
    result = coordination(ethanol, ("C", "H"), 1.3)
    assert result.mean == 2.5 and coordination(ethanol, ("H", "O"), 1.3).mean == pytest.approx(1 / 6)


def test_closest_approach_looks_through_the_boundary():
    far = Atoms("SiO", [[0, 0, 0], [5.0, 0, 0]], cell=[10, 10, 10], pbc=True)
    near = Atoms("SiO", [[0.2, 0, 0], [8.9, 0, 0]], cell=[10, 10, 10], pbc=True)
    result = closest_approach([far, near])
    assert (result.frame, result.atoms) == (1, (0, 1)) and result.distance_A == pytest.approx(1.3)
    assert result.ratio == pytest.approx(1.3 / 1.77) and list(result.by_pair) == ["O-Si"]
    with pytest.raises(InputError, match="raise reach"):
        closest_approach(far, reach=2.0)


def test_all_partial_functions_equal_the_single_ones():
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 2
    frames = [salt.copy() for _ in range(3)]
    for k, frame in enumerate(frames):
        frame.rattle(0.3, seed=k)
    found = partial_rdfs((f for f in frames), r_max=6.0, bins=60)
    assert list(found) == ["all", "Cl-Cl", "Cl-Na", "Na-Na"]
    for name, g in found.items():
        np.testing.assert_allclose(g.g, rdf(frames, g.pair, r_max=6.0, bins=60).g, err_msg=name)


def test_rdf_agrees_with_freud():
    freud = pytest.importorskip("freud")
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * 3
    salt.rattle(0.3, seed=0)
    compute = freud.density.RDF(bins=40, r_max=6.0)
    sodium, chlorine = (salt.positions[salt.numbers == z] for z in (11, 17))
    box = freud.box.Box.cube(3 * 5.64)
    compute.compute((box, box.wrap(chlorine)), query_points=box.wrap(sodium))
    found = partial_rdfs(salt, r_max=6.0, bins=40)["Cl-Na"].g
    exact = 4 / 3 * np.pi * np.diff(compute.bin_edges**3)
    np.testing.assert_allclose(found[5:], compute.rdf[5:], rtol=0.02, atol=0.02)
    assert exact.shape == found.shape


def test_a_bond_that_creeps_is_found():
    ethanol = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    frames = []
    for k in range(200):
        frame = ethanol.copy()
        frame.positions += 0.02 * rng.standard_normal((9, 3))
        direction = ethanol.positions[3] - ethanol.positions[2]
        frame.positions[3] += 0.1 * (k / 200) * direction / np.linalg.norm(direction)
        frames.append(frame)
    result = bond_drift(frames, ethanol)
    worst = int(np.argmax(np.abs(result.change_A)))
    assert "3" in result.names[worst] and result.change_A[worst] == pytest.approx(0.05, abs=0.01)
    assert result.change_A[worst] > 4 * result.error_A[worst] and result.names[worst] in repr(result)
    with pytest.raises(InputError, match="eight in all"):
        bond_drift(frames[:5], ethanol)
    # In a box that cuts the molecule, by the nearest images.
    for frame in (boxed := [frame.copy() for frame in frames]):
        frame.set_cell([9.0, 9.0, 9.0])
        frame.pbc = True
        frame.wrap()
    np.testing.assert_allclose(bond_drift(boxed, ethanol).mean_A, result.mean_A, atol=1e-9)


def test_a_slab_without_a_cell_vector_where_it_is_open():
    """As ASE builds it; a list by cells needs some vector there."""
    slab = fcc111("Cu", (3, 3, 4))
    assert not slab.cell[2].any()
    roomy = slab.copy()
    roomy.center(vacuum=8.0, axis=2)
    assert closest_approach(slab).ratio == pytest.approx(closest_approach(roomy).ratio)
    one, other = (np.sort(pairs_within(atoms, 5.0)[2]) for atoms in (slab, roomy))
    np.testing.assert_allclose(one, other)
