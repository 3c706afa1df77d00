"""Unphysical features of a diatomic curve, by name.

    attractive hole           the energy falls inwards at distances where no two atoms are ever bound
    well without data         a well between there and the distances of the training data: it may be a bond. One that
                              DFT has too (isolated dimers of H, C and O) is right and not flagged
    spurious minimum          a second minimum outside of that
    jump or kink at cutoff    energy or force is not continuous there
    jump or kink              the same elsewhere
    non-conservative force    F is not −dE/dr
    not finite                NaN or infinite energies or forces

"Where no two atoms are ever bound" is inside 0.6 times the sum of the covalent radii: the shortest bond for its radii,
that of Cr2 (1.68 Å), is at 0.604. Where the distances of the training data are given, atoms must repel far below them,
and within 0.8 times the sum of the radii: a well outside of that is told by its own name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from scipy.ndimage import maximum_filter, median_filter
from scipy.signal import find_peaks

from asecalc_mlip.analysis.contacts import REACH, shortest_by_pair
from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.diatomic import DiatomicCurve
from asecalc_mlip.probes.dimers import is_known_well

__all__ = ["Flag", "Hole", "attractive_hole", "diatomic_flags", "never_bound", "outstanding", "shortest_distances"]

NEVER_BOUND = 0.6  # of the sum of covalent radii
BOUND = 0.8  # of the sum of covalent radii; from here on a well may be a bond, single or multiple
DEEPEST = 0.02  # eV; a fall or a barrier below this does not hold atoms, at 300 K kT is 0.026 eV
JUMP = 0.001  # eV, over one step
KINK = 0.05  # eV/Å, over one step
# So many times the change over the steps around it makes a change a jump; on a smooth wall they are nearly equal.
OUTSTANDING = 5.0
# Forces count as conservative up to this plus this share of the largest, over so many of the points checked.
DEVIATION, DEVIATION_SHARE, DEVIATION_WINDOW = 0.02, 0.02, 5  # eV/Å, 1, points


@dataclass(frozen=True)
class Flag:
    """One unphysical feature.

    Attributes
    ----------
    name : str
        See the module.
    distance_A : float
        Where it is.
    size : float
        How large, in `unit`.
    unit : str
        "eV" or "eV/Å", or "points".
    text : str
        The same as a sentence.
    """

    name: str
    distance_A: float
    size: float
    unit: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Hole:
    """Attraction at a distance at which atoms must repel.

    Attributes
    ----------
    pair : str
        For example "Si-O".
    below_A : float
        It was looked for below this distance.
    top_A : float
        From here inwards the energy falls.
    bottom_A : float
        Lowest point inside; the first point of the grid where it falls to the end.
    depth_eV : float
        By how much it falls from top to bottom.
    barrier_eV : float
        Energy of the top over the lowest point outside of it, what atoms need to fall in.
    """

    pair: str
    below_A: float
    top_A: float
    bottom_A: float
    depth_eV: float
    barrier_eV: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self)


def never_bound(a: str, b: str) -> float:
    """Return 0.6 times the sum of the covalent radii in Å, inside of which no known bond is."""
    return NEVER_BOUND * float(covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]])


def attractive_hole(curve: DiatomicCurve, below_A: float | None = None, *, deepest_eV: float = DEEPEST) -> Hole | None:
    """Find the deepest fall of the energy inwards at distances below `below_A`, or None where there is none.

    Parameters
    ----------
    curve : DiatomicCurve
    below_A : float, optional
        Å; e.g. 0.8 times the shortest distance of the pair in the training data. Default: `never_bound`.
    deepest_eV : float
        A fall of less than this is none.

    Raises
    ------
    InputError
        For a curve with fewer than two points below that distance, which cannot tell.
    """
    below = never_bound(*curve.symbols) if below_A is None else float(below_A)
    inside = int((curve.distances_A < below).sum())
    if inside < 2:
        raise InputError(
            f"the {curve.pair} curve starts at {curve.distances_A[0]:.2f} Å, so it cannot tell what is below "
            f"{below:.2f} Å: use grid='full'"
        )
    # Of each point: the highest energy between it and the edge, less its own.
    highest = np.maximum.accumulate(curve.energies_eV[:inside][::-1])[::-1]
    falls = highest - curve.energies_eV[:inside]
    bottom = int(falls.argmax())
    if falls[bottom] <= deepest_eV:
        return None
    return _hole(curve, below, bottom)


def diatomic_flags(curve: DiatomicCurve, *, below_A: float | None = None) -> list[Flag]:
    """Find all unphysical features of a curve, each once; an empty list for a good one.

    Holes and the cutoff are judged where the grid reaches them, so prefer curves with grid="full".

    Parameters
    ----------
    curve : DiatomicCurve
    below_A : float, optional
        As for `attractive_hole`.
    """
    below = never_bound(*curve.symbols) if below_A is None else float(below_A)
    found = [
        _not_finite(curve),
        _hole_flag(curve, below),
        _spurious_minimum(curve, below),
        *_jumps(curve),
        _non_conservative(curve),
    ]
    return [flag for flag in found if flag is not None]


def shortest_distances(frames: Iterable[Atoms], *, reach_A: float = REACH) -> dict[tuple[str, str], float]:
    """Find the shortest distance of each pair of elements; `shortest_by_pair` with pairs of symbols as keys.

    Returns
    -------
    dict of (str, str) to float
        Å, by the sorted pair of symbols, such as ("O", "Si"); without pairs that never come closer than `reach_A`.
    """
    found = shortest_by_pair(frames, reach=reach_A)
    pairs = {name: name.split("-") for name in found}
    return {(a, b): found[name] for name, (a, b) in pairs.items()}


def _hole(curve: DiatomicCurve, below: float, bottom: int) -> Hole:
    r, energy = curve.distances_A, curve.energies_eV
    inside = int((r < below).sum())
    top = bottom + int(energy[bottom:inside].argmax())
    while top + 1 < len(r) and energy[top + 1] > energy[top]:  # the top may lie beyond `below`
        top += 1
    outside = float(energy[top:].min())
    depth, barrier = float(energy[top] - energy[bottom]), float(energy[top]) - outside
    return Hole(curve.pair, below, float(r[top]), float(r[bottom]), depth, barrier)


def _hole_flag(curve: DiatomicCurve, below: float) -> Flag | None:
    if (curve.distances_A < below).sum() < 2:
        return None
    hole = attractive_hole(curve, below)
    if hole is None:
        return None
    bound = BOUND / NEVER_BOUND * never_bound(*curve.symbols)
    if hole.bottom_A >= bound:
        inner = attractive_hole(curve, bound) if (curve.distances_A < bound).sum() >= 2 else None
        open_well = inner is None and hole.barrier_eV <= DEEPEST
        if open_well and is_known_well(curve.symbols, hole.bottom_A, -_at(curve, hole.bottom_A)):
            return None
        if inner is None:
            text = (
                f"a well of {hole.depth_eV:.2f} eV at {hole.bottom_A:.2f} Å, closer than {below:.2f} Å, where the "
                "training data have no such pair: it may be a bond, but nothing was learnt about it"
            )
            return Flag("well without data", hole.bottom_A, hole.depth_eV, "eV", text)
        hole = inner
    text = (
        f"inside {hole.top_A:.2f} Å the atoms attract: the energy falls by {hole.depth_eV:.2f} eV to "
        f"{hole.bottom_A:.2f} Å, behind a barrier of {hole.barrier_eV:.2f} eV"
    )
    return Flag("attractive hole", hole.top_A, hole.depth_eV, "eV", text)


def _at(curve: DiatomicCurve, distance: float) -> float:
    return float(np.interp(distance, curve.distances_A, curve.energies_eV))


def _spurious_minimum(curve: DiatomicCurve, below: float) -> Flag | None:
    r, energy = curve.distances_A, curve.energies_eV
    minima, properties = find_peaks(-energy, prominence=DEEPEST)
    outside = r[minima] >= below
    minima, depths = minima[outside], properties["prominences"][outside]
    if len(minima) < 2:
        return None
    deepest = int(energy[minima].argmin())
    others = [k for k in range(len(minima)) if k != deepest]
    worst = max(others, key=lambda k: depths[k])
    text = (
        f"{len(others)} more than the minimum at {r[minima[deepest]]:.2f} Å, the worst at {r[minima[worst]]:.2f} Å, "
        f"{depths[worst]:.3f} eV deep"
    )
    return Flag("spurious minimum", float(r[minima[worst]]), float(depths[worst]), "eV", text)


def _jumps(curve: DiatomicCurve) -> list[Flag]:
    """One flag for what is at the cutoff, one for the worst elsewhere."""
    r, h = curve.distances_A, np.diff(curve.distances_A)
    force = curve.forces_eV_per_A
    # What the forces at both ends of a step do not explain; their own change is judged apart.
    unexplained = np.abs(np.diff(curve.energies_eV) + 0.5 * h * (force[1:] + force[:-1]))
    changes = np.abs(np.diff(force))
    # Over a kink the rule above is off by at most this.
    unexplained = np.maximum(unexplained - 0.5 * h * changes, 0.0)
    jumps = [(float(unexplained[k]), k, "energy", "eV") for k in outstanding(unexplained, JUMP)]
    # Where the energy jumps the force may do too: one thing, told once.
    known = [k for _, k, *_ in jumps]
    kinks = [
        (float(changes[k]), k, "force", "eV/Å")
        for k in outstanding(changes, KINK)
        if all(abs(k - other) > 2 for other in known)
    ]
    at_cutoff: list[tuple] = []
    elsewhere: list[tuple] = []
    for found in jumps + kinks:
        k = found[1]
        near = curve.cutoff_A is not None and r[k] - 2 * h[k] <= curve.cutoff_A <= r[k + 1] + 2 * h[k]
        (at_cutoff if near else elsewhere).append(found)
    flags = []
    for name, group in (("jump or kink at cutoff", at_cutoff), ("jump or kink", elsewhere)):
        if group:
            size, k, what, unit = max(group)
            text = f"the {what} changes by {size:.3g} {unit} between {r[k]:.3f} and {r[k + 1]:.3f} Å"
            flags.append(Flag(name, float(r[k]), size, unit, text))
    return flags


def outstanding(changes: np.ndarray, least: float) -> np.ndarray:
    """Find the steps that change by more than `least`, and by far more than the steps around them."""
    padded = np.pad(changes, 3)
    around = np.max([padded[3 + d : len(padded) - 3 + d] for d in (-3, -2, 2, 3)], axis=0)
    return np.flatnonzero((changes > least) & (changes > OUTSTANDING * around))


def _non_conservative(curve: DiatomicCurve) -> Flag | None:
    r, slope = curve.check_distances_A, curve.check_forces_eV_per_A
    if len(r) < DEVIATION_WINDOW:
        return None
    at = np.searchsorted(curve.distances_A, r)
    force = curve.forces_eV_per_A[at]
    deviation = np.maximum(np.abs(force - slope), curve.stray_forces_eV_per_A[at])
    # The median is blind to what is wrong at one point only, such as a jump, which is another flag.
    allowed = DEVIATION + DEVIATION_SHARE * maximum_filter(np.abs(force), DEVIATION_WINDOW)
    excess = median_filter(deviation, DEVIATION_WINDOW) / allowed
    worst = int(np.nan_to_num(excess).argmax())
    if excess[worst] <= 1.0:
        return None
    text = f"at {r[worst]:.2f} Å the force differs from −dE/dr by {deviation[worst]:.3g} eV/Å"
    return Flag("non-conservative force", float(r[worst]), float(deviation[worst]), "eV/Å", text)


def _not_finite(curve: DiatomicCurve) -> Flag | None:
    if curve.n_not_finite == 0:
        return None
    first = float(curve.distances_A[0])
    text = f"{curve.n_not_finite} points without a finite energy and force; the first good one is at {first:.2f} Å"
    return Flag("not finite", first, float(curve.n_not_finite), "points", text)
