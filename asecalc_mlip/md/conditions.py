"""Messages before a run starts: its conditions, and warnings about temperature and time step."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from ase import Atoms

from asecalc_mlip.analysis.bonds import is_boxed_molecule
from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.references import unlike
from asecalc_mlip.file_format.card import temperatures_of
from asecalc_mlip.md.settings import MDSettings

__all__ = [
    "conditions",
    "known_temperatures",
    "temperature_note",
    "time_step_note",
    "usual_timestep_fs",
    "warn_of",
    "warn_once",
]

# Vibrations of hydrogen have a period of about 10 fs.
LONGEST_WITH_HYDROGEN_FS = 1.0
# A thermostat may leave the temperatures of the data by so much.
TEMPERATURE_MARGIN = 0.05
_LOG = logging.getLogger("asecalc_mlip")


def conditions(settings: MDSettings) -> str:
    """Tell what is about to run, much of which the model or a protocol may have chosen."""
    low, high = _ends(settings)
    kelvin = f"{low:g} K" if low == high else f"{low:g} to {high:g} K"
    parts = [settings.ensemble.upper(), settings.thermostat, kelvin, f"{settings.timestep_fs:g} fs"]
    parts.append(f"{settings.steps} steps ({settings.steps * settings.timestep_fs / 1e3:g} ps)")
    return ", ".join(filter(None, parts)) + (f", protocol {settings.protocol}" if settings.protocol else "")


def warn_of(atoms: Atoms, settings: MDSettings, reference: Any = None) -> None:
    """Warn, before a run of `atoms` with its calculator, of conditions that spoil its result."""
    _warn_direct_forces(settings.ensemble, atoms.calc)
    notes = [
        time_step_note(atoms, settings.timestep_fs),
        temperature_note(_ends(settings), known_temperatures(getattr(atoms.calc, "card", None), reference)),
        _watch_note(atoms, settings, reference),
    ]
    for note in filter(None, notes):
        warn_once(note)


def time_step_note(atoms: Atoms, timestep_fs: float) -> str | None:
    """Return a sentence when the time step (fs) is long for the hydrogen in a structure, else None."""
    light = 1 in atoms.numbers and atoms.get_masses()[atoms.numbers == 1].min() < 1.5
    if not light or timestep_fs <= LONGEST_WITH_HYDROGEN_FS:
        return None
    return (
        f"a time step of {timestep_fs:g} fs is long for hydrogen, whose vibrations have a period of about 10 fs: use "
        f"0.5 fs (at most {LONGEST_WITH_HYDROGEN_FS:g} fs) unless this is on purpose"
    )


def usual_timestep_fs(atoms: Atoms) -> float:
    """Return a time step that the lightest atoms of a structure bear, fs."""
    return 0.5 if 1 in atoms.numbers else 1.0


def known_temperatures(card: Any, reference: Any = None) -> tuple[float, float] | None:
    """Return lowest and highest temperature (K) of the data of a model, as its card or the reference tells, or None."""
    known = temperatures_of(card)
    return getattr(reference, "temperatures_K", None) if known is None else known


def temperature_note(ends_K: tuple[float, float], known_K: tuple[float, float] | None) -> str | None:
    """Return a sentence when a run from one temperature to another leaves those of the data, else None."""
    if known_K is None:
        return None
    (first, last), (low, high) = ends_K, known_K
    if max(ends_K) <= (1 + TEMPERATURE_MARGIN) * high and min(ends_K) >= (1 - TEMPERATURE_MARGIN) * low:
        return None
    where = f"goes from {first:g} to {last:g} K" if first != last else f"is at {first:g} K"
    data = f"from {low:g} to {high:g} K" if low != high else f"at {low:g} K"
    return (
        f"the data of this model are {data} and the run {where}: forces there are extrapolated, "
        "and heat alone changes g(r) and h(r)"
    )


@cache
def warn_once(message: str) -> None:
    """Warn once of what many runs of a campaign or report have in common; `warn_once.cache_clear()` begins anew."""
    _LOG.warning(message)


def _ends(settings: MDSettings) -> tuple[float, float]:
    return settings.temperature_K, settings.temperature_end_K or settings.temperature_K


def _warn_direct_forces(ensemble: str, calculator: Any) -> None:
    if ensemble == "nve" and getattr(getattr(calculator, "potential", None), "direct_forces", False):
        warn_once(
            "the forces of this model come from a force head and are not the derivative of its energy, so the total "
            "energy will drift: use a conservative model for NVE"
        )


def _watch_note(atoms: Atoms, settings: MDSettings, reference: Any) -> str | None:
    """Crystals and liquids without a reference, or with one of other conditions, are watched by fewer rules."""
    if not atoms.pbc.any() or is_boxed_molecule(atoms) or not settings.rdf_rule:
        return None
    if not isinstance(reference, PeriodicReference):
        return (
            "the structure is periodic and has no reference that fits, so neither coordination nor g(r) are watched: "
            "only contacts, atoms that leave, volume and temperature are; give --reference to watch them"
        )
    reason = next(filter(None, (unlike(reference, atoms, end) for end in _ends(settings))), None)
    differs = "another temperature, composition or density alone changes g(r)"
    return None if reason is None else f"g(r) is not watched: {reason}; {differs}"
