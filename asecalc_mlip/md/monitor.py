"""Online stability monitor: looks at every frame and says when, where and how a run broke."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.analysis.frames import pairs_within
from asecalc_mlip.analysis.periodic import PeriodicReference
from asecalc_mlip.analysis.rdf import frame_rdfs
from asecalc_mlip.analysis.reference import MoleculeReference
from asecalc_mlip.analysis.references import Reference
from asecalc_mlip.analysis.stability import THRESHOLD, worst_deviation
from asecalc_mlip.card import force_statistics
from asecalc_mlip.md.integrators import degrees_of_freedom
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.thermostats import THERMOSTATS

__all__ = ["Extremes", "Failure", "Monitor", "force_limit"]

COLLAPSE = 0.6  # of R_cov,i + R_cov,j
EVAPORATION = 2.5  # of R_cov,i + R_cov,j: an atom with no neighbour closer than this has left
TEMPERATURE_FACTOR = 10.0
# One reading of the temperature of a few degrees of freedom may leave [T/10, 10 T] by chance; averages over at
# least this many samples do not (probability below 1e-9 a frame).
TEMPERATURE_SAMPLES = 30
RDF_WINDOW_FS = 1000.0
# g(r) of a few frames of a small cell differs by the threshold itself from the mean; ten frames bring that to 0.4 Å.
RDF_MIN_FRAMES = 10
VOLUME_FACTOR = 3.0


@dataclass(frozen=True)
class Failure:
    """What broke.

    Attributes
    ----------
    kind : str
        "not finite", "volume", "bond break", "collapse", "evaporation", "temperature" or "rdf".
    message : str
        A sentence with atoms, values and limits.
    atoms : tuple of int
        The atoms concerned, counted from 0.
    value, limit : float
        The number that was out of bounds, and the bound.
    """

    kind: str
    message: str
    atoms: tuple[int, ...] = ()
    value: float = math.nan
    limit: float = math.nan

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass
class Extremes:
    """The worst that was seen in any frame so far, the broken one included.

    Attributes
    ----------
    closest_ratio : float or None
        Smallest distance over the sum of the covalent radii, periodic images included.
    closest_A : float or None
        That distance, Å.
    closest_pair : str or None
        Its atoms, such as "O7-C10".
    largest_force : float
        Largest |F| of an atom, eV/Å.
    force_frames : int
        Frames with |F| above `force_limit` on any atom.
    force_limit : float or None
        Mean + 5 std of |F| in the training data, eV/Å; None if it is not known.
    """

    closest_ratio: float | None = None
    closest_A: float | None = None
    closest_pair: str | None = None
    largest_force: float = 0.0
    force_frames: int = 0
    force_limit: float | None = None


class Monitor:
    """Checks frames one after another.

    Parameters
    ----------
    atoms : Atoms
        Start structure: atoms that have no neighbour in it are not expected to have one later.
    temperature_K : float
        Temperature of the run, K; may be set anew during the run.
    ndof : int
        Degrees of freedom.
    reference : Reference, optional
        Of a molecule: bonds must hold to 0.5 Å. Of a periodic system: g(r), averaged over a sliding window of 1 ps (ten
        frames if these are more), must stay within its threshold. Else neither is a rule.
    frame_fs : float
        Time between two frames, fs, which decides the number of frames in the window.
    force_limit : float, optional
        |F| in eV/Å above which a frame is counted in `extremes`; it is no failure.

    Source of the limits: Fu et al., TMLR 2023 (bonds, g(r)); the others are this project's, see `Failure`.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        temperature_K: float,
        ndof: int,
        reference: Reference | None = None,
        frame_fs: float = 50.0,
        force_limit: float | None = None,
    ) -> None:
        self.temperature_K = temperature_K
        self.reference = reference if isinstance(reference, MoleculeReference) else None
        self.periodic = reference if isinstance(reference, PeriodicReference) else None
        self.extremes = Extremes(force_limit=force_limit)
        self.volume = atoms.get_volume() if atoms.pbc.all() else None
        self.window_frames = max(RDF_MIN_FRAMES, round(RDF_WINDOW_FS / frame_fs))
        self._window: deque[np.ndarray] = deque(maxlen=self.window_frames)
        if self.periodic:
            self._target = self.periodic.rdfs_for(atoms)["all"]
        self._radius = max(_search_radius(atoms), self.periodic.edges[-1] if self.periodic else 0.0)
        self._alone_at_start = self._alone(atoms, *pairs_within(atoms, self._radius))
        self._samples = math.ceil(TEMPERATURE_SAMPLES / ndof)
        self._temperatures: deque[float] = deque(maxlen=self._samples)

    @classmethod
    def for_run(cls, atoms: Atoms, settings: MDSettings, reference: Reference | None = None) -> Monitor:
        """Make the monitor of a run of `atoms`, whose calculator may know the forces of its training data.

        `settings` say whether the bonds or the g(r) of the reference are a rule.
        """
        rule = settings.bond_rule if isinstance(reference, MoleculeReference) else settings.rdf_rule
        thermostat = THERMOSTATS.get(str(settings.thermostat))
        return cls(
            atoms,
            temperature_K=settings.temperature_K,
            ndof=degrees_of_freedom(atoms, spins=thermostat is not None and thermostat.spins),
            reference=reference if rule else None,
            frame_fs=settings.interval * settings.timestep_fs,
            force_limit=force_limit(atoms.calc, reference),
        )

    def check(
        self, atoms: Atoms, *, energy: float = 0.0, forces: np.ndarray | None = None, temperature: float | None = None
    ) -> Failure | None:
        """Judge one frame; return the first thing found wrong, or None.

        Parameters
        ----------
        atoms : Atoms
            The frame.
        energy : float
            eV.
        forces : (n, 3) array, optional
            eV/Å.
        temperature : float, optional
            K; None leaves that check out.
        """
        failure = self._finite(atoms, energy, forces) or self._volume(atoms)
        if failure:
            return failure
        self._note_forces(forces)
        pairs = pairs_within(atoms, self._radius)
        return (
            self._bonds(atoms)
            or self._contacts(atoms, *pairs)
            or self._temperature(temperature)
            or self._structure(atoms, *pairs)
        )

    def get_state(self) -> dict:
        """Return what the next check depends on, apart from `get_window`."""
        return {"temperatures": list(self._temperatures), "extremes": asdict(self.extremes)}

    def get_window(self) -> np.ndarray:
        """Return g(r) of the frames in the window, (n_frames, bins)."""
        return np.array(self._window) if self._window else np.zeros((0, 0))

    def set_state(self, state: Mapping, window: Iterable[np.ndarray]) -> None:
        """Continue from `get_state` and `get_window`."""
        self._temperatures.clear()
        self._temperatures.extend(state["temperatures"])
        self.extremes = Extremes(**state.get("extremes", {}))
        self._window.clear()
        self._window.extend(window)

    def rdf_error(self) -> float | None:
        """Return ∫|g − g_ref| dr of the window in Å; None before the window is full or without a reference."""
        if len(self._window) < self.window_frames:
            return None
        mean = np.mean(self._window, axis=0)
        return float(np.sum(np.abs(mean - self._target.g) * np.diff(self._target.edges)))

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

    def _volume(self, atoms: Atoms) -> Failure | None:
        """Before neighbours are looked for: in a cell that collapsed there are too many to hold."""
        if self.volume is None:
            return None
        volume, lowest, highest = atoms.get_volume(), self.volume / VOLUME_FACTOR, self.volume * VOLUME_FACTOR
        if lowest <= volume <= highest:
            return None
        message = f"the cell has {volume:.4g} Å³, outside {lowest:.4g} to {highest:.4g} Å³ (a third to three times)"
        return Failure("volume", message, value=volume, limit=lowest if volume < lowest else highest)

    def _note_forces(self, forces: np.ndarray | None) -> None:
        if forces is None:
            return
        largest = float(np.sqrt(np.square(forces).sum(axis=1).max()))
        self.extremes.largest_force = max(self.extremes.largest_force, largest)
        if self.extremes.force_limit is not None and largest > self.extremes.force_limit:
            self.extremes.force_frames += 1

    def _structure(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> Failure | None:
        if self.periodic is None:
            return None
        self._window.append(frame_rdfs(atoms, i, j, d, self._target.edges)["all"])
        error, limit = self.rdf_error(), self.periodic.threshold
        if error is None or error <= limit:
            return None
        message = (
            f"g(r), averaged over the last {len(self._window)} frames, deviates from the reference by ∫|Δg| dr = "
            f"{error:.2f} Å below {self._target.edges[-1]:g} Å (limit for a {self.periodic.kind} {limit:g} Å)"
        )
        return Failure("rdf", message, value=error, limit=limit)

    def _contacts(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> Failure | None:
        ratio = d / _radii_sum(atoms, i, j)
        self._note_closest(atoms, i, j, d, ratio)
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

    def _note_closest(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray, ratio: np.ndarray) -> None:
        extremes = self.extremes
        if len(ratio) == 0 or ratio.min() >= (extremes.closest_ratio or math.inf):
            return
        k = int(np.argmin(ratio))
        extremes.closest_ratio, extremes.closest_A = float(ratio[k]), float(d[k])
        extremes.closest_pair = f"{_name(atoms, i[k])}-{_name(atoms, j[k])}"

    def _temperature(self, temperature: float | None) -> Failure | None:
        if temperature is None:
            return None
        self._temperatures.append(float(temperature))
        if len(self._temperatures) < self._samples:
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


def _search_radius(atoms: Atoms) -> float:
    return 2.0 * EVAPORATION * float(covalent_radii[atoms.numbers].max())


def _radii_sum(atoms: Atoms, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    radii = covalent_radii[atoms.numbers]
    return radii[i] + radii[j]


def _name(atoms: Atoms, index: int) -> str:
    return f"{atoms.symbols[int(index)]}{int(index)}"


def force_limit(calculator: Any, reference: Reference | None) -> float | None:
    """Return mean + 5 std of |F| (eV/Å) in the training data, from the model's card or the reference, or None."""
    known = force_statistics(getattr(calculator, "card", None))
    if known is not None:
        return known[0] + 5.0 * known[1]
    return reference.force_limit if isinstance(reference, PeriodicReference) else None
