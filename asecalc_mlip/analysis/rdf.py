"""Radial distribution functions of periodic systems, total and partial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from asecalc_mlip.analysis.distances import bin_edges
from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.pairs import pairs_within


@dataclass(frozen=True, repr=False)
class RDF:
    """Radial distribution function g(r), averaged over frames.

    Attributes
    ----------
    edges : (bins + 1,) array
        Å.
    g : (bins,) array
        Without unit; tends to 1 in a liquid.
    pair : (str, str) or None
        The two chemical symbols, or None for all atoms.
    n_frames : int
        Number of frames.
    """

    edges: np.ndarray
    g: np.ndarray
    pair: tuple[str, str] | None
    n_frames: int

    @property
    def r(self) -> np.ndarray:
        """Bin centres in Å, shape (bins,)."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    def error(self, reference: RDF) -> float:
        """Return ∫|g − g_ref| dr in Å."""
        if self.edges.shape != reference.edges.shape or not np.allclose(self.edges, reference.edges):
            raise InputError("the two g(r) have different bins: use the same bins and r_max for both")
        return float(np.sum(np.abs(self.g - reference.g) * np.diff(self.edges)))

    def error_percent(self, reference: RDF) -> float:
        """Return 100 · ∫|g − g_ref| dr / ∫|g_ref − 1| dr."""
        structure = float(np.sum(np.abs(reference.g - 1.0) * np.diff(reference.edges)))
        if structure == 0.0:
            raise InputError("the reference g(r) is 1 everywhere: a percentage of its structure has no meaning")
        return 100.0 * self.error(reference) / structure

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON."""
        return {
            "r_max": float(self.edges[-1]),
            "bins": len(self.g),
            "g": self.g.tolist(),
            "pair": list(self.pair) if self.pair else None,
            "n_frames": self.n_frames,
        }

    @classmethod
    def from_dict(cls, data: dict) -> RDF:
        """Invert `to_dict`; floats come back exactly."""
        g = np.asarray(data["g"], dtype=float)
        pair = (data["pair"][0], data["pair"][1]) if data["pair"] else None
        return cls(bin_edges(len(g), data["r_max"]), g, pair, int(data["n_frames"]))

    def __repr__(self) -> str:
        name = "-".join(self.pair) if self.pair else "all atoms"
        if not self.g.any():
            return f"RDF({name}, {self.n_frames} frames, no pair below {self.edges[-1]:g} Å)"
        peak = int(np.argmax(self.g))
        return (
            f"RDF({name}, {self.n_frames} frames, up to {self.edges[-1]:g} Å, first contact at "
            f"{self.r[np.argmax(self.g > 0)]:.2f} Å, highest peak g = {self.g[peak]:.2f} at {self.r[peak]:.2f} Å)"
        )


def rdf(
    frames: Atoms | Iterable[Atoms],
    pair: tuple[str, str] | None = None,
    *,
    r_max: float = 10.0,
    bins: int = 200,
) -> RDF:
    """Take the radial distribution function, total or of one pair of elements.

    g_ab(r) = V / (N_a N_b) · n_ab(r) / (volume of the shell), with n_ab the number of ordered pairs (an atom of a,
    an atom of b) whose distance falls into the shell. Only a–b pairs count, never a–a or b–b. Periodic images
    count, also an atom's own, so r_max may exceed half the cell.

    Parameters
    ----------
    frames : Atoms or iterable of Atoms
        One `ase.Atoms` or an iterable of them (read one by one), periodic in all three directions.
    pair : (str, str), optional
        Chemical symbols such as ("O", "H"), in either order; None for all atoms.
    r_max : float
        Å.
    bins : int
        Number of equal bins on (0, r_max].

    Raises
    ------
    InputError
        No frames, a system that is not periodic (use `distance_histogram`), or elements that are not there.

    Source: Allen and Tildesley, Computer Simulation of Liquids, 2nd ed., section 8.1.
    """
    if pair is not None and (isinstance(pair, str) or len(pair) != 2):
        raise InputError(f'pair is {pair!r}; two chemical symbols are expected, such as ("O", "H")')
    edges = bin_edges(bins, r_max)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    total, n_frames = np.zeros(bins), 0
    for atoms in [frames] if isinstance(frames, Atoms) else frames:
        _check_periodic(atoms, n_frames)
        counts, n_a, n_b = _ordered_pairs(atoms, pair, edges)
        total += counts * atoms.get_volume() / (n_a * n_b * shells)
        n_frames += 1
    if n_frames == 0:
        raise InputError("there is no frame to take an RDF from: give at least one")
    return RDF(edges, total / n_frames, (pair[0], pair[1]) if pair else None, n_frames)


def partial_rdfs(
    frames: Atoms | Iterable[Atoms], *, r_max: float = 10.0, bins: int = 200, total: bool = True
) -> dict[str, RDF]:
    """Take all radial distribution functions of a system at once, with one neighbour list per frame.

    Frames may differ in composition; a pair is averaged over the frames that have both of its elements.

    Parameters
    ----------
    frames, r_max, bins : Atoms or iterable of Atoms, float, int
        As for `rdf`.
    total : bool
        Whether the function of all atoms is among them, as "all".

    Returns
    -------
    dict of RDF by name: "all", and the pairs in alphabetical order such as "O-O", "O-Si", "Si-Si".

    Raises
    ------
    InputError
        As for `rdf`.
    """
    edges = bin_edges(bins, r_max)
    sums: dict[str, np.ndarray] = {}
    frames_of: dict[str, int] = {}
    number = -1
    for number, atoms in enumerate([frames] if isinstance(frames, Atoms) else frames):
        _check_periodic(atoms, number)
        i, j, d = pairs_within(atoms, float(edges[-1]))
        for name, g in frame_rdfs(atoms, i, j, d, edges, total=total).items():
            sums[name] = sums.get(name, 0.0) + g
            frames_of[name] = frames_of.get(name, 0) + 1
    if number < 0:
        raise InputError("there is no frame to take an RDF from: give at least one")
    ordered = sorted(sums, key=lambda name: (name != "all", name))
    return {name: RDF(edges, sums[name] / frames_of[name], split_name(name), frames_of[name]) for name in ordered}


def frame_rdfs(
    atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray, edges: np.ndarray, *, total: bool = True
) -> dict[str, np.ndarray]:
    """Take g(r) of one frame by name, each a (bins,) array, from its neighbour list.

    The list has ordered pairs i, j at distance d, Å; pairs beyond the last edge are left out, so it may be longer. The
    names are those of `partial_rdfs`.
    """
    bins = len(edges) - 1
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3) / atoms.get_volume()
    species, kind = np.unique(atoms.numbers, return_inverse=True)
    n, n_of = len(species), np.bincount(kind)
    inside = d <= edges[-1]
    index = np.minimum((d[inside] * (bins / edges[-1])).astype(np.int64), bins - 1)
    flat = (kind[i[inside]] * n + kind[j[inside]]) * bins + index
    counts = np.bincount(flat, minlength=n * n * bins).reshape(n, n, bins)
    found = {"all": counts.sum((0, 1)) / (len(atoms) ** 2 * shells)} if total else {}
    for a in range(n):
        for b in range(n):
            first, second = chemical_symbols[species[a]], chemical_symbols[species[b]]
            if first <= second:
                found[f"{first}-{second}"] = counts[a, b] / (n_of[a] * n_of[b] * shells)
    return found


def split_name(name: str) -> tuple[str, str] | None:
    """Return the two symbols of a name such as "O-Si"; None for "all"."""
    if name == "all":
        return None
    first, second = name.split("-")
    return first, second


def _ordered_pairs(atoms: Atoms, pair, edges: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Histogram of ordered a–b pairs, and the numbers of atoms of a and of b."""
    i, j, d = pairs_within(atoms, float(edges[-1]))
    if pair is None:
        return np.histogram(d, edges)[0], len(atoms), len(atoms)
    is_a, is_b = (atoms.numbers == _number(symbol, atoms) for symbol in pair)
    return np.histogram(d[is_a[i] & is_b[j]], edges)[0], int(is_a.sum()), int(is_b.sum())


def _number(symbol: str, atoms: Atoms) -> int:
    number = atomic_numbers.get(symbol)
    if number is None or number not in atoms.numbers:
        present = ", ".join(sorted(set(atoms.get_chemical_symbols())))
        raise InputError(f"there is no {symbol!r} in the frame; its elements are {present}")
    return number


def _check_periodic(atoms: Atoms, number: int) -> None:
    if len(atoms) == 0:
        raise InputError(f"frame {number} has no atoms")
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError(
            f"frame {number} is not periodic in all three directions, so it has no density and no g(r): "
            "use distance_histogram for a molecule"
        )
