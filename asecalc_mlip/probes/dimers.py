"""Isolated dimers of H, C, O by density functional theory, to compare the wells of a model with.

The table, dimers.json, is of PBE/def2-SVP, the level of rMD17: at each distance the lowest of all spin states and of a
broken-symmetry one, by PySCF, relative to the isolated atoms. `asecalc data atoms H C O --dimers 30` makes such curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from scipy.interpolate import CubicHermiteSpline

from asecalc_mlip.files import read_json
from asecalc_mlip.probes.diatomic import DiatomicCurve
from asecalc_mlip.teachers.structures import ATOM, DIMER

__all__ = [
    "DEPTH_eV",
    "LEVEL",
    "POSITION_A",
    "DimerDifference",
    "compare_dimers",
    "dimer_table",
    "is_known_well",
    "reference_dimers",
    "reference_frames",
]

LEVEL = "PBE/def2-SVP"
# eV and Å; a well within these of the table counts as right.
DEPTH_eV, POSITION_A = 1.0, 0.1
TABLE = Path(__file__).with_name("dimers.json")
STEP = 0.001  # Å, of the grid on which the minimum is looked for


@dataclass(frozen=True)
class ReferenceDimer:
    """Curve of an isolated dimer: distances in Å, energies in eV less those of the atoms, forces in eV/Å."""

    distances_A: np.ndarray
    energies_eV: np.ndarray
    forces_eV_per_A: np.ndarray

    def minimum(self) -> tuple[float, float]:
        """Return where the well is, Å, and its energy, eV, from energies and forces at the distances."""
        curve = CubicHermiteSpline(self.distances_A, self.energies_eV, -self.forces_eV_per_A)
        grid = np.arange(self.distances_A[0], self.distances_A[-1], STEP)
        energies = curve(grid)
        return float(grid[energies.argmin()]), float(energies.min())


def reference_frames() -> list[Atoms]:
    """Return isolated atoms and dimers of the table as labelled frames: total energies in eV, forces in eV/Å."""
    atoms = read_json(TABLE)["atoms_eV"]
    frames = [_frame([symbol], [0.0], energy, [0.0]) for symbol, energy in atoms.items()]
    for pair, curve in reference_dimers().items():
        a, b = pair.split("-")
        for r, energy, force in zip(curve.distances_A, curve.energies_eV, curve.forces_eV_per_A, strict=True):
            frames.append(_frame([a, b], [0.0, r], energy + atoms[a] + atoms[b], [-force, force]))
    return frames


@dataclass(frozen=True)
class DimerDifference:
    """Well of a model beside that of the table.

    Attributes
    ----------
    pair : str
    minimum_A, depth_eV : float
        Of the model: where its lowest energy beyond half of the position in the table is, and how much below that of
        separated atoms; 0 where there is no well.
    dft_minimum_A, dft_depth_eV : float
        Of the table.
    """

    pair: str
    minimum_A: float
    depth_eV: float
    dft_minimum_A: float
    dft_depth_eV: float

    @property
    def agrees(self) -> bool:
        """Whether the depth is within 1 eV and the position within 0.1 Å."""
        return _agree((self.minimum_A, self.depth_eV), (self.dft_minimum_A, self.dft_depth_eV))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {**asdict(self), "agrees": self.agrees}


@lru_cache(maxsize=1)
def reference_dimers() -> dict[str, ReferenceDimer]:
    """Return the curves of the table by pair, such as "C-O"; lighter element first."""
    return {
        pair: ReferenceDimer(*(np.array(row[key]) for key in ("distances_A", "energies_eV", "forces_eV_per_A")))
        for pair, row in read_json(TABLE)["dimers"].items()
    }


def is_known_well(symbols: tuple[str, str], position_A: float, depth_eV: float) -> bool:
    """Return whether the table has a well there, of about that depth below separated atoms."""
    known = _known(symbols)
    if known is None:
        return False
    at, energy = known.minimum()
    return _agree((position_A, depth_eV), (at, -energy))


def compare_dimers(curves: Sequence[DiatomicCurve]) -> list[DimerDifference]:
    """Compare the wells of curves with those of the table, for the pairs that it has.

    Parameters
    ----------
    curves : sequence of DiatomicCurve
        On a grid that ends where the atoms are separated.
    """
    found = []
    for curve in curves:
        known = _known(curve.symbols)
        if known is None:
            continue
        at, energy = known.minimum()
        # A hole at short distance is another matter, and flagged.
        beyond = curve.distances_A > 0.5 * at
        distances, energies = curve.distances_A[beyond], curve.energies_eV[beyond]
        lowest = int(energies.argmin())
        depth = max(0.0, -float(energies[lowest]))
        found.append(DimerDifference(curve.pair, float(distances[lowest]), depth, at, -energy))
    return found


def dimer_table(differences: Sequence[DimerDifference]) -> str:
    """Return the comparison as text."""
    right = sum(one.agrees for one in differences)
    lines = [
        f"isolated dimers against {LEVEL}: {right} of {len(differences)} wells within {DEPTH_eV:g} eV and "
        f"{POSITION_A:g} Å (lowest points from half of the bond length of DFT to the far end)",
        f"  {'pair':<7}{'min Å':>7}{'DFT':>7}{'depth eV':>10}{'DFT':>7}",
    ]
    lines += [
        f"  {d.pair:<7}{d.minimum_A:>7.2f}{d.dft_minimum_A:>7.2f}{d.depth_eV:>10.2f}{d.dft_depth_eV:>7.2f}"
        for d in differences
    ]
    return "\n".join(lines)


def _known(symbols: tuple[str, str]) -> ReferenceDimer | None:
    table = reference_dimers()
    return table.get("-".join(symbols)) or table.get("-".join(reversed(symbols)))


def _agree(well: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(well[0] - other[0]) <= POSITION_A and abs(well[1] - other[1]) <= DEPTH_eV


def _frame(symbols: Sequence[str], places: Sequence[float], energy: float, forces: Sequence[float]) -> Atoms:
    atoms = Atoms(symbols, [[0.0, 0.0, z] for z in places])
    atoms.info |= {"energy": float(energy), "config_type": DIMER if len(symbols) > 1 else ATOM}
    atoms.arrays["forces"] = np.array([[0.0, 0.0, force] for force in forces])
    return atoms
