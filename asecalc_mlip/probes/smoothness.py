"""Is the landscape smooth along every bond of a molecule? A probe of seconds, before a dynamics of hours.

Every bond is stretched and compressed rigidly, and along the way counted: jumps of the energy and kinks of the force,
minima besides the bond itself, forces that pull a compressed bond together or push a stretched one apart, and forces
that are not the derivative of the energy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from scipy.signal import find_peaks

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.diatomic_flags import DEEPEST, JUMP, KINK, outstanding
from asecalc_mlip.probes.fragments import bonds_of, in_ring
from asecalc_mlip.probes.scans import Scan, bond_scan
from asecalc_mlip.probes.single_points import model_name

__all__ = ["BondStretch", "SmoothnessReport", "bond_smoothness", "judge_stretch"]

STEP = 0.01  # Å
LONGEST_WRONG_WAY = 2 * STEP  # Å; a smooth bond has no more
WRONG_WAY = 0.1  # eV/Å; noise of a force that is near zero is no wrong sign


@dataclass(frozen=True)
class BondStretch:
    """Findings along one bond.

    Attributes
    ----------
    label : str
        Such as "C0–O3".
    bond_A : float
        Its length in the structure.
    jumps : int
        Number of steps over which energy or force are not continuous.
    spurious_minima : int
        Minima besides the lowest.
    wrong_way_A : float
        Length of the scan over which the force has the wrong sign: attraction inside, repulsion outside.
    hole_eV : float
        How far the energy falls on compression, 0 where it rises all the way.
    deviation_eV_per_A : float
        Mean |F + dE/dr|, differences of the grid among it.
    """

    label: str
    bond_A: float
    jumps: int
    spurious_minima: int
    wrong_way_A: float
    hole_eV: float
    deviation_eV_per_A: float

    @property
    def smooth(self) -> bool:
        """Whether nothing was found."""
        return not (
            self.jumps or self.spurious_minima or self.wrong_way_A > LONGEST_WRONG_WAY + 1e-9 or self.hole_eV > DEEPEST
        )


@dataclass(frozen=True, repr=False)
class SmoothnessReport:
    """Answer of `bond_smoothness`.

    Attributes
    ----------
    bonds : list of BondStretch
        One `BondStretch` for each bond.
    scans : list of Scan
        The curves themselves.
    stretch : (float, float)
        The range in bond lengths.
    score : float
        Share of bonds that are smooth, 1 for a good landscape.
    formula, model : str
        Names.
    """

    bonds: list[BondStretch]
    scans: list[Scan]
    stretch: tuple[float, float]
    score: float
    formula: str
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        bonds = [{**asdict(bond), "smooth": bond.smooth} for bond in self.bonds]
        scans = [scan.to_dict() for scan in self.scans]
        plain = {"score": self.score, "stretch": list(self.stretch), "formula": self.formula, "model": self.model}
        return plain | {"bonds": bonds, "scans": scans}

    def __repr__(self) -> str:
        worst = sorted((b for b in self.bonds if not b.smooth), key=lambda b: -b.hole_eV)
        lines = [
            f"{self.formula}, {self.model}: {100 * self.score:.0f} % of {len(self.bonds)} bonds smooth from "
            f"{self.stretch[0]:g} to {self.stretch[1]:g} bond lengths; jumps {sum(b.jumps for b in self.bonds)}, "
            f"spurious minima {sum(b.spurious_minima for b in self.bonds)}, deepest hole "
            f"{max((b.hole_eV for b in self.bonds), default=0.0):.2f} eV, longest wrong way "
            f"{max((b.wrong_way_A for b in self.bonds), default=0.0):.2f} Å (a smooth bond: at most "
            f"{LONGEST_WRONG_WAY:.2f} Å)"
        ]
        lines += [
            f"  {b.label:<12} {b.bond_A:.3f} Å  jumps {b.jumps}, minima {b.spurious_minima}, wrong way "
            f"{b.wrong_way_A:.2f} Å, hole {b.hole_eV:.2f} eV"
            for b in worst[:12]
        ]
        return "\n".join(lines)


def bond_smoothness(
    atoms: Atoms, calc: Any, *, stretch: tuple[float, float] = (0.6, 1.6), bonds: list[tuple[int, int]] | None = None
) -> SmoothnessReport:
    """Scan every bond of a molecule and judge the curves.

    Parameters
    ----------
    atoms : Atoms
        Best relaxed.
    calc : ASE calculator
        With `evaluate` a scan goes in one batch.
    stretch : (float, float)
        Range in bond lengths.
    bonds : list of (int, int), optional
        Default: all.

    Raises
    ------
    InputError
        For crystals and for molecules without bonds.
    """
    low, high = stretch
    if not 0 < low < 1 < high:
        raise InputError(f"stretch is {stretch}; give a range around 1, such as (0.6, 1.6)")
    chosen = bonds_of(atoms) if bonds is None else bonds
    if not chosen:
        raise InputError(f"{atoms.get_chemical_formula()} has no bonds to stretch; give pairs of atoms as bonds")
    scans = []
    for i, j in chosen:
        length = atoms.get_distance(i, j)
        scans.append(bond_scan(atoms, calc, i, j, values_A=np.arange(low * length, high * length, STEP)))
    judged = [judge_stretch(scan, ring=in_ring(atoms, *pair)) for scan, pair in zip(scans, chosen, strict=True)]
    return SmoothnessReport(
        bonds=judged,
        scans=scans,
        stretch=(low, high),
        score=float(np.mean([bond.smooth for bond in judged])),
        formula=atoms.get_chemical_formula(),
        model=model_name(calc),
    )


def judge_stretch(scan: Scan, *, ring: bool = False) -> BondStretch:
    """Say what is not smooth about the scan of a bond; in a ring the sign of the force is not judged."""
    r, energy, force = scan.values, scan.energies_eV, scan.forces
    h, changes = np.diff(r), np.abs(np.diff(force))
    # As for diatomics: what the forces at both ends of a step do not explain, and forces that jump themselves.
    unexplained = np.abs(np.diff(energy) + 0.5 * h * (force[1:] + force[:-1]))
    jumps = set(outstanding(np.maximum(unexplained - 0.5 * h * changes, 0.0), JUMP).tolist())
    jumps |= set(outstanding(changes, KINK).tolist())
    minima, _ = find_peaks(-energy, prominence=DEEPEST)
    inside = r <= scan.start
    # Other parts of the molecule may repel at a stretched bond, so the sign counts only up to where fragments part.
    # An atom of a ring meets its other neighbours on the way, which may push or pull.
    wrong = 0 if ring else ((r < 0.95 * scan.start) & (force < -WRONG_WAY)).sum()
    wrong += 0 if ring else ((r > 1.1 * scan.start) & (force > WRONG_WAY)).sum()
    compressed = energy[inside][::-1]  # from the bond inwards
    hole = float((np.maximum.accumulate(compressed) - compressed).max()) if len(compressed) else 0.0
    return BondStretch(
        label=scan.label,
        bond_A=scan.start,
        jumps=len(jumps),
        spurious_minima=max(0, len(minima) - 1),
        wrong_way_A=float(wrong) * STEP,
        hole_eV=hole if hole > DEEPEST else 0.0,
        deviation_eV_per_A=float(np.abs(force + np.gradient(energy, r)).mean()),
    )
