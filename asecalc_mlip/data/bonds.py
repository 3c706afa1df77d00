"""Checks of structures and forces by what bonds do: neighbours are a bond away, and a stretched bond pulls back.

They find what sizes alone do not tell: positions in Bohr, forces in Hartree, of the opposite sign, or of other atoms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.data.plausibility import ADVICE, Found, Problem
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.neighbors.pairs import vectors_within

__all__ = ["check_bonds"]

MOST_FRAMES = 300  # evenly spread; bonds of more tell no more
REACH = 2.0  # in sums of covalent radii, for the nearest neighbour
FAR = 1.5  # the same; real sets have a median of 0.83 to 1.04, and 1.6 to 2.0 when Å are taken for Bohr
BONDED = 1.25  # the same; further apart two atoms are no bond
NOBLE = (2, 10, 18, 36, 54, 86)
LEAST_BONDS = 100
# Correlation of stretch and pull of bonds to hydrogen: real sets have 0.6 to 0.97.
BACK = 0.3
# eV/Å²; the bonds of hydrogen to C, N, O have 15 to 60 (eight real sets: 31 to 44), in Hartree/Å or Hartree/Bohr 0.3 to
# 2, in kcal/mol/Å 350 to 1400. Forces of this size are usual in kcal/mol where structures are near their minimum.
SOFT, HARD = 4.0, 150.0


def check_bonds(frames: Sequence[Atoms]) -> Found:
    """Look for positions in Bohr, and for forces that have another sign, another unit or another order of atoms."""
    several = [atoms for atoms in frames if len(atoms) > 2 and np.isfinite(atoms.positions).all()]
    some = [several[k] for k in evenly(len(several), MOST_FRAMES)]
    ratios: list[np.ndarray] = []
    bonds: list[np.ndarray] = []
    for atoms, i, j, vectors in _neighbours(some):
        radii = covalent_radii[atoms.numbers]
        d = np.linalg.norm(vectors, axis=1)
        ratio = d / (radii[i] + radii[j])
        nearest = np.full(len(atoms), REACH)
        np.minimum.at(nearest, i, ratio)
        ratios.append(nearest[~np.isin(atoms.numbers, NOBLE)])
        if "forces" in atoms.arrays:
            hydrogen = (atoms.numbers[i] == 1) & np.isin(atoms.numbers[j], (6, 7, 8)) & (ratio < BONDED)
            bonds.append(_pulls(atoms, i[hydrogen], j[hydrogen], d[hydrogen], vectors[hydrogen]))
    problems = _far(ratios)
    found, warnings = _forces(bonds, in_eV="label_factors" not in frames[0].info) if not problems else ([], [])
    return problems + found, warnings


def _neighbours(frames: Sequence[Atoms]) -> Iterator[tuple[Atoms, np.ndarray, np.ndarray, np.ndarray]]:
    for atoms in frames:
        if np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) == atoms.pbc.sum():
            reach = 2 * REACH * float(covalent_radii[atoms.numbers].max())
            yield atoms, *vectors_within(atoms, min(reach, 6.0))


def _pulls(atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Element of the partner, length in Å, and force that drives the two apart in eV/Å, of each bond; (n, 3)."""
    forces = atoms.arrays["forces"]
    apart = 0.5 * np.einsum("ij,ij->i", forces[j] - forces[i], vectors) / np.maximum(d, 1e-9)
    return np.stack([atoms.numbers[j], d, apart], axis=1)


def _far(ratios: Sequence[np.ndarray]) -> list[Problem]:
    nearest = np.concatenate(ratios) if ratios else np.zeros(0)
    if len(nearest) == 0 or not FAR < (middle := float(np.median(nearest))):
        return []
    text = (
        f"a typical atom is {middle:.2f} times the sum of two covalent radii away from its nearest neighbour, which is "
        f"no bond: are the positions in Bohr? Then {ADVICE}"
    )
    return [Problem("structure", text)]


def _forces(bonds: Sequence[np.ndarray], *, in_eV: bool) -> Found:
    """Judge the forces by bonds to hydrogen, which are stiff in every molecule; `in_eV`: read without a factor."""
    table = np.concatenate(bonds) if bonds else np.zeros((0, 3))
    if len(table) < LEAST_BONDS:
        return [], []
    stretch, pull = table[:, 1].copy(), table[:, 2].copy()
    for number in np.unique(table[:, 0]):  # each kind has a length of its own
        same = table[:, 0] == number
        stretch[same] -= stretch[same].mean()
        pull[same] -= pull[same].mean()
    if not (stretch.std() > 1e-3 and np.isfinite(pull).all() and pull.std() > 0):
        return [], []
    back = -float(np.corrcoef(stretch, pull)[0, 1])
    stiffness = -float(stretch @ pull / (stretch @ stretch))
    if back < -BACK:
        text = (
            "the forces drive stretched bonds of hydrogen further apart: they seem to have the opposite sign, as "
            "gradients of the energy have. Multiply them by −1"
        )
        return [Problem("forces", text)], []
    if back < BACK:
        return [], [
            "the forces do not pull stretched bonds of hydrogen back: do they belong to these atoms, in this order?"
        ]
    if SOFT < stiffness < HARD:
        return [], []
    units = "Hartree" if stiffness < SOFT else "kcal/mol or kJ/mol"
    if not in_eV:
        units = "other units than those in which they were read"
    return [], [
        f"bonds of hydrogen have a stiffness of {stiffness:.3g} eV/Å² by these forces, where 15 to 60 are usual: are "
        f"energies and forces in {units}? Then {ADVICE}"
    ]
