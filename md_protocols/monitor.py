"""Online stability monitor: looks at every frame and says when, where and how a run broke."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from matscipy.neighbours import neighbour_list
from scipy.spatial import cKDTree

from asecalc_mlip.analysis.reference import MoleculeReference
from asecalc_mlip.analysis.stability import THRESHOLD, worst_deviation

COLLAPSE = 0.6  # of R_cov,i + R_cov,j
EVAPORATION = 2.5  # of R_cov,i + R_cov,j: an atom with no neighbour closer than this has left
TEMPERATURE_FACTOR = 10.0
# One reading of the temperature of a few degrees of freedom may leave [T/10, 10 T] by chance; averages over at
# least this many samples do not (probability below 1e-9 a frame).
TEMPERATURE_SAMPLES = 30


@dataclass(frozen=True)
class Failure:
    """What broke.

    Attributes
    ----------
    kind : "not finite", "collapse", "bond break", "evaporation" or "temperature"
    message : a sentence with atoms, values and limits
    atoms : the atoms concerned, counted from 0
    value, limit : the number that was out of bounds, and the bound
    """

    kind: str
    message: str
    atoms: tuple[int, ...] = ()
    value: float = math.nan
    limit: float = math.nan

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


class StabilityMonitor:
    """Checks frames one after another.

    Parameters
    ----------
    atoms : start structure: atoms that have no neighbour in it are not expected to have one later
    temperature_K : temperature of the run
    ndof : degrees of freedom
    reference : bonds that must hold to 0.5 Å; None (periodic systems, reactions): no bond rule

    Source of the limits: Fu et al., TMLR 2023 (bonds); the others are this project's, see `Failure`.
    """

    def __init__(
        self, atoms: Atoms, *, temperature_K: float, ndof: int, reference: MoleculeReference | None = None
    ) -> None:
        self.temperature_K = temperature_K
        self.reference = reference
        self._alone_at_start = self._alone(atoms, *pairs_within(atoms, _search_radius(atoms)))
        self._window = math.ceil(TEMPERATURE_SAMPLES / ndof)
        self._temperatures: deque[float] = deque(maxlen=self._window)

    def check(
        self, atoms: Atoms, *, energy: float = 0.0, forces: np.ndarray | None = None, temperature: float | None = None
    ) -> Failure | None:
        """Judge one frame; the first thing found wrong, or None.

        Parameters
        ----------
        atoms : the frame
        energy : eV
        forces : (n, 3) array, eV/Å
        temperature : K; None leaves that check out
        """
        return (
            self._finite(atoms, energy, forces)
            or self._bonds(atoms)
            or self._contacts(atoms)
            or self._temperature(temperature)
        )

    def get_state(self) -> dict:
        """What the next check depends on."""
        return {"temperatures": list(self._temperatures)}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`."""
        self._temperatures.clear()
        self._temperatures.extend(state["temperatures"])

    def _finite(self, atoms: Atoms, energy: float, forces: np.ndarray | None) -> Failure | None:
        if not math.isfinite(energy):
            return Failure("not finite", f"the energy is {energy}", value=energy)
        arrays = {"position": atoms.positions, "momentum": atoms.get_momenta(), "force": forces}
        for name, values in arrays.items():
            if values is None:
                continue
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                names = ", ".join(_name(atoms, i) for i in bad[:5]) + (" ..." if len(bad) > 5 else "")
                return Failure("not finite", f"the {name} of {names} is not finite", tuple(int(i) for i in bad[:5]))
        return None

    def _bonds(self, atoms: Atoms) -> Failure | None:
        if self.reference is None:
            return None
        deviation, index, length = worst_deviation(atoms.positions, self.reference)
        if deviation <= THRESHOLD:
            return None
        message = (
            f"bond {self.reference.bond_name(index)} is {length:.3f} Å long, its mean is "
            f"{self.reference.mean_lengths[index]:.3f} Å (limit ±{THRESHOLD} Å)"
        )
        bond = tuple(int(k) for k in self.reference.bonds[index])
        return Failure("bond break", message, bond, deviation, THRESHOLD)

    def _contacts(self, atoms: Atoms) -> Failure | None:
        i, j, d = pairs_within(atoms, _search_radius(atoms))
        ratio = d / _radii_sum(atoms, i, j)
        if len(ratio) and ratio.min() < COLLAPSE:
            k = int(np.argmin(ratio))
            message = (
                f"{_name(atoms, i[k])} and {_name(atoms, j[k])} are {d[k]:.3f} Å apart, {ratio[k]:.2f} of the sum "
                f"of their covalent radii (limit {COLLAPSE})"
            )
            return Failure("collapse", message, (int(i[k]), int(j[k])), float(ratio[k]), COLLAPSE)
        gone = np.flatnonzero(self._alone(atoms, i, j, d) & ~self._alone_at_start)
        if len(gone) == 0:
            return None
        message = f"{_name(atoms, gone[0])} has no neighbour within {EVAPORATION} × the sum of covalent radii any more"
        return Failure("evaporation", message, (int(gone[0]),), limit=EVAPORATION)

    def _temperature(self, temperature: float | None) -> Failure | None:
        if temperature is None:
            return None
        self._temperatures.append(float(temperature))
        if len(self._temperatures) < self._window:
            return None
        mean = float(np.mean(self._temperatures))
        low, high = self.temperature_K / TEMPERATURE_FACTOR, self.temperature_K * TEMPERATURE_FACTOR
        if low <= mean <= high:
            return None
        frames = f" (mean of {len(self._temperatures)} frames)" if len(self._temperatures) > 1 else ""
        message = f"the temperature is {mean:.4g} K{frames}, outside {low:g} to {high:g} K"
        return Failure("temperature", message, value=mean, limit=high if mean > high else low)

    @staticmethod
    def _alone(atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Which atoms have no neighbour but their own images, (n,) booleans."""
        near = (d < EVAPORATION * _radii_sum(atoms, i, j)) & (i != j)
        alone = np.ones(len(atoms), dtype=bool)
        alone[i[near]] = alone[j[near]] = False
        return alone


def pairs_within(atoms: Atoms, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms i, j and their distances d in Å, all pairs (periodic images too) closer than `radius` Å."""
    if atoms.pbc.any():
        return neighbour_list("ijd", atoms, radius)
    # A tree needs no boxes, so atoms flung far away cost no memory.
    pairs = cKDTree(atoms.positions).query_pairs(radius, output_type="ndarray")
    i, j = pairs[:, 0], pairs[:, 1]
    return i, j, np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)


def _search_radius(atoms: Atoms) -> float:
    return 2.0 * EVAPORATION * float(covalent_radii[atoms.numbers].max())


def _radii_sum(atoms: Atoms, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    radii = covalent_radii[atoms.numbers]
    return radii[i] + radii[j]


def _name(atoms: Atoms, index: int) -> str:
    return f"{atoms.symbols[int(index)]}{int(index)}"
