"""Wells of isolated dimers beside those of density functional theory."""

import numpy as np
import pytest

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.probes import compare_dimers, diatomic_curve, dimer_table, reference_dimers
from tests.probes.toys import Pair

# methods.md, section 6: H–H −4.4 eV at 0.75 Å and so on.
KNOWN = {"H-H": (0.75, 4.4), "C-C": (1.30, 6.9), "C-O": (1.15, 11.8), "O-O": (1.20, 6.0), "H-O": (1.0, 4.6),
         "H-C": (1.15, 3.6)}  # fmt: skip


def test_the_table_has_the_wells_that_are_known():
    for pair, (at, depth) in KNOWN.items():
        found = reference_dimers()[pair].minimum()
        assert found[0] == pytest.approx(at, abs=0.05) and -found[1] == pytest.approx(depth, abs=0.45), pair


def test_forces_of_the_table_are_the_slopes_of_its_energies():
    """Inside the wells the mean force is the slope of the energies; further out spin states cross."""
    for pair, (at, _) in KNOWN.items():
        curve = reference_dimers()[pair]
        inner = (curve.distances_A > 0.6 * at) & (curve.distances_A < at)
        x, e, f = curve.distances_A[inner], curve.energies_eV[inner], curve.forces_eV_per_A[inner]
        work = -0.5 * (f[1:] + f[:-1]) * np.diff(x)
        assert np.allclose(np.diff(e), work, rtol=0.2, atol=0.2), pair


def test_a_curve_of_the_right_well_agrees():
    def well(r):
        e = np.exp(-1.9 * (r - 0.75))
        return 4.43 * ((1.0 - e) ** 2 - 1.0), 2.0 * 4.43 * 1.9 * (1.0 - e) * e

    (found,) = compare_dimers([diatomic_curve(Pair(well), "H", "H")])
    assert found.agrees and found.depth_eV == pytest.approx(4.43, abs=0.05)
    assert "1 of 1 wells" in dimer_table([found])
    # Another element, another table; and a well elsewhere is another well.
    assert not compare_dimers([diatomic_curve(Pair(well), "Si", "O")])
    assert not compare_dimers([diatomic_curve(Pair(well), "C", "O")])[0].agrees


def test_the_shipped_molecule_has_the_bonds_of_isolated_dimers():
    calc = PIWSLCalculator.load("aspirin.pt", device="cpu")
    found = compare_dimers([diatomic_curve(calc, *pair) for pair in (("C", "O"), ("H", "H"))])
    assert [one.pair for one in found] == ["C-O", "H-H"] and all(one.agrees for one in found)
