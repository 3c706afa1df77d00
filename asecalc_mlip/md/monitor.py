"""Online stability monitor: looks at every frame and says when, where and how a run broke."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.bonds import holds_molecules, is_boxed_molecule
from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.references import Reference, unlike
from asecalc_mlip.file_format.card import force_statistics
from asecalc_mlip.md.failures import Extremes, Failure, atom_name
from asecalc_mlip.md.integrators import degrees_of_freedom
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.thermostats import THERMOSTATS
from asecalc_mlip.md.watch import BondRule, ContactRule, RDFRule, ShellRule, Window
from asecalc_mlip.neighbors.pairs import pairs_within

__all__ = ["Extremes", "Failure", "Monitor", "force_limit", "start_bonds"]

TEMPERATURE_FACTOR = 10.0
# One reading of the temperature of a few degrees of freedom may leave [T/10, 10 T] by chance; averages over at
# least this many samples do not (probability below 1e-9 a frame).
TEMPERATURE_SAMPLES = 30
WINDOW_FS = 1000.0
# g(r) of a few frames of a small cell differs by the threshold itself from the mean; ten frames bring that to 0.4 Å.
MIN_FRAMES = 10
VOLUME_FACTOR = 3.0


class Monitor:
    """Checks frames one after another.

    Parameters
    ----------
    atoms : Atoms
        Start structure: atoms that have no neighbour in it are not expected to have one later. Distances between
        atoms that are fixed in it, and forces on these, are not judged.
    temperature_K : float
        Temperature of the run, K; may be set anew during the run.
    ndof : int
        Degrees of freedom.
    reference : Reference, optional
        Its closest approaches give the limits of contacts; without it they are 0.6 of the sums of covalent radii. Of a
        molecule: bonds must hold to 0.5 Å. Of a periodic system: numbers of neighbours must stay near those of the
        data, and g(r) within its threshold if the data are of like temperature, composition and density; both are
        averaged over a sliding window of 1 ps (ten frames if these are more).
    frame_fs : float
        Time between two frames, fs, which decides the number of frames in the window.
    force_limit : float, optional
        |F| in eV/Å above which a frame is counted in `extremes`; it is no failure.
    bonds : MoleculeReference, optional
        Whose bonds count where the reference has none.
    temperature_end_K : float, optional
        Of a run that changes its temperature, K: g(r) is no rule of a run that leaves the temperature of the data.
    bond_rule, rdf_rule : bool
        Whether bonds are a rule; whether coordination and g(r) are.

    Source of the limits: Fu et al., TMLR 2023 (bonds, g(r)); the others are this project's, see
    `asecalc_mlip.analysis.limits`, `asecalc_mlip.md.watch` and `Failure`.
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
        bonds: MoleculeReference | None = None,
        temperature_end_K: float | None = None,
        bond_rule: bool = True,
        rdf_rule: bool = True,
    ) -> None:
        self.temperature_K = temperature_K
        self.extremes = Extremes(force_limit=force_limit)
        self._fixed = fixed_atoms(atoms)[0]
        self.volume = atoms.get_volume() if atoms.pbc.all() else None
        self.window_frames = max(MIN_FRAMES, round(WINDOW_FS / frame_fs))
        self.not_used: dict[str, str] = {}
        self.contacts = ContactRule(atoms, reference, temperature_K)
        if not self.contacts.limits.closest:
            self.not_used["limits from the data"] = "no reference with closest approaches"
        self.bonds = self._bond_rule(reference if isinstance(reference, MoleculeReference) else bonds, bond_rule)
        ends_K = (temperature_K, temperature_end_K or temperature_K)
        self.shells, self.rdf = self._window_rules(atoms, reference, ends_K, rdf_rule)
        self._radius = max(rule.radius for rule in (self.contacts, *(w.rule for w in self._windows)))
        pairs = pairs_within(atoms, self._radius)
        self.contacts.start(atoms, *pairs)
        if self.shells is not None:
            self.shells.rule.start(atoms, *pairs)
        self._samples = math.ceil(TEMPERATURE_SAMPLES / ndof)
        self._temperatures: deque[float] = deque(maxlen=self._samples)

    @property
    def reference(self) -> MoleculeReference | None:
        """The molecule whose bonds are a rule."""
        return None if self.bonds is None else self.bonds.reference

    @property
    def _windows(self) -> list[Window]:
        return [window for window in (self.shells, self.rdf) if window is not None]

    @classmethod
    def for_run(cls, atoms: Atoms, settings: MDSettings, reference: Reference | None = None) -> Monitor:
        """Make the monitor of a run of `atoms`, whose calculator may know the forces of its training data.

        `settings` say whether bonds, and whether coordination and g(r), are a rule. Where the reference has no bonds,
        those of the start structure count, if that is open or holds only molecules, also several in a periodic box.
        """
        thermostat = THERMOSTATS.get(str(settings.thermostat))
        return cls(
            atoms,
            temperature_K=settings.temperature_K,
            ndof=degrees_of_freedom(atoms, spins=thermostat is not None and thermostat.spins),
            reference=reference,
            frame_fs=settings.interval * settings.timestep_fs,
            force_limit=force_limit(atoms.calc, reference),
            bonds=None if isinstance(reference, MoleculeReference) else start_bonds(atoms),
            temperature_end_K=settings.temperature_end_K,
            bond_rule=settings.bond_rule,
            rdf_rule=settings.rdf_rule,
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
        self._note_forces(forces if forces is None else forces[~self._fixed])
        pairs = pairs_within(atoms, self._radius)
        return (
            (self.bonds.check(atoms) if self.bonds is not None else None)
            or self.contacts.check(atoms, *pairs, self.temperature_K, self.extremes)
            or self._temperature(temperature)
            or self._structure(atoms, *pairs)
        )

    def rules(self) -> dict[str, Any]:
        """Return what is watched, with limits and where they come from, and what is not and why; plain values."""
        return {
            "contacts": self.contacts.describe(self.temperature_K),
            "bonds": None if self.bonds is None else self.bonds.describe(),
            "coordination": None if self.shells is None else self.shells.rule.describe(),
            "rdf": None if self.rdf is None else self.rdf.rule.describe(),
            "not_used": dict(self.not_used),
        }

    def get_state(self) -> dict:
        """Return what the next check depends on, apart from `get_window`."""
        shells = [] if self.shells is None else self.shells.array().tolist()
        return {"temperatures": list(self._temperatures), "extremes": asdict(self.extremes), "shells": shells}

    def get_window(self) -> np.ndarray:
        """Return g(r) of the frames in the window, (n_frames, bins)."""
        return np.zeros((0, 0)) if self.rdf is None else self.rdf.array()

    def set_state(self, state: Mapping, window: Iterable[np.ndarray]) -> None:
        """Continue from `get_state` and `get_window`."""
        self._temperatures.clear()
        self._temperatures.extend(state["temperatures"])
        self.extremes = Extremes(**state.get("extremes", {}))
        if self.shells is not None:
            self.shells.restore(state.get("shells", []))
        if self.rdf is not None:
            self.rdf.restore(window)

    def _bond_rule(self, known: MoleculeReference | None, wanted: bool) -> BondRule | None:
        if not wanted:
            self.not_used["bonds"] = "switched off"
        elif known is None and self.volume is None:
            self.not_used["bonds"] = "no molecule whose bonds are known"
        return BondRule(known) if wanted and known is not None else None

    def _window_rules(
        self, atoms: Atoms, reference: Reference | None, ends_K: tuple[float, float], wanted: bool
    ) -> tuple[Window[ShellRule] | None, Window[RDFRule] | None]:
        if not atoms.pbc.all():
            return None, None
        if not isinstance(reference, PeriodicReference):
            if self.bonds is None or not is_boxed_molecule(atoms):
                self.not_used["coordination and g(r)"] = "no reference of a periodic system that fits"
            return None, None
        if not wanted:
            self.not_used["coordination and g(r)"] = "switched off"
            return None, None
        shells = ShellRule(atoms, reference)
        reason = next(filter(None, (unlike(reference, atoms, end) for end in ends_K)), None)
        if not shells.cutoffs:
            self.not_used["coordination"] = "the reference has no shells of neighbours"
        if reason:
            self.not_used["g(r)"] = reason
        return (
            Window(shells, self.window_frames) if shells.cutoffs else None,
            None if reason else Window(RDFRule(atoms, reference), self.window_frames),
        )

    def _structure(self, atoms: Atoms, i: np.ndarray, j: np.ndarray, d: np.ndarray) -> Failure | None:
        """Take each window on, also where the first one fails."""
        found = [window.check(atoms, i, j, d) for window in self._windows]
        return next(filter(None, found), None)

    def _finite(self, atoms: Atoms, energy: float, forces: np.ndarray | None) -> Failure | None:
        if not math.isfinite(energy):
            return Failure("not finite", f"the energy is {energy}", value=energy)
        arrays = {"position": atoms.positions, "momentum": atoms.get_momenta(), "force": forces}
        for name, values in arrays.items():
            if values is None:
                continue
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                names = ", ".join(atom_name(atoms, i) for i in bad[:5]) + (" ..." if len(bad) > 5 else "")
                return Failure("not finite", f"the {name} of {names} is not finite", tuple(int(i) for i in bad[:5]))
        return None

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


def start_bonds(atoms: Atoms) -> MoleculeReference | None:
    """Return the bonds of a start structure that is open, or molecules in a periodic box; None of anything else."""
    if atoms.pbc.any() and not holds_molecules(atoms):
        return None
    # Its distances are those of one frame, which say nothing about how close atoms may come.
    return replace(MoleculeReference.from_frames(atoms, "start structure"), closest={})


def force_limit(calculator: Any, reference: Reference | None) -> float | None:
    """Return mean + 5 std of |F| (eV/Å) in the training data, from the model's card or the reference, or None."""
    known = force_statistics(getattr(calculator, "card", None))
    if known is not None:
        return known[0] + 5.0 * known[1]
    return reference.force_limit if isinstance(reference, PeriodicReference) else None
