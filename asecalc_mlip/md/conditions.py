"""What a run tells before it starts: its conditions, and warnings."""

from __future__ import annotations

import sys

from ase import Atoms

from asecalc_mlip.analysis.periodic import PeriodicReference
from asecalc_mlip.card import temperatures_of
from asecalc_mlip.md.settings import MDSettings

__all__ = ["conditions", "forget_notes", "note", "warn_direct_forces", "warn_temperature", "warn_time_step"]


def conditions(settings: MDSettings) -> str:
    """What is about to run, much of which the model or a protocol may have chosen."""
    ends = [settings.temperature_K, settings.temperature_end_K or settings.temperature_K]
    kelvin = f"{ends[0]:g} K" if ends[0] == ends[1] else f"{ends[0]:g} to {ends[1]:g} K"
    parts = [settings.ensemble.upper(), settings.thermostat, kelvin, f"{settings.timestep_fs:g} fs"]
    parts.append(f"{settings.steps} steps ({settings.steps * settings.timestep_fs / 1e3:g} ps)")
    return ", ".join(filter(None, parts)) + (f", protocol {settings.protocol}" if settings.protocol else "")


def warn_time_step(atoms: Atoms, settings: MDSettings) -> None:
    """Say when the time step is long for the hydrogen in a structure."""
    light = 1 in atoms.numbers and atoms.get_masses()[atoms.numbers == 1].min() < 1.5
    if light and settings.timestep_fs > 1.0:
        note(
            f"a time step of {settings.timestep_fs:g} fs is long for hydrogen, whose vibrations have a period of about "
            "10 fs: use 0.5 fs (at most 1 fs) unless this is on purpose"
        )


def warn_direct_forces(ensemble: str, calculator) -> None:
    """Say that the energy of a model with direct forces will drift."""
    if ensemble == "nve" and getattr(getattr(calculator, "potential", None), "direct_forces", False):
        note(
            "the forces of this model are direct, not the derivative of its energy, so the total energy will drift; "
            "use a conservative model for NVE"
        )


def warn_temperature(settings: MDSettings, calculator, reference) -> None:
    """Say when the run leaves the temperatures of the data, which card["temperatures_K"] or the reference may know."""
    known = temperatures_of(getattr(calculator, "card", None))
    if known is None and isinstance(reference, PeriodicReference):
        known = reference.temperatures_K
    if known is None:
        return
    low, high = known
    ends = [settings.temperature_K, settings.temperature_end_K or settings.temperature_K]
    if max(ends) > 1.05 * high or min(ends) < 0.95 * low:
        where = f"goes from {ends[0]:g} to {ends[1]:g} K" if ends[0] != ends[1] else f"is at {ends[0]:g} K"
        note(
            f"the data of this model are from {low:g} to {high:g} K and the run {where}: "
            "forces there are extrapolated, and heat alone changes g(r) and h(r)"
        )


_noted: list[str] = []


def forget_notes() -> None:
    """Warn again of what was warned of, in a run that has nothing to do with the one before."""
    _noted.clear()


def note(message: str) -> None:
    """Warn once of what many runs of a campaign or report have in common."""
    if message not in _noted:
        _noted.append(message)
        print(f"Warning: {message}.", file=sys.stderr)
