"""Settings of a molecular dynamics run: defaults, named protocols, checks, and what may change at a restart."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import yaml

from asecalc_mlip.errors import InputError

PROTOCOLS = Path(__file__).with_name("protocols.yaml")
ENSEMBLES = ("nvt", "nve", "npt", "anneal")
THERMOSTATS = ("langevin", "nose-hoover", "bussi")
BAROSTATS = ("isotropic", "full")
Dtype = Literal["float32", "float64"]
DTYPES: tuple[str, ...] = get_args(Dtype)
DEFAULT_TAU_FS = {"langevin": 100.0, "nose-hoover": 50.0, "bussi": 100.0}
# Restart points are at least this many steps apart: each costs one extra force call.
RESTART_STEPS = 200
# What an ensemble does unless told otherwise; the rest is in MDSettings.
DEFAULTS: dict[str, dict] = {
    "nvt": {},
    "nve": {"temperature_K": 300.0},
    "npt": {"temperature_K": 300.0},
    "anneal": {"temperature_K": 300.0, "temperature_end_K": 3000.0, "thermostat": "langevin", "rdf_rule": False},
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
    thermostat: str | None = "nose-hoover"
    """langevin, nose-hoover or bussi; None in NVE, nose-hoover in NPT."""
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
    """Whether a periodic system counts as broken when its g(r) leaves the reference."""
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

    def __post_init__(self) -> None:
        allowed = ", ".join(ENSEMBLES)
        _require(self.ensemble in ENSEMBLES, f"ensemble is one of {allowed}, not {self.ensemble!r}")
        _require(self.dtype in DTYPES, f"dtype is one of {', '.join(DTYPES)}, not {self.dtype!r}")
        for name in ("temperature_K", "timestep_fs"):
            _require_positive(name, getattr(self, name))
        _require(self.steps >= 0, f"steps must not be negative ({self.steps})")
        _require(self.interval >= 1, f"interval must be at least 1 step, not {self.interval}")
        _require(self.seed >= 0, f"seed must not be negative ({self.seed})")
        self._settle_thermostat()
        self._settle_ramp()
        self._settle_barostat()

    def target_K(self, step: int) -> float:
        """Temperature that the thermostat holds at `step`."""
        if self.temperature_end_K is None or not self.ramp_steps:
            return self.temperature_K
        done = min(1.0, step / self.ramp_steps)
        return self.temperature_K + done * (self.temperature_end_K - self.temperature_K)

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def _settle_thermostat(self) -> None:
        if self.ensemble == "nve":
            self._set("thermostat", None)
            self._set("tau_fs", None)
            return
        allowed = ", ".join(THERMOSTATS)
        _require(self.thermostat in THERMOSTATS, f"thermostat is one of {allowed}, not {self.thermostat!r}")
        if self.ensemble == "npt":
            _require(
                self.thermostat == "nose-hoover",
                f"npt has the thermostat nose-hoover, which goes with its barostat, not {self.thermostat!r}",
            )
        tau_fs = DEFAULT_TAU_FS[str(self.thermostat)] if self.tau_fs is None else self.tau_fs
        self._set("tau_fs", tau_fs)
        _require(tau_fs >= 2 * self.timestep_fs, f"tau_fs must be at least two time steps, not {tau_fs}")

    def _settle_ramp(self) -> None:
        if self.ensemble != "anneal":
            self._set("temperature_end_K", None)
            self._set("ramp_steps", None)
            return
        end = 3000.0 if self.temperature_end_K is None else self.temperature_end_K
        _require_positive("temperature_end_K", end)
        self._set("temperature_end_K", end)
        if self.ramp_steps is None:
            self._set("ramp_steps", self.steps)
        _require(int(self.ramp_steps or 0) >= 0, f"ramp_steps must not be negative ({self.ramp_steps})")

    def _settle_barostat(self) -> None:
        if self.ensemble != "npt":
            for name in ("pressure_GPa", "barostat", "tau_p_fs"):
                self._set(name, None)
            return
        pressure = 0.0 if self.pressure_GPa is None else self.pressure_GPa
        _require(math.isfinite(pressure), f"pressure_GPa must be a number, not {pressure}")
        self._set("pressure_GPa", pressure)
        self._set("barostat", self.barostat or "isotropic")
        _require(self.barostat in BAROSTATS, f"barostat is one of {', '.join(BAROSTATS)}, not {self.barostat!r}")
        tau = max(500.0, 1000 * self.timestep_fs) if self.tau_p_fs is None else self.tau_p_fs
        self._set("tau_p_fs", tau)
        _require(tau >= 10 * self.timestep_fs, f"tau_p_fs must be at least ten time steps, not {tau}")

    @property
    def restart_every(self) -> int:
        """Steps between two restart points: the smallest multiple of `interval` that is at least RESTART_STEPS."""
        return self.interval * math.ceil(RESTART_STEPS / self.interval)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def make_settings(ensemble: str, given: dict) -> MDSettings:
    """Settings from defaults, then the protocol, then the options that were `given` (None: not given)."""
    given = {name: value for name, value in given.items() if value is not None}
    defaults = DEFAULTS[ensemble]
    protocol = load_protocol(given["protocol"], ensemble) if "protocol" in given else {}
    return MDSettings(**{**defaults, **protocol, **given, "ensemble": ensemble})


def load_protocol(name: str, ensemble: str) -> dict:
    """The settings of one named protocol of protocols.yaml."""
    protocols = yaml.safe_load(PROTOCOLS.read_text(encoding="utf-8"))
    if name not in protocols:
        raise InputError(f"There is no protocol {name!r}; protocols.yaml has {', '.join(sorted(protocols))}.")
    protocol = protocols[name]
    if protocol["ensemble"] != ensemble:
        script = f"md_protocols/{protocol['ensemble']}.py"
        raise InputError(f"The protocol {name!r} is for {protocol['ensemble'].upper()}: run it with {script}.")
    protocol.setdefault("seed", protocol.get("seeds", [0])[0])
    return {k: v for k, v in protocol.items() if k in {f.name for f in fields(MDSettings)}}


def protocol_plan(name: str) -> tuple[str | None, list[int] | None]:
    """Ensemble and seeds of a named protocol, None where there is no such protocol."""
    protocol = yaml.safe_load(PROTOCOLS.read_text(encoding="utf-8")).get(name, {})
    return protocol.get("ensemble"), protocol.get("seeds")


def continue_settings(stored: dict, ensemble: str, given: dict) -> MDSettings:
    """Settings of a restart: the stored ones; `given` options must agree with them, only `steps` may grow.

    Raises
    ------
    InputError
        Naming each option that differs.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if "protocol" in given and given["protocol"] != stored["protocol"]:
        given = {**load_protocol(given["protocol"], ensemble), **given}
    wanted = {**stored, **given, "ensemble": ensemble}
    wrong = [name for name in stored if name != "steps" and wanted[name] != stored[name]]
    if wrong:
        found = "; ".join(f"{name} was {stored[name]!r}, now {wanted[name]!r}" for name in wrong)
        raise InputError(
            f"A restart continues the same run, but {found}. Leave these options out, or start a new run "
            "in another --output."
        )
    if wanted["steps"] < stored["steps"]:
        raise InputError(
            f"The run was made for {stored['steps']} steps and {wanted['steps']} are fewer: give the same number or "
            "more, or leave --steps out."
        )
    return MDSettings(**wanted)


def _require_positive(name: str, value: float) -> None:
    _require(math.isfinite(value) and value > 0, f"{name} must be a positive number, not {value}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message + ".")
