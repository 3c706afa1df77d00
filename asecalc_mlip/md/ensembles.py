"""The kinds of runs, each declared once: its thermostats, defaults, own settings with their checks, and integrator.

A new kind is one row of ENSEMBLES; a setting that only it reads is a field of MDSettings beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.barostats import BAROSTATS, refuse_fixed
from asecalc_mlip.md.fixed import only_fixed
from asecalc_mlip.md.integrators import Integrator
from asecalc_mlip.md.thermostats import NVE, THERMOSTATS, Ramp, Thermostat

if TYPE_CHECKING:
    from asecalc_mlip.md.settings import MDSettings

__all__ = ["ENSEMBLES", "Ensemble", "make_integrator", "require"]


@dataclass(frozen=True)
class Ensemble:
    """One kind of run.

    Attributes
    ----------
    name : str
    make : callable
        Integrator of atoms (which have momenta and a calculator), settings and random numbers.
    thermostats : tuple of str
        Names of those that it may have; none: it has no thermostat.
    defaults : mapping
        Settings that are others than those of `MDSettings` unless told otherwise.
    own : mapping
        Settings that only it reads, with their defaults: values, or functions of the other settings.
    check : callable
        Raises InputError for settings of its own that cannot be.
    check_atoms : callable
        Raises InputError for structures that it cannot move, such as those with constraints that it does not know.
    """

    name: str
    make: Callable[[Atoms, MDSettings, np.random.Generator], Integrator]
    thermostats: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[MDSettings], None] = lambda settings: None
    check_atoms: Callable[[Atoms], Any] = only_fixed


def make_integrator(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Integrator:
    """Make the integrator that `settings` ask for, attached to `atoms`, which have momenta and a calculator."""
    return ENSEMBLES[settings.ensemble].make(atoms, settings, rng)


def require(condition: bool, message: str) -> None:
    """Raise InputError with this message unless the condition holds."""
    if not condition:
        raise InputError(message)


def _nve(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Integrator:
    return NVE(atoms, timestep_fs=settings.timestep_fs)


def _thermostat(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Thermostat:
    return THERMOSTATS[str(settings.thermostat)](
        atoms,
        timestep_fs=settings.timestep_fs,
        temperature_K=settings.temperature_K,
        tau_fs=settings.tau_fs,
        rng=rng,
    )


def _npt(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Integrator:
    # MDSettings has set them.
    assert settings.pressure_GPa is not None and settings.tau_fs is not None and settings.tau_p_fs is not None
    return BAROSTATS[str(settings.barostat)](
        atoms,
        timestep_fs=settings.timestep_fs,
        temperature_K=settings.temperature_K,
        pressure_GPa=settings.pressure_GPa,
        tau_fs=settings.tau_fs,
        tau_p_fs=settings.tau_p_fs,
    )


def _check_npt(settings: MDSettings) -> None:
    tau = settings.tau_p_fs
    assert tau is not None
    require(settings.barostat in BAROSTATS, f"barostat is one of {', '.join(BAROSTATS)}, not {settings.barostat!r}")
    require(tau >= 10 * settings.timestep_fs, f"tau_p_fs must be at least ten time steps, not {tau}")


def _anneal(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Integrator:
    return Ramp(_thermostat(atoms, settings, rng), settings.target_K)


_ROWS = (
    Ensemble("nvt", _thermostat, thermostats=tuple(THERMOSTATS)),
    Ensemble("nve", _nve, defaults={"temperature_K": 300.0}),
    Ensemble(
        "npt",
        _npt,
        thermostats=("nose-hoover",),  # which goes with the barostats
        defaults={"temperature_K": 300.0},
        own={
            "pressure_GPa": 0.0,
            "barostat": "isotropic",
            "tau_p_fs": lambda settings: max(500.0, 1000 * settings.timestep_fs),
        },
        check=_check_npt,
        check_atoms=refuse_fixed,
    ),
    Ensemble(
        "anneal",
        _anneal,
        thermostats=tuple(THERMOSTATS),
        defaults={
            "temperature_K": 300.0,
            "temperature_end_K": 3000.0,
            "thermostat": "langevin",
            "rdf_rule": False,
        },  # fmt: skip
        own={"temperature_end_K": 3000.0, "ramp_steps": lambda settings: settings.steps},
    ),
)
ENSEMBLES: dict[str, Ensemble] = {row.name: row for row in _ROWS}
