"""Scans of a molecule along a bond, an angle or a dihedral: energy and the force along the way.

Scans are rigid: what hangs on the far side of the bond moves as one piece. The generalised force of a coordinate q
is Q = Σ_k F_k · ∂r_k/∂q over the atoms that move, in eV/Å for bonds and eV/degree for angles; of a conservative model
it is −dE/dq.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.fragments import far_side, in_ring
from asecalc_mlip.probes.single_points import energies_and_forces, model_name

__all__ = ["Scan", "angle_scan", "bond_scan", "dihedral_scan"]

Kind = Literal["bond", "angle", "dihedral"]


@dataclass(frozen=True, repr=False)
class Scan:
    """Energy along a coordinate of a molecule.

    Attributes
    ----------
    kind : str
        "bond", "angle" or "dihedral".
    atoms_indices : tuple of int
        The two, three or four atoms that define it.
    symbols : tuple of str
        Of those atoms.
    values : (n,) array
        Å or degrees, ascending.
    energies_eV : (n,) array
        Relative to the structure that was given.
    forces : (n,) array
        Generalised force, eV/Å or eV/degree.
    start : float
        Value in the structure that was given.
    model : str
        Name.
    """

    kind: Kind
    atoms_indices: tuple[int, ...]
    symbols: tuple[str, ...]
    values: np.ndarray
    energies_eV: np.ndarray
    forces: np.ndarray
    start: float
    model: str

    @property
    def unit(self) -> str:
        """Unit of `values`."""
        return "Å" if self.kind == "bond" else "degree"

    @property
    def label(self) -> str:
        """Atoms such as "C0–O3"."""
        return "–".join(f"{s}{i}" for s, i in zip(self.symbols, self.atoms_indices, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        unit = "A" if self.kind == "bond" else "deg"
        return {
            "kind": self.kind,
            "label": self.label,
            "atoms": list(self.atoms_indices),
            "model": self.model,
            f"start_{unit}": self.start,
            f"values_{unit}": self.values.tolist(),
            "energies_eV": self.energies_eV.tolist(),
            f"forces_eV_per_{unit}": self.forces.tolist(),
        }

    def __repr__(self) -> str:
        lowest = int(self.energies_eV.argmin())
        return (
            f"Scan({self.kind} {self.label}, {self.model}: {len(self.values)} points from {self.values[0]:.3g} to "
            f"{self.values[-1]:.3g} {self.unit}, lowest {self.energies_eV[lowest]:+z.4f} eV at "
            f"{self.values[lowest]:.3g}, highest {self.energies_eV.max():+z.3f} eV; the structure has "
            f"{self.start:.4g} {self.unit})"
        )


def bond_scan(
    atoms: Atoms,
    calc: Any,
    i: int,
    j: int,
    *,
    values_A: Sequence[float] | np.ndarray | None = None,
    stretch: tuple[float, float] = (0.6, 1.8),
) -> Scan:
    """Stretch and compress the distance of two atoms; the side of j moves.

    Parameters
    ----------
    atoms : Atoms
        A molecule.
    calc : ASE calculator
    i, j : int
        Bonded or not. Of a ring only j moves, with the atoms that hang on it alone.
    values_A : sequence of float, optional
        Default: every 0.01 Å of `stretch`.
    stretch : (float, float)
        Range in units of the distance.
    """
    _check(atoms, (i, j))
    bond = atoms.get_distance(i, j)
    if not 0 < stretch[0] < stretch[1]:
        raise InputError(f"stretch is {stretch}; give the lower end first, both above 0, such as (0.6, 1.8)")
    steps = np.arange(stretch[0] * bond, stretch[1] * bond, 0.01)
    values = _ascending(steps, "stretch in steps of 0.01 Å") if values_A is None else _ascending(values_A, "values_A")
    moving = far_side(atoms, i, j)
    axis = (atoms.positions[j] - atoms.positions[i]) / bond
    motion = np.zeros((len(atoms), 3))
    motion[moving] = axis
    images = [atoms.positions + (value - bond) * motion for value in values]
    return _scan("bond", atoms, calc, (i, j), values, images, [motion] * len(values), bond)


def angle_scan(
    atoms: Atoms, calc: Any, i: int, j: int, k: int, *, values_deg: Sequence[float] | np.ndarray | None = None
) -> Scan:
    """Bend the angle i–j–k; the side of k turns about j. Default: ±30° of what it is, every degree."""
    _check(atoms, (i, j, k))
    start = float(atoms.get_angle(i, j, k))
    low, high = max(start - 30.0, 1.0), min(start + 30.0, 179.0)
    values = np.arange(low, high + 1e-9, 1.0) if values_deg is None else _ascending(values_deg, "values_deg")
    moving = far_side(atoms, j, k)
    axis = np.cross(atoms.positions[i] - atoms.positions[j], atoms.positions[k] - atoms.positions[j])
    if np.linalg.norm(axis) < 1e-6:
        raise InputError(f"atoms {i}, {j}, {k} lie on a line, so the angle has no plane to bend in; choose others")
    return _turned("angle", atoms, calc, (i, j, k), values, start, moving, axis, j)


def dihedral_scan(
    atoms: Atoms, calc: Any, i: int, j: int, k: int, m: int, *, values_deg: Sequence[float] | np.ndarray | None = None
) -> Scan:
    """Turn about the bond j–k; the side of k turns. Default: once around, every 5 degrees, from the structure on."""
    _check(atoms, (i, j, k, m))
    if in_ring(atoms, j, k):
        raise InputError(f"atoms {j} and {k} are in a ring, which cannot turn rigidly; choose a bond outside of rings")
    start = float(atoms.get_dihedral(i, j, k, m))
    values = start + np.arange(0.0, 361.0, 5.0) if values_deg is None else _ascending(values_deg, "values_deg")
    # get_dihedral counts clockwise seen from j to k, turning about the axis counts so too.
    axis = atoms.positions[k] - atoms.positions[j]
    return _turned("dihedral", atoms, calc, (i, j, k, m), values, start, far_side(atoms, j, k), axis, k)


def _turned(
    kind: Kind,
    atoms: Atoms,
    calc: Any,
    indices: tuple[int, ...],
    values: np.ndarray,
    start: float,
    moving: list[int],
    axis: np.ndarray,
    centre: int,
) -> Scan:
    axis = axis / np.linalg.norm(axis)
    origin = atoms.positions[centre]
    images, motions = [], []
    for value in values:
        turned = atoms.copy()
        part = turned[moving]
        part.rotate(value - start, axis, center=origin)
        positions = atoms.positions.copy()
        positions[moving] = part.positions
        motion = np.zeros_like(positions)
        motion[moving] = np.cross(axis, positions[moving] - origin) * np.pi / 180.0
        images.append(positions)
        motions.append(motion)
    return _scan(kind, atoms, calc, indices, values, images, motions, start)


def _scan(
    kind: Kind,
    atoms: Atoms,
    calc: Any,
    indices: tuple[int, ...],
    values: np.ndarray,
    images: list[np.ndarray],
    motions: list[np.ndarray],
    start: float,
) -> Scan:
    structures = []
    for positions in [*images, atoms.positions]:
        structures.append(atoms.copy())
        structures[-1].positions[:] = positions
    energies, forces = energies_and_forces(calc, structures)
    return Scan(
        kind=kind,
        atoms_indices=indices,
        symbols=tuple(atoms.symbols[n] for n in indices),
        values=values,
        energies_eV=energies[:-1] - energies[-1],
        forces=np.array([(f * motion).sum() for f, motion in zip(forces, motions, strict=False)]),
        start=float(start),
        model=model_name(calc),
    )


def _check(atoms: Atoms, indices: tuple[int, ...]) -> None:
    if atoms.pbc.any():
        raise InputError(f"scans are for molecules; pbc is {atoms.pbc.tolist()}")
    if not all(0 <= n < len(atoms) for n in indices) or len(set(indices)) < len(indices):
        raise InputError(f"atoms {list(indices)}: give different numbers from 0 to {len(atoms) - 1}")


def _ascending(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or not (np.diff(array) > 0).all():
        raise InputError(f"{name} must be two or more numbers, finite and ascending")
    return array
