"""Structures that no data set covers, for a teacher to label: isolated atoms and dimers, torn and squeezed bonds."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.errors import InputError

__all__ = ["ATOM", "DIMER", "NEAREST", "isolated_atoms", "isolated_dimers"]

ATOM, DIMER = "IsolatedAtom", "IsolatedDimer"
"""`config_type` of the frames, by which data sets and settings such as ``data.weights`` know them."""
NEAREST = 0.2
"""Shortest distance of a dimer, as a share of the sum of the covalent radii."""


def isolated_atoms(numbers: Collection[int]) -> list[Atoms]:
    """Return one atom of each element, alone."""
    return [Atoms([z], [[0.0, 0.0, 0.0]], info={"config_type": ATOM}) for z in sorted(set(numbers))]


def isolated_dimers(numbers: Collection[int], n: int, longest: float, *, nearest: float = NEAREST) -> list[Atoms]:
    """Return two atoms alone, `n` distances of each two elements.

    The distances are spaced in equal ratios, closer where the energy is steep: from `nearest` times the sum of the
    covalent radii to `longest`.

    Parameters
    ----------
    numbers : collection of int
        Atomic numbers.
    n : int
        Distances of each pair.
    longest : float
        Å.
    nearest : float
        Share of the sum of the covalent radii.

    Raises
    ------
    InputError
        For fewer than no distances, or a range that is none.
    """
    if n < 0:
        raise InputError(f"dimers is {n}; expected 0 or more")
    frames = []
    for a, b in combinations_with_replacement(sorted(set(numbers)), 2):
        shortest = nearest * float(covalent_radii[a] + covalent_radii[b])
        if not 0 < shortest < longest:
            raise InputError(
                f"distances of dimers from {shortest:.2f} to {longest:.2f} Å; the last has to be the larger"
            )
        for distance in np.geomspace(shortest, longest, n).round(4).tolist():
            frames.append(Atoms([a, b], [[0, 0, 0], [0, 0, distance]], info={"config_type": DIMER}))
    return frames
