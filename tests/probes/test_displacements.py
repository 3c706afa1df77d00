"""Random lines through the landscape: against springs in closed form, and a potential that jumps."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes import displacement_scan


class Springs(Calculator):
    """E = ½ k Σ u² around the first positions seen, with a jump of the forces where rms u passes `jump`."""

    implemented_properties = ("energy", "forces")

    def __init__(self, sites, k=3.0, jump=None):
        super().__init__()
        self.sites, self.k, self.jump = sites, k, jump

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        u = atoms.positions - self.sites
        k = self.k if self.jump is None or np.sqrt(np.mean(u**2)) < self.jump else 2.0 * self.k
        self.results = {"energy": 0.5 * self.k * np.sum(u**2), "forces": -k * u}


def test_springs():
    atoms = bulk("Cu", cubic=True)
    found = displacement_scan([atoms, atoms], Springs(atoms.positions), length_A=0.2)
    # ½ k s² for each of three coordinates of each atom; forces linear in s.
    assert found.rise_eV_per_atom == pytest.approx([1.5 * 3.0 * 0.2**2] * 2)
    assert max(found.roughness_eV_per_A) < 1e-10 and max(found.deviation_eV_per_A) < 1e-10
    assert "2 structures" in repr(found) and found.to_dict()["length_A"] == 0.2


def test_a_jump_is_rough_and_not_explained():
    atoms = bulk("Cu", cubic=True)
    found = displacement_scan(atoms, Springs(atoms.positions, jump=0.1), length_A=0.2)
    # The force along the line doubles from k s √(3N) at s = 0.1.
    assert found.roughness_eV_per_A[0] == pytest.approx(3.0 * 0.1 * np.sqrt(12), rel=0.1)
    assert found.deviation_eV_per_A[0] > 0.1


def test_steps_do_not_matter_for_a_smooth_potential():
    atoms = bulk("Cu", cubic=True)
    coarse, fine = (displacement_scan(atoms, EMT(), points=n) for n in (31, 61))
    assert coarse.rise_eV_per_atom == pytest.approx(fine.rise_eV_per_atom)
    assert coarse.roughness_eV_per_A[0] == pytest.approx(4.0 * fine.roughness_eV_per_A[0], rel=0.3)
    assert displacement_scan(atoms, EMT(), seed=1).rise_eV_per_atom != fine.rise_eV_per_atom


@pytest.mark.parametrize("options", [{"length_A": 0.0}, {"points": 2}])
def test_bad_input(options):
    with pytest.raises(InputError, match="expected more than 0"):
        displacement_scan(bulk("Cu"), EMT(), **options)
    with pytest.raises(InputError, match="no structures"):
        displacement_scan([], EMT())
