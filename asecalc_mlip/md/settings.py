"""Settings of a run: defaults, named protocols, checks, and what may change when it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import yaml

from asecalc_mlip import quantities
from asecalc_mlip.errors import Action, InputError
from asecalc_mlip.md.ensembles import ENSEMBLES, require
from asecalc_mlip.md.thermostats import THERMOSTATS
from asecalc_mlip.units import DTYPES, Dtype

__all__ = [
    "MDSettings",
    "continue_settings",
    "load_protocol",
    "make_settings",
    "protocols",
    "unread",
]

PROTOCOLS = Path(__file__).with_name("protocols.yaml")
DEFAULT_THERMOSTAT = "nose-hoover"
OF_THERMOSTATS = ("thermostat", "tau_fs")
OF_COMMITTEES = ("threshold_eV_per_A", "action")
# Settings that not all ensembles read.
OF_ONE = tuple(dict.fromkeys(name for row in ENSEMBLES.values() for name in row.own))
# Restart points are at least this many steps apart: each costs one extra force call.
RESTART_STEPS = 200
QUANTITIES = {
    "temperature_K": quantities.TEMPERATURE,
    "timestep_fs": quantities.TIMESTEP,
    "steps": quantities.STEPS,
    "tau_fs": quantities.TAU,
    "seed": quantities.SEED,
    "interval": quantities.INTERVAL,
    "temperature_end_K": quantities.TEMPERATURE,
    "ramp_steps": quantities.STEPS,
    "pressure_GPa": quantities.PRESSURE,
    "tau_p_fs": quantities.TAU,
    "threshold_eV_per_A": quantities.FORCE,
}


@dataclass(frozen=True)
class MDSettings:
    """Everything that decides a trajectory, apart from the start structure."""

    ensemble: str = "nvt"
    """nvt, nve, npt or anneal."""
    model: str = "aspirin.pt"
    """Name of a shipped model or path of a .pt file."""
    structure: str | None = None
    """Start structure, any file ASE reads; None: the one shipped with the model."""
    temperature_K: float = 500.0
    """Temperature of the thermostat and of the initial velocities."""
    timestep_fs: float = 0.5
    """Time step."""
    steps: int = 20000
    """Number of steps; a restart may ask for more."""
    thermostat: str | None = None
    """langevin, nose-hoover or bussi; only with a thermostat, there nose-hoover by default."""
    tau_fs: float | None = None
    """Relaxation time of the thermostat (Langevin: 1/friction); None: a default for each thermostat."""
    seed: int = 0
    """Seed of the initial velocities and of the thermostat's noise."""
    interval: int = 100
    """Steps between two frames (trajectory, log, monitor)."""
    dtype: Dtype = "float32"
    """Precision of the model: float32 or float64."""
    protocol: str | None = None
    """Name of the protocol the settings come from."""
    bond_rule: bool = True
    """Whether a molecule counts as broken when a bond deviates by more than 0.5 Å."""
    rdf_rule: bool = True
    """Whether a periodic system counts as broken when numbers of neighbours or g(r) leave the reference."""
    temperature_end_K: float | None = None
    """Temperature at the end of the ramp; only in anneal."""
    ramp_steps: int | None = None
    """Steps of the ramp, after which the temperature stays; None: all steps."""
    pressure_GPa: float | None = None
    """Pressure; only in NPT, there 0 by default."""
    barostat: str | None = None
    """isotropic (the shape stays) or full; only in NPT, there isotropic by default."""
    tau_p_fs: float | None = None
    """Relaxation time of the barostat; only in NPT, there 1000 steps but at least 500 fs by default."""
    members: list[str] | None = None
    """Models that form a committee with `model`, whose mean force moves the atoms; None: one model alone."""
    threshold_eV_per_A: float | None = None
    """Spread of the force on an atom from which on a committee acts; None: the spread is only recorded."""
    action: Action | None = None
    """What a committee does then: warn or stop; by default warn."""

    def __post_init__(self) -> None:
        require(self.ensemble in ENSEMBLES, f"ensemble is one of {', '.join(ENSEMBLES)}, not {self.ensemble!r}")
        require(self.dtype in DTYPES, f"dtype is one of {', '.join(DTYPES)}, not {self.dtype!r}")
        for name, quantity in QUANTITIES.items():
            if (value := getattr(self, name)) is not None:
                quantity.check(value, name)
        row = ENSEMBLES[self.ensemble]
        self._settle_thermostat(row.thermostats)
        self._settle_own(row.own)
        self._settle_committee()
        row.check(self)

    def target_K(self, step: int) -> float:
        """Return temperature that the thermostat holds at `step`."""
        if self.temperature_end_K is None or not self.ramp_steps:
            return self.temperature_K
        done = min(1.0, step / self.ramp_steps)
        return self.temperature_K + done * (self.temperature_end_K - self.temperature_K)

    def _settle_thermostat(self, allowed: tuple[str, ...]) -> None:
        if not allowed:
            for name in OF_THERMOSTATS:
                self._refuse(name, "has no thermostat", [row.name for row in ENSEMBLES.values() if row.thermostats])
            return
        self._set("thermostat", self.thermostat or DEFAULT_THERMOSTAT)
        known = ", ".join(THERMOSTATS)
        require(self.thermostat in THERMOSTATS, f"thermostat is one of {known}, not {self.thermostat!r}")
        require(
            self.thermostat in allowed,
            f"{self.ensemble} runs with the thermostat {' or '.join(allowed)}, not {self.thermostat!r}",
        )
        default = THERMOSTATS[str(self.thermostat)].default_tau_fs
        tau_fs = default if self.tau_fs is None else self.tau_fs
        self._set("tau_fs", tau_fs)
        require(tau_fs >= 2 * self.timestep_fs, f"tau_fs must be at least two time steps, not {tau_fs}")

    def _settle_own(self, own: Mapping[str, Any]) -> None:
        """Refuse settings of other ensembles, and give those of this one their defaults."""
        for name in OF_ONE:
            default = own.get(name)
            if name not in own:
                self._refuse(name, "does not read it", [row.name for row in ENSEMBLES.values() if name in row.own])
            elif getattr(self, name) is None:
                self._set(name, default(self) if callable(default) else default)

    def _settle_committee(self) -> None:
        self._set("members", list(self.members) if self.members else None)
        given = " and ".join(name for name in OF_COMMITTEES if getattr(self, name) is not None)
        require(
            self.members is not None or not given,
            f"{given} is for a committee, and there is one model: give --model for two or more, or leave it out",
        )
        require(
            self.action is None or self.threshold_eV_per_A is not None,
            "action needs the threshold_eV_per_A from which on a committee acts, often 0.1 to 0.5",
        )
        if self.threshold_eV_per_A is not None:
            self._set("action", self.action or "warn")
            allowed = get_args(Action)
            require(self.action in allowed, f"action is {self.action!r}; allowed: {', '.join(allowed)}")

    def _refuse(self, name: str, why: str, others: list[str]) -> None:
        require(
            getattr(self, name) is None,
            f"{name} is {getattr(self, name)}, and {self.ensemble} {why}: leave it out, or run {' or '.join(others)}",
        )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def restart_every(self) -> int:
        """Steps between two restart points: the smallest multiple of `interval` that is at least RESTART_STEPS."""
        return self.interval * math.ceil(RESTART_STEPS / self.interval)

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return asdict(self)


def make_settings(ensemble: str, given: Mapping[str, Any] | None = None) -> MDSettings:
    """Make settings from defaults, then the protocol, then the options that were `given`.

    Parameters
    ----------
    ensemble : str
        nvt, nve, npt or anneal.
    given : mapping
        Fields of `MDSettings`; None: not given.

    Raises
    ------
    InputError
        For values that cannot be, and a protocol that is not there or is for another ensemble.
    """
    given = {name: value for name, value in (given or {}).items() if value is not None}
    require(ensemble in ENSEMBLES, f"ensemble is one of {', '.join(ENSEMBLES)}, not {ensemble!r}")
    protocol = load_protocol(given["protocol"], ensemble) if "protocol" in given else {}
    return MDSettings(**{**ENSEMBLES[ensemble].defaults, **protocol, **given, "ensemble": ensemble})


def unread(ensemble: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given that an ensemble does not read; `MDSettings` refuses it, older versions dropped it."""
    row = ENSEMBLES[ensemble]
    names = {*set(OF_ONE).difference(row.own), *(() if row.thermostats else OF_THERMOSTATS)}
    return {name: value for name, value in given.items() if name in names and value is not None}


def protocols() -> dict[str, dict[str, Any]]:
    """Read the named protocols of protocols.yaml: description, ensemble, seeds and settings of each."""
    return yaml.safe_load(PROTOCOLS.read_text(encoding="utf-8"))


def load_protocol(name: str, ensemble: str) -> dict[str, Any]:
    """Read the settings of one named protocol, which must be for this ensemble."""
    known = protocols()
    if name not in known:
        raise InputError(f"there is no protocol {name!r}; there are {', '.join(sorted(known))}")
    protocol = known[name]
    if protocol["ensemble"] != ensemble:
        raise InputError(
            f"the protocol {name!r} is for {protocol['ensemble'].upper()}: run it with asecalc {protocol['ensemble']}"
        )
    protocol.setdefault("seed", protocol.get("seeds", [0])[0])
    return {k: v for k, v in protocol.items() if k in {f.name for f in fields(MDSettings)}}


def continue_settings(stored: Mapping[str, Any], given: Mapping[str, Any]) -> MDSettings:
    """Make settings of a run that goes on: the stored ones; `given` ones must agree with them, only `steps` may grow.

    Parameters
    ----------
    stored : mapping
        As `MDSettings.to_dict` gave them.
    given : mapping
        Fields of `MDSettings`; None: not given.

    Raises
    ------
    InputError
        Naming each setting that differs.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if "protocol" in given and given["protocol"] != stored["protocol"]:
        given = {**load_protocol(given["protocol"], given.get("ensemble", stored["ensemble"])), **given}
    wanted = {**stored, **given}
    wrong = [name for name in stored if name != "steps" and wanted[name] != stored[name]]
    if wrong:
        found = "; ".join(f"{name} was {stored[name]!r}, now {wanted[name]!r}" for name in wrong)
        raise InputError(
            f"the run was begun with other settings ({found}): give the same ones, or another --output for a new run"
        )
    if wanted["steps"] < stored["steps"]:
        raise InputError(
            f"the run was made for {stored['steps']} steps and {wanted['steps']} are fewer: give as many or more"
        )
    return MDSettings(**wanted)
