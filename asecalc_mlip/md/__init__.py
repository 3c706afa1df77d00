"""Molecular dynamics with a stability monitor and an exact restart, from Python.

>>> from asecalc_mlip import md
>>> found = md.resolve("aspirin.pt")                       # model, start structure, reference
>>> settings = found.settings("nvt", temperature_K=300.0, steps=2000)
>>> atoms = found.atoms
>>> atoms.calc = found.calculator()
>>> result = md.run_md(atoms, settings, "run", reference=found.reference)
>>> print(result.report())

`md_protocols/nvt.py` does the same with each part by itself.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asecalc_mlip.md.barostats import FullNPT, IsotropicNPT
    from asecalc_mlip.md.campaign.plan import Campaign, plan_campaign, run_campaign
    from asecalc_mlip.md.campaign.report import CampaignReport
    from asecalc_mlip.md.conditions import warn_of
    from asecalc_mlip.md.ensembles import ENSEMBLES, make_integrator
    from asecalc_mlip.md.integrators import Integrator, degrees_of_freedom, maxwell_boltzmann
    from asecalc_mlip.md.lifecycle import continue_run, folder_for, run_md
    from asecalc_mlip.md.monitor import Failure, Monitor
    from asecalc_mlip.md.resolving import Resolved, resolve
    from asecalc_mlip.md.run import MDRun
    from asecalc_mlip.md.settings import MDSettings, make_settings, protocols
    from asecalc_mlip.md.summary import MDResult
    from asecalc_mlip.md.thermostats import NVE, THERMOSTATS, BussiRescaling, LangevinFixedCom, NoseHoover, Ramp

__all__ = [
    "ENSEMBLES",
    "NVE",
    "THERMOSTATS",
    "BussiRescaling",
    "Campaign",
    "CampaignReport",
    "Failure",
    "FullNPT",
    "Integrator",
    "IsotropicNPT",
    "LangevinFixedCom",
    "MDResult",
    "MDRun",
    "MDSettings",
    "Monitor",
    "NoseHoover",
    "Ramp",
    "Resolved",
    "continue_run",
    "degrees_of_freedom",
    "folder_for",
    "make_integrator",
    "make_settings",
    "maxwell_boltzmann",
    "plan_campaign",
    "protocols",
    "resolve",
    "run_campaign",
    "run_md",
    "warn_of",
]


def __getattr__(name: str) -> Any:
    # The parts import ASE, and campaigns torch, which those who import one file of this package may not need.
    if name in __all__:
        from asecalc_mlip.md import (
            barostats,
            conditions,
            ensembles,
            integrators,
            lifecycle,
            monitor,
            resolving,
            run,
            settings,
            summary,
            thermostats,
        )

        rooms = (
            barostats, conditions, ensembles, integrators, lifecycle, monitor, resolving, run, settings, summary,
            thermostats,
        )  # fmt: skip
        for room in rooms:
            if name in room.__all__:
                return getattr(room, name)
        from asecalc_mlip.md.campaign import plan, report

        return getattr(plan, name, None) or getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
