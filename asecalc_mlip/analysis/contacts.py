"""Neighbours: coordination numbers, and the closest approach of any two atoms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.analysis.frames import as_list, selection
from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.pairs import pairs_within

# Å; no two atoms that touch are further apart.
REACH = 5.0


@dataclass(frozen=True, repr=False)
class Coordination:
    """Numbers of neighbours.

    Attributes
    ----------
    pair : (str, str)
        Element of the centre, element of the neighbours.
    cutoff : float
        Å.
    shares : (n,) array
        Share of the centres with 0, 1, 2, ... neighbours.
    by_frame : (n_frames,) array
        Mean number in each frame.
    """

    pair: tuple[str, str]
    cutoff: float
    shares: np.ndarray
    by_frame: np.ndarray

    @property
    def mean(self) -> float:
        """Mean number of neighbours."""
        return float(np.arange(len(self.shares)) @ self.shares)

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON."""
        return {
            "pair": list(self.pair),
            "cutoff_A": self.cutoff,
            "mean": self.mean,
            "shares": self.shares.tolist(),
            "by_frame": self.by_frame.tolist(),
        }

    def __repr__(self) -> str:
        often = [f"{n}: {100 * s:.0f} %" for n, s in enumerate(self.shares) if s >= 0.005]
        return (
            f"Coordination({self.pair[1]} around {self.pair[0]} within {self.cutoff:g} Å: {self.mean:.3f} on average, "
            f"{', '.join(often)}; {len(self.by_frame)} frames)"
        )


def coordination(frames: Atoms | Iterable[Atoms], pair: tuple[str, str], cutoff: float) -> Coordination:
    """Count neighbours of element pair[1] within `cutoff` Å of each atom of element pair[0].

    Periodic images count; frames are read one by one. The cutoff is usually the first minimum of g(r).

    Raises
    ------
    InputError
        No frames, or elements that are not there.
    """
    if not cutoff > 0:
        raise InputError(f"cutoff must be a positive distance in Å, not {cutoff}")
    counts: np.ndarray = np.zeros(1, dtype=np.int64)
    by_frame = []
    for atoms in as_list(frames):
        centres, others = selection(atoms, pair[0]), np.zeros(len(atoms), dtype=bool)
        others[selection(atoms, pair[1])] = True
        i, j, _ = pairs_within(atoms, cutoff)
        numbers = np.bincount(i[others[j]], minlength=len(atoms))[centres]
        by_frame.append(float(numbers.mean()))
        longer = np.bincount(numbers, minlength=len(counts))
        longer[: len(counts)] += counts
        counts = longer
    if not by_frame:
        raise InputError("there is no frame to count neighbours in: give at least one")
    return Coordination((pair[0], pair[1]), cutoff, counts / counts.sum(), np.array(by_frame))


@dataclass(frozen=True, repr=False)
class ClosestApproach:
    """The two atoms that came closest, measured by the sum of their covalent radii.

    Attributes
    ----------
    ratio : float
        Distance over the sum of the covalent radii; below 0.6 atoms have collapsed.
    distance_A : float
        Å.
    atoms : (int, int)
        The two, counted from 0; the same atom twice if it came close to its own image.
    symbols : (str, str)
        Their elements.
    frame : int
        Number of the frame.
    by_pair : dict of str to float
        Shortest distance in Å of each pair of elements.
    """

    ratio: float
    distance_A: float
    atoms: tuple[int, int]
    symbols: tuple[str, str]
    frame: int
    by_pair: dict[str, float]

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        a, b = (f"{s}{k}" for s, k in zip(self.symbols, self.atoms, strict=True))
        pairs = ", ".join(f"{name} {d:.3f}" for name, d in self.by_pair.items())
        return (
            f"ClosestApproach({a} and {b}, {self.distance_A:.3f} Å = {self.ratio:.2f} of their covalent radii, in "
            f"frame {self.frame}; shortest by pair in Å: {pairs})"
        )


def closest_approach(frames: Atoms | Iterable[Atoms], *, reach: float = 4.0) -> ClosestApproach:
    """Find the closest two atoms of all frames, periodic images included; pairs beyond `reach` Å are not looked at.

    Raises
    ------
    InputError
        No frames, or no pair within `reach`.
    """
    best: tuple[float, float, tuple[int, int], tuple[str, str], int] | None = None
    by_pair: dict[str, float] = {}
    for number, atoms in enumerate(as_list(frames)):
        i, j, d = pairs_within(atoms, reach)
        if len(d) == 0:
            continue
        _shorten(by_pair, atoms, i, j, d)
        symbols = atoms.get_chemical_symbols()
        radii = covalent_radii[atoms.numbers]
        ratio = d / (radii[i] + radii[j])
        k = int(np.argmin(ratio))
        if best is None or ratio[k] < best[0]:
            pair = (int(i[k]), int(j[k]))
            best = (float(ratio[k]), float(d[k]), pair, (symbols[i[k]], symbols[j[k]]), number)
    if best is None:
        raise InputError(f"there are no frames, or no two atoms within {reach:g} Å in any: raise reach")
    return ClosestApproach(*best, by_pair)


def shortest_by_pair(frames: Atoms | Iterable[Atoms], *, reach: float = REACH) -> dict[str, float]:
    """Find the shortest distance of each pair of elements in some structures, periodic images included.

    Parameters
    ----------
    frames : Atoms or iterable of Atoms
        Read one by one.
    reach : float
        Å; pairs that never come closer are left out.

    Returns
    -------
    dict of str to float
        Å, by the two symbols in alphabetical order: "C-H", "O-Si".
    """
    found: dict[str, float] = {}
    for atoms in as_list(frames):
        _shorten(found, atoms, *pairs_within(atoms, reach))
    return dict(sorted(found.items()))


def _shorten(by_pair: dict[str, float], atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> None:
    """Take the pairs of one frame into the shortest distances."""
    kinds, kind = np.unique(atoms.get_chemical_symbols(), return_inverse=True)  # in alphabetical order
    flat = np.minimum(kind[i], kind[j]) * len(kinds) + np.maximum(kind[i], kind[j])
    shortest = np.full(len(kinds) ** 2, np.inf)
    np.minimum.at(shortest, flat, d)
    for code in np.flatnonzero(np.isfinite(shortest)):
        name = f"{kinds[code // len(kinds)]}-{kinds[code % len(kinds)]}"
        by_pair[name] = min(by_pair.get(name, np.inf), float(shortest[code]))
