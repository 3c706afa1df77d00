"""Checks of the structures of a set: cells, contacts of atoms, and frames that come twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial.distance import cdist

from asecalc_mlip.data.labels import broken_cell, frame_name, is_isolated_atom
from asecalc_mlip.data.near import near_copies
from asecalc_mlip.data.plausibility import Found, Problem
from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.pairs import pairs_within

__all__ = ["CLOSE", "check_structures", "closest_contact", "shared_structures"]

# Distances in units of the sum of covalent radii; TiO2 has 0.40, molecules at 1000 K 0.68.
OVERLAP, CLOSE = 0.25, 0.45
# Share of frames that repeat others, above which it is told; sets by random displacement have up to 0.3 %.
MANY_COPIES = 0.01
UNLIKE = 0.01  # eV, between the energies of copies
SMALL = 500  # atoms, of which all distances are computed


def check_structures(frames: Sequence[Atoms]) -> Found:
    """Look for positions that are not finite, cells without volume, atoms on top of each other, and copies."""
    problems: list[Problem] = []
    closest: tuple[float, int] | None = None
    for i, atoms in enumerate(frames):
        if text := _unusable(atoms, frame_name(atoms, i)):
            problems.append(Problem("structure", text, size_only=False))
            continue
        if is_isolated_atom(atoms):
            continue
        try:
            ratio = closest_contact(atoms)
        except InputError as error:
            problems.append(Problem("structure", f"{frame_name(atoms, i)}: {error}", size_only=False))
            continue
        if closest is None or ratio < closest[0]:
            closest = ratio, i
    warnings = [] if problems else _copies(frames)
    if closest and closest[0] < CLOSE:
        ratio, i = closest
        text = f"two atoms of {frame_name(frames[i], i)} are {ratio:.2f} times the sum of their covalent radii apart"
        if ratio < OVERLAP:
            problems.append(Problem("structure", f"{text}: they overlap; check its length unit and its cell"))
        else:
            warnings.append(text)
    return problems, warnings


def closest_contact(atoms: Atoms) -> float:
    """Return the smallest distance over the sum of the covalent radii; infinity where no pair is near."""
    radii = covalent_radii[atoms.numbers]
    # Of a molecule, all distances are the fastest; those of 30 000 atoms would take 20 GB.
    if atoms.pbc.any() or len(atoms) > SMALL:
        reach = 2 * CLOSE * float(radii.max())
        i, j, d = pairs_within(atoms, reach)
        return float(np.min(d / (radii[i] + radii[j]), initial=np.inf))
    distances = cdist(atoms.positions, atoms.positions) / (radii[:, None] + radii[None, :])
    np.fill_diagonal(distances, np.inf)
    return float(np.min(distances, initial=np.inf))


def shared_structures(first: Sequence[Atoms], second: Sequence[Atoms]) -> list[tuple[int, int]]:
    """Return which frames of `second` have the structure of one of `first`: (place in first, place in second)."""
    pairs = near_copies([*first, *second])
    return [(i, j - len(first)) for i, j in pairs if i < len(first) <= j]


def _unusable(atoms: Atoms, name: str) -> str | None:
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return f"positions or cell of {name} are not finite: leave the frame out"
    wrong = broken_cell(atoms)
    return f"{name} {wrong}" if wrong else None


def _copies(frames: Sequence[Atoms]) -> list[str]:
    """Count frames whose structure came before, and say if their energies differ."""
    pairs = near_copies(frames)
    labelled = [(i, j) for i, j in pairs if all("energy" in frames[k].info for k in (i, j))]
    unlike = [(i, j) for i, j in labelled if abs(frames[i].info["energy"] - frames[j].info["energy"]) > UNLIKE]
    if not (unlike or len(pairs) >= MANY_COPIES * len(frames)) or not pairs:
        return []
    i, j = (unlike or pairs)[0]
    text = (
        f"{len(pairs)} frames repeat an earlier structure, e.g. {frame_name(frames[j], j)} that of "
        f"{frame_name(frames[i], i)}; copies in training and test sets make errors look smaller"
    )
    return [text + (f"; {len(unlike)} of them have another energy than the first" if unlike else "")]
