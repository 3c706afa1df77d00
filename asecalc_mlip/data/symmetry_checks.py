"""Do forces and stresses have the symmetry of their crystals?

Where an operation of the space group takes atom a to atom b, the force on b is that on a, turned. Relaxed crystals have
such operations, structures of dynamics have none. Needs spglib; without it nothing is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms

from asecalc_mlip.data.plausibility import Found, Problem

__all__ = ["check_symmetry"]

MOST_FRAMES, MOST_ATOMS, LEAST_FRAMES = 200, 100, 6
TOLERANCE = 1e-3  # Å, within which atoms take the place of others
SMALL = 0.03  # eV/Å, typical force of a frame; below it forces are what a calculation leaves
# Relative violation: in real sets it is below 0.16 in nine of ten crystals, and 0.00 in half of them.
BROKEN, MOST_BROKEN = 0.5, 0.5


def check_symmetry(frames: Sequence[Atoms]) -> Found:
    """Look for forces that break the symmetry of their crystals, in most of these."""
    broken = [_violation(atoms) for atoms in _some(frames)]
    judged = [value for value in broken if value is not None]
    if len(judged) < LEAST_FRAMES or np.mean(np.array(judged) > BROKEN) < MOST_BROKEN:
        return [], []
    text = (
        f"in {int(np.sum(np.array(judged) > BROKEN))} of {len(judged)} symmetric crystals the forces do not have the "
        "symmetry of the structure: are they those of other frames, of atoms in another order, or in other axes?"
    )
    return [Problem("forces", text)], []


def _some(frames: Sequence[Atoms]) -> Iterator[Atoms]:
    usable = [a for a in frames if a.pbc.all() and 1 < len(a) <= MOST_ATOMS and "forces" in a.arrays]
    order = np.random.default_rng(0).permutation(len(usable))
    large = (usable[k] for k in order[:MOST_FRAMES])
    return (a for a in large if np.sqrt(np.mean(a.arrays["forces"] ** 2)) > SMALL)


def _violation(atoms: Atoms) -> float | None:
    """Rms of what the operations change of the forces, over the rms of the forces; None where there are none."""
    try:
        import spglib
    except ImportError:
        return None
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # it would print
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    found = spglib.get_symmetry(cell, symprec=TOLERANCE)
    if found is None or len(found["rotations"]) < 2:
        return None
    forces = atoms.arrays["forces"]
    off, moved = 0.0, 0
    lattice = atoms.cell.array.T
    inverse = np.linalg.inv(lattice)
    for rotation, shift in zip(found["rotations"][1:13], found["translations"][1:13], strict=True):
        target = _image(cell[1], rotation, shift)
        if target is None:
            continue
        turned = forces @ (lattice @ rotation @ inverse).T
        off, moved = off + float(np.mean((forces[target] - turned) ** 2)), moved + 1
    return float(np.sqrt(off / moved / np.mean(forces**2))) if moved else None


def _image(points: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray | None:
    """Which atom each atom takes the place of."""
    d = (points @ rotation.T + shift)[:, None] - points
    d -= d.round()
    target = np.abs(d).max(axis=-1).argmin(axis=1)
    return target if len(set(target.tolist())) == len(target) else None
