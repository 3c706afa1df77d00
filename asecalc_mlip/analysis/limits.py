r"""How close may two atoms come? A limit for each pair of elements, from the closest approach in the training data.

Two atoms meet at the distance at which their repulsion takes up what heat gives them. A repulsive wall
:math:`U \propto r^{-n}` (Born's law; :math:`n` is 5 to 12, of most pairs about 8) and an energy in proportion to the
temperature give the closest approach at a temperature :math:`T`, if it was :math:`r_0` in data of :math:`T_0`:

.. math:: r(T) = r_0 \, (T_0 / T)^{1/n}

======================  ======================  =======================================================================
symbol                  variable                value
======================  ======================  =======================================================================
:math:`n`               ``BORN_EXPONENT``       8
r / r_0 at equal T      ``SAMPLING``            0.85: a run sees more frames than the data have, so it comes closer; of
                                                10 sets of thermal data the whole comes to 0.89 or more of the closest
                                                approach of 10 of its frames
the lowest              ``LOWEST``              0.6
unknown :math:`T_0`     ``UNKNOWN``             0.7: hot frames of Li and Si come to 0.72 and 0.80 of the closest
                                                approach in the coldest, nearly relaxed, 30
======================  ======================  =======================================================================

No limit is below 0.6 of the sum of the covalent radii (`COLLAPSE`), which is the limit where no data are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

COLLAPSE = 0.6  # of R_cov,i + R_cov,j
BORN_EXPONENT = 8.0
SAMPLING = 0.85
LOWEST = 0.6
UNKNOWN = 0.7


def contact_factor(temperature_K: float, data_K: float | None) -> float:
    """Return the share of the closest approach in the data that a sound run at a temperature keeps.

    Parameters
    ----------
    temperature_K : float
        Of the run, K.
    data_K : float or None
        Highest temperature of the data, K; None: not known.
    """
    if data_K is None or data_K <= 0.0:
        return UNKNOWN
    return max(LOWEST, SAMPLING * min(1.0, (data_K / temperature_K) ** (1.0 / BORN_EXPONENT)))


@dataclass(frozen=True)
class ContactLimits:
    """Shortest allowed distance of each pair of elements of a system.

    Attributes
    ----------
    numbers : (n_elements,) array of int
        Atomic numbers, sorted.
    closest : dict of str to float
        Closest approach in the data by pair, Å: {"O-Si": 1.46}; pairs that are not in it have the covalent limit.
    data_K : float or None
        Highest temperature of the data, K.
    excused : dict of str to float
        Pairs that are closer at the start than the data allow, and their distance there, Å; they have the covalent
        limit.
    """

    numbers: np.ndarray
    closest: dict[str, float] = field(default_factory=dict)
    data_K: float | None = None
    excused: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, atoms: Atoms, closest: Mapping[str, float], data_K: float | None = None) -> ContactLimits:
        """Make the limits of the elements of a structure."""
        numbers = np.unique(atoms.numbers)
        names = {pair_name(a, b) for a in numbers for b in numbers}
        return cls(numbers, {name: float(d) for name, d in closest.items() if name in names}, data_K)

    def excusing(self, start: Mapping[str, float], temperature_K: float) -> ContactLimits:
        """Return limits that let a start structure with these shortest distances (Å by pair) pass."""
        limits = self.by_pair(temperature_K)
        excused = {pair: d for pair, d in start.items() if pair in self.closest and d < limits[pair]}
        closest = {pair: d for pair, d in self.closest.items() if pair not in excused}
        return ContactLimits(self.numbers, closest, self.data_K, excused)

    def factor(self, temperature_K: float) -> float:
        """Return the share of the closest approach in the data that is allowed at a temperature."""
        return contact_factor(temperature_K, self.data_K)

    def table(self, temperature_K: float) -> np.ndarray:
        """Return the limits in Å, (n_elements, n_elements), in the order of `numbers`."""
        radii = covalent_radii[self.numbers]
        table = COLLAPSE * (radii[:, None] + radii)
        factor = self.factor(temperature_K)
        for a, first in enumerate(self.numbers):
            for b, second in enumerate(self.numbers):
                table[a, b] = max(table[a, b], factor * self.closest.get(pair_name(first, second), 0.0))
        return table

    def by_pair(self, temperature_K: float) -> dict[str, float]:
        """Return the limits in Å by name of the pair, in alphabetical order."""
        table = self.table(temperature_K)
        found = {
            pair_name(first, second): float(table[a, b])
            for a, first in enumerate(self.numbers)
            for b, second in enumerate(self.numbers)
        }
        return dict(sorted(found.items()))

    def rule(self, pair: str, temperature_K: float) -> str:
        """Say where the limit of a pair comes from."""
        limit, known = self.by_pair(temperature_K)[pair], self.closest.get(pair)
        factor = self.factor(temperature_K)
        if known is None or limit > factor * known:
            return f"{COLLAPSE:g} of the sum of their covalent radii"
        return f"{factor:.2f} of their closest approach in the training data, {known:.2f} Å"


def pair_name(first: int, second: int) -> str:
    """Name a pair of atomic numbers by symbols in alphabetical order: "O-Si"."""
    a, b = sorted((chemical_symbols[first], chemical_symbols[second]))
    return f"{a}-{b}"
