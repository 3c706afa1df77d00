"""First shells of neighbours: how many atoms of one element are around one of another, in frames of a solid or liquid.

The number changes little with temperature and density, where g(r) changes much, so it tells a broken network or a
clot of atoms from a hot crystal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from asecalc_mlip.analysis.rdf import RDF
from asecalc_mlip.neighbors.pairs import pairs_within

__all__ = ["shell_cutoff", "shell_numbers", "shells_of"]

# A first shell is one that g(r) sets apart: at its outer edge g(r) is at most this share of the peak.
DEPTH = 0.25
# The edge is looked for between the first peak and so many times its distance.
REACH = 1.6
# Of fewer neighbours on average, the number in a small cell is chance.
FEWEST = 1.0


def shells_of(frames: Iterable[Atoms], rdfs: Mapping[str, RDF]) -> dict[str, dict[str, float]]:
    """Find the first shells of some frames, and how far the numbers of neighbours range.

    Parameters
    ----------
    frames : iterable of Atoms
        Periodic structures.
    rdfs : mapping of RDF
        Their partial g(r) by name of the pair: "O-Si".

    Returns
    -------
    dict of dict
        By pair: `cutoff`, the outer edge of the shell, Å; `low` and `high`, the smallest and the largest mean number
        of neighbours of the second element around one of the first, in any frame. Pairs without a clear shell, or
        with fewer than one neighbour, are left out.
    """
    cutoffs = {name: edge for name, g in rdfs.items() if name != "all" and (edge := shell_cutoff(g)) is not None}
    found: dict[str, list[float]] = {}
    if cutoffs:
        for atoms in frames:
            for name, number in shell_numbers(atoms, *pairs_within(atoms, max(cutoffs.values())), cutoffs).items():
                found.setdefault(name, []).append(number)
    return {
        name: {"cutoff": cutoffs[name], "low": min(numbers), "high": max(numbers)}
        for name, numbers in found.items()
        if np.mean(numbers) >= FEWEST
    }


def shell_cutoff(g: RDF) -> float | None:
    """Return the outer edge of the first shell of g(r) in Å, its first deep minimum; None where there is none."""
    smooth = np.convolve(g.g, np.ones(3) / 3.0, mode="same")
    high = np.flatnonzero(smooth > 1.0)
    if len(high) == 0:
        return None
    first = int(high[0])
    peak = first + int(np.argmax(smooth[first : int(1.25 * first) + 2]))
    end = int(REACH * peak) + 1
    if end > len(smooth):
        return None
    edge = peak + int(np.argmin(smooth[peak:end]))
    if smooth[edge] > DEPTH * smooth[peak]:
        return None
    level = np.flatnonzero(smooth[peak:end] <= smooth[edge] + 1e-9) + peak  # an empty gap has many minima
    return float(g.r[int(level.mean())])


def shell_numbers(
    atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray, cutoffs: Mapping[str, float]
) -> dict[str, float]:
    """Count neighbours in one frame: mean number of the second element of each pair around one of the first.

    Parameters
    ----------
    atoms : Atoms
    i, j, d : arrays
        All directed pairs within the largest cutoff (Å), as `pairs_within` gives them.
    cutoffs : mapping
        Outer edge of the shell by pair, Å; pairs whose elements are not there are left out.
    """
    species, kind = np.unique(atoms.numbers, return_inverse=True)
    place = {int(number): k for k, number in enumerate(species)}
    edges, n = np.zeros((len(species), len(species))), len(species)
    present = {}
    for name, cutoff in cutoffs.items():
        a, b = (place.get(atomic_numbers[symbol]) for symbol in name.split("-"))
        if a is not None and b is not None:
            edges[a, b] = cutoff
            present[name] = (a, b)
    code = kind[i] * n + kind[j]
    counts = np.bincount(code[d < edges.ravel()[code]], minlength=n * n).reshape(n, n)
    size = np.bincount(kind)
    return {name: float(counts[a, b] / size[a]) for name, (a, b) in present.items()}
