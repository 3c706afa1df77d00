"""The rules of the monitor about structure: bonds, contacts, coordination, g(r). Each judges and describes itself."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.analysis.bonds import THRESHOLD
from asecalc_mlip.analysis.contacts import shortest_by_pair
from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.analysis.limits import COLLAPSE, ContactLimits
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.rdf import frame_rdfs
from asecalc_mlip.analysis.references import ContactReference, Reference
from asecalc_mlip.analysis.shells import shell_numbers
from asecalc_mlip.analysis.stability import worst_deviation
from asecalc_mlip.md.failures import Extremes, Failure, atom_name

__all__ = ["BondRule", "ContactRule", "RDFRule", "ShellRule", "Window"]

EVAPORATION = 2.5  # of R_cov,i + R_cov,j: an atom with no neighbour closer than this has left
# Numbers of neighbours may leave those of the data by this share, and at least by so many.
SHELL_SHARE, SHELL_LEAST = 0.2, 0.3
_LOG = logging.getLogger("asecalc_mlip")


class BondRule:
    """Bonds of a molecule must keep their lengths to 0.5 Å (Fu et al., TMLR 2023), also through faces of a box."""

    def __init__(self, reference: MoleculeReference) -> None:
        self.reference = reference

    def check(self, atoms: Atoms) -> Failure | None:
        """Judge one frame."""
        deviation, index, length = worst_deviation(atoms.positions, self.reference, atoms)
        if deviation <= THRESHOLD:
            return None
        name, mean = self.reference.bond_name(index), float(self.reference.mean_lengths[index])
        message = f"bond {name} is {length:.3f} Å long, its mean is {mean:.3f} Å (limit ±{THRESHOLD} Å)"
        bond = tuple(int(k) for k in self.reference.bonds[index])
        rule = f"mean length {mean:.3f} ± {THRESHOLD} Å"
        return Failure("bond break", message, bond, deviation, THRESHOLD, name, rule)

    def describe(self) -> dict[str, Any]:
        """Return plain values, for the summary."""
        return {"number": len(self.reference.bonds), "limit_A": THRESHOLD, "source": self.reference.source}


class ContactRule:
    """Two atoms must not come closer than the limit of their elements; an atom must not lose all its neighbours."""

    def __init__(self, atoms: Atoms, reference: Reference | None, temperature_K: float) -> None:
        known = dict(reference.closest) if reference is not None else {}
        span = reference.temperatures_K if reference is not None else None
        limits = ContactLimits.of(atoms, known, span[1] if span else None)
        if isinstance(reference, ContactReference):
            # The data have other structures: where the start is closer than any of them, they do not know such a pair.
            limits = limits.excusing(shortest_by_pair(atoms, reach=4.0), temperature_K)
        for pair, distance in limits.excused.items():
            _LOG.warning(
                f"the start structure has {pair} at {distance:.2f} Å, closer than the training data allow "
                f"({reference.closest[pair]:.2f} Å there): the model has not seen such a pair"  # type: ignore[union-attr]
            )
        self.limits, self.source = limits, reference.source if reference is not None and limits.closest else ""
        self.radius = 2.0 * EVAPORATION * float(covalent_radii[atoms.numbers].max())
        self._index = np.searchsorted(limits.numbers, atoms.numbers)
        self._fixed = fixed_atoms(atoms)[0]

    def start(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> None:
        """Note which atoms have no neighbour at the start; they need none later."""
        self._alone_at_start = _alone(atoms, i, j, d)

    def check(
        self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray, temperature_K: float, extremes: Extremes
    ) -> Failure | None:
        """Judge one frame, whose directed pairs i, j at d Å reach to `radius`."""
        every = i, j, d
        if self._fixed.any():  # between two of them nothing changes
            moves = ~(self._fixed[i] & self._fixed[j])
            i, j, d = i[moves], j[moves], d[moves]
        if len(d):
            limit = self.limits.table(temperature_K)[self._index[i], self._index[j]]
            k = int(np.argmin(d / limit))
            _note(extremes, atoms, i, j, d, limit, k)
            if d[k] < limit[k]:
                return self._collapse(atoms, int(i[k]), int(j[k]), float(d[k]), float(limit[k]), temperature_K)
        gone = np.flatnonzero(_alone(atoms, *every) & ~self._alone_at_start)
        if len(gone) == 0:
            return None
        name = atom_name(atoms, gone[0])
        message = f"{name} has no neighbour within {EVAPORATION} × the sum of covalent radii any more"
        rule = f"{EVAPORATION} of the sum of covalent radii"
        return Failure("evaporation", message, (int(gone[0]),), limit=EVAPORATION, pair=name, rule=rule)

    def describe(self, temperature_K: float) -> dict[str, Any]:
        """Return plain values, for the summary."""
        return {
            "rule": "closest approach in the training data" if self.limits.closest else "covalent radii",
            "factor": self.limits.factor(temperature_K) if self.limits.closest else COLLAPSE,
            "data_temperature_K": self.limits.data_K,
            "closest_in_data_A": self.limits.closest,
            "limits_A": self.limits.by_pair(temperature_K),
            "excused_A": self.limits.excused,
            "source": self.source,
        }

    def _collapse(self, atoms: Atoms, i: int, j: int, d: float, limit: float, temperature_K: float) -> Failure:
        first, second = atom_name(atoms, i), atom_name(atoms, j)
        pair = "-".join(sorted((atoms.symbols[i], atoms.symbols[j])))
        rule = self.limits.rule(pair, temperature_K)
        message = f"{first} and {second} are {d:.3f} Å apart (limit {limit:.2f} Å, {rule})"
        return Failure("collapse", message, (i, j), d, limit, f"{first}-{second}", rule)


class ShellRule:
    """Mean numbers of neighbours must stay near those of the data and of the start."""

    def __init__(self, atoms: Atoms, reference: PeriodicReference) -> None:
        self.cutoffs = {name: shell["cutoff"] for name, shell in reference.shells.items()}
        self.radius = max(self.cutoffs.values(), default=0.0)
        self._data = {name: (shell["low"], shell["high"]) for name, shell in reference.shells.items()}
        self.ranges: dict[str, tuple[float, float]] = {}

    def start(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> None:
        """Take in the start structure, which may differ from the data."""
        for name, number in shell_numbers(atoms, i, j, d, self.cutoffs).items():
            low, high = self._data[name]
            low, high = min(low, number), max(high, number)
            self.ranges[name] = (
                min((1 - SHELL_SHARE) * low, low - SHELL_LEAST),
                max((1 + SHELL_SHARE) * high, high + SHELL_LEAST),
            )

    def measure(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Return the numbers of one frame, in the order of `ranges`."""
        found = shell_numbers(atoms, i, j, d, self.cutoffs)
        return np.array([found[name] for name in self.ranges])

    def check(self, mean: np.ndarray, frames: int) -> Failure | None:
        """Judge the mean of a window."""
        for (name, (low, high)), value in zip(self.ranges.items(), mean, strict=True):
            if low <= value <= high:
                continue
            first, second = name.split("-")
            limit = low if value < low else high
            rule = f"{SHELL_SHARE:.0%} beyond the data and the start, within {self.cutoffs[name]:.2f} Å"
            message = (
                f"{first} has {value:.2f} {second} within {self.cutoffs[name]:.2f} Å on average over the last {frames} "
                f"frames, outside {low:.2f} to {high:.2f} ({SHELL_SHARE:.0%} beyond the training data and the start)"
            )
            return Failure("coordination", message, value=float(value), limit=limit, pair=name, rule=rule)
        return None

    def describe(self) -> dict[str, Any]:
        """Return plain values, for the summary."""
        return {
            name: {"cutoff_A": self.cutoffs[name], "lowest": low, "highest": high}
            for name, (low, high) in self.ranges.items()
        }


class RDFRule:
    """g(r) must stay within the threshold of a reference of like conditions."""

    def __init__(self, atoms: Atoms, reference: PeriodicReference) -> None:
        self.reference, self._target = reference, reference.rdfs_for(atoms)["all"]
        self.radius = float(reference.edges[-1])

    def measure(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Return g(r) of one frame, (bins,)."""
        return frame_rdfs(atoms, i, j, d, self._target.edges)["all"]

    def error(self, mean: np.ndarray) -> float:
        """Return ∫|g − g_ref| dr in Å of a mean g(r)."""
        return float(np.sum(np.abs(mean - self._target.g) * np.diff(self._target.edges)))

    def check(self, mean: np.ndarray, frames: int) -> Failure | None:
        """Judge the mean of a window."""
        error, limit = self.error(mean), self.reference.threshold
        if error <= limit:
            return None
        message = (
            f"g(r), averaged over the last {frames} frames, deviates from the reference by ∫|Δg| dr = "
            f"{error:.2f} Å below {self._target.edges[-1]:g} Å (limit for a {self.reference.kind} {limit:g} Å)"
        )
        rule = f"g(r) of a {self.reference.kind}, {self.reference.source}"
        return Failure("rdf", message, value=error, limit=limit, rule=rule)

    def describe(self) -> dict[str, Any]:
        """Return plain values, for the summary."""
        return {"limit_A": self.reference.threshold, "kind": self.reference.kind, "source": self.reference.source}


Rule = TypeVar("Rule", ShellRule, RDFRule)


class Window(Generic[Rule]):
    """Measures of the last frames of a rule, judged by their mean once there are enough."""

    def __init__(self, rule: Rule, frames: int) -> None:
        self.rule: Rule = rule
        self.frames = frames
        self.values: deque[np.ndarray] = deque(maxlen=frames)

    def check(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> Failure | None:
        """Take in one frame and judge."""
        self.values.append(self.rule.measure(atoms, i, j, d))
        return self.rule.check(np.mean(self.values, axis=0), self.frames) if self.full else None

    @property
    def full(self) -> bool:
        """Whether there are enough frames to judge."""
        return len(self.values) == self.frames

    def array(self) -> np.ndarray:
        """Return the measures, (n_frames, n), for the restart file."""
        return np.array(self.values) if self.values else np.zeros((0, 0))

    def restore(self, values: Iterable[np.ndarray]) -> None:
        """Continue from `array`."""
        self.values.clear()
        self.values.extend(np.asarray(value, dtype=float) for value in values)


def _note(
    extremes: Extremes, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray, limit: np.ndarray, k: int
) -> None:
    """Note the closest pair by the covalent radii, and the one nearest to its limit."""
    radii = covalent_radii[atoms.numbers]
    ratio = d / (radii[i] + radii[j])
    m = int(np.argmin(ratio))
    if extremes.closest_ratio is None or ratio[m] < extremes.closest_ratio:
        extremes.closest_ratio, extremes.closest_A = float(ratio[m]), float(d[m])
        extremes.closest_pair = f"{atom_name(atoms, i[m])}-{atom_name(atoms, j[m])}"
    if extremes.margin is None or d[k] / limit[k] < extremes.margin:
        extremes.margin, extremes.margin_A = float(d[k] / limit[k]), float(d[k])
        extremes.margin_limit_A = float(limit[k])
        extremes.margin_pair = f"{atom_name(atoms, i[k])}-{atom_name(atoms, j[k])}"


def _alone(atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Which atoms have no neighbour but their own images, (n,) booleans."""
    radii = covalent_radii[atoms.numbers]
    near = (d < EVAPORATION * (radii[i] + radii[j])) & (i != j)
    alone = np.ones(len(atoms), dtype=bool)
    alone[i[near]] = alone[j[near]] = False
    return alone
