"""Plan a campaign and run it: models × start structures × temperatures × seeds, as one table of runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.calculators.states import state_note
from asecalc_mlip.data.xyz_files import xyz_bytes
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_structures
from asecalc_mlip.md.batch_integrators import BATCHED
from asecalc_mlip.md.campaign.going_on import check_plan
from asecalc_mlip.md.campaign.report import CampaignReport, report_campaign
from asecalc_mlip.md.campaign.runs import (
    PLAN,
    STARTS,
    Run,
    pick_frames,
    plan_runs,
    read_plan,
    run_in_worker,
    run_share,
    shares,
    write_plan,
)
from asecalc_mlip.md.conditions import time_step_note, warn_once
from asecalc_mlip.md.resolving import Resolved, resolve
from asecalc_mlip.md.settings import MDSettings, make_settings, protocols, unread
from asecalc_mlip.md.thermostats import THERMOSTATS
from asecalc_mlip.stopping import SoftStop
from asecalc_mlip.workers import Lost, Pool, Workers, each

__all__ = ["CAMPAIGN_THERMOSTATS", "Campaign", "plan_campaign", "run_campaign"]

CAMPAIGN_THERMOSTATS = tuple(name for name, kind in THERMOSTATS.items() if kind in BATCHED)
DEFAULT_SEEDS, DEFAULT_FOLDER = (0, 1, 2), "campaign"
# Of models that stand beside each other in one table.
_SAME = ("ensemble", "temperature_K", "timestep_fs", "steps", "thermostat", "tau_fs", "protocol")


@dataclass(frozen=True)
class Campaign:
    """Runs and the folder they are in."""

    directory: Path
    runs: list[Run]

    @classmethod
    def stored(cls, directory: str | os.PathLike, **given: Any) -> Campaign:
        """Read the one that was planned in a folder.

        Parameters
        ----------
        directory : path
        **given
            Of the arguments of `plan_campaign`, which must be those of the plan; None or empty: not given.

        Raises
        ------
        InputError
            There is none, its models have changed, or it was planned with other arguments.
        """
        runs = read_plan(Path(directory))
        check_plan(Path(directory), runs, **given)
        return cls(Path(directory), runs)


def plan_campaign(
    models: Sequence[str | Path] = (MDSettings.model,),
    structures: Sequence[str | Path] = (),
    *,
    output: str | os.PathLike | None = None,
    starts: int | None = None,
    temperatures_K: Sequence[float] = (),
    seeds: Sequence[int] | None = None,
    ensemble: str | None = None,
    reference: str | Path | None = None,
    **given: Any,
) -> Campaign:
    """Plan all combinations, and write the plan; the same plan as before goes on.

    Parameters
    ----------
    models : sequence of paths or names of shipped models
        Each is opened once.
    structures : sequence of paths
        Files of start structures; by default the one beside the model.
    output : path, optional
        Folder; by default "campaign", or the next free name where that has other settings.
    starts : int, optional
        So many of the structures, evenly spread; by default all.
    temperatures_K : sequence of float
        K; by default what the models suggest.
    seeds : sequence of int, optional
        By default those of the protocol, else 0, 1, 2.
    ensemble : str, optional
        nvt or nve; by default that of the protocol, else nvt.
    reference : path, optional
        For all runs; by default each model's own.
    **given
        Other fields of `MDSettings`; None: not given.

    Raises
    ------
    InputError
        Nothing to run, models that would run under unlike conditions, a folder with another campaign.
    """
    found = {resolved.path: resolved for resolved in (resolve(model, reference=reference) for model in models)}
    paths = [path for path in found if path is not None]
    frames = _starts(structures, starts, list(found.values()))
    own = protocols().get(given.get("protocol") or "", {})
    # One that a campaign does not run is refused with the command that does.
    ensemble = ensemble or (own["ensemble"] if own.get("ensemble") == "nve" else "nvt")
    # A campaign that an older version began with what its ensemble does not read goes on by the same call.
    begun = (Path(output or DEFAULT_FOLDER) / PLAN).exists()
    dropped = unread(ensemble, given) if begun else {}
    given = {name: value for name, value in given.items() if name not in dropped}

    def make(model: str, temperature: float | None, seed: int) -> MDSettings:
        free = not given.get("protocol") and not temperatures_K
        named = found[Path(model)].suggestions(ensemble) if free else {}
        wanted = {**given, "temperature_K": temperature, "seed": seed, "model": model}
        known = {name: value for name, value in wanted.items() if value is not None}
        settings = make_settings(ensemble, {**named, **known})
        if settings.thermostat is not None and settings.thermostat not in CAMPAIGN_THERMOSTATS:
            allowed = " or ".join(CAMPAIGN_THERMOSTATS)
            raise InputError(f"a campaign advances replicas by {allowed}, not {settings.thermostat}")
        return settings

    _check_same_conditions(paths, [make(str(path), next(iter(temperatures_K), None), 0) for path in paths])
    kelvins = list(temperatures_K) or sorted({make(str(path), None, 0).temperature_K for path in paths})
    for atoms in {a.get_chemical_formula(): a for a in frames}.values():
        if note := time_step_note(atoms, make(str(paths[0]), kelvins[0], 0).timestep_fs):
            warn_once(note)
    # Starts of one formula may state several states, each of which is told.
    for note in filter(None, (state_note(a, path.name, found[path].card) for path in paths for a in frames)):
        warn_once(note)
    reference = str(Path(reference).resolve()) if reference else None
    wanted_seeds = seeds or own.get("seeds") or DEFAULT_SEEDS
    runs = plan_runs(paths, len(frames), kelvins, wanted_seeds, make, reference)
    return _written(runs, frames, output, lambda: make_settings(ensemble, dropped))


def run_campaign(
    campaign: Campaign,
    *,
    device: str = "auto",
    batch_size: int = 64,
    processes: int = 1,
    dask: str | None = None,
    progress: bool | None = False,
) -> CampaignReport:
    """Run what is left of a campaign, and report.

    Parameters
    ----------
    campaign : Campaign
    device : str
        "auto", "cpu", "cuda".
    batch_size : int
        Most replicas that advance together.
    processes : int
        Of this machine; several use one thread each.
    dask : str, optional
        Address of a Dask scheduler whose workers see folder and models.
    progress : bool or None
        True: a progress bar; None: only on a terminal; False: none.

    Raises
    ------
    InputError
        For numbers below 1, and a scheduler that does not answer.
    """
    workers = check_means(batch_size=batch_size, processes=processes, dask=dask)
    directory, runs = campaign.directory, campaign.runs
    todo = shares(directory, runs, batch_size, processes)
    hidden = None if progress is None else not progress
    # New processes take seconds to begin, which one share alone is not worth.
    with (workers if dask or len(todo) > 1 else Workers()).open(directory) as pool:
        signal = _there(pool, directory, todo, device, hidden) if pool else _here(directory, todo, device, hidden)
    return report_campaign(directory, runs, signal, had_ended=not todo)


def check_means(*, batch_size: int, processes: int, dask: str | None) -> Workers:
    """Refuse what a campaign cannot be run with, before a plan is written."""
    if batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, not {batch_size}")
    return Workers(processes, dask)


def _there(pool: Pool, directory: Path, todo: Sequence[Sequence[Run]], device: str, hidden: bool | None) -> int | None:
    """Run the shares in workers; return the signal that stopped them, if one did."""
    tasks = [(str(directory.resolve()), share, device) for share in todo]
    with SoftStop() as stop, tqdm(total=len(todo), unit="share", disable=hidden) as bar:
        try:
            for _ in each(pool, run_in_worker, tasks, lambda: bool(stop.signal)):
                bar.update()
        except Lost as error:
            raise InputError(f"a share of the campaign is not done: {error}; give the same command again") from None
        return stop.signal


def _here(directory: Path, todo: Sequence[Sequence[Run]], device: str, hidden: bool | None) -> int | None:
    total = sum(run.settings["steps"] for share in todo for run in share)
    with SoftStop() as stop, tqdm(total=total, unit="step", unit_scale=True, disable=hidden) as bar:
        for share in todo:
            if not stop.signal:
                run_share(str(directory), share, device=device, stop=lambda: bool(stop.signal), tick=bar.update)
        return stop.signal


def _written(
    runs: list[Run], starts: Sequence[Atoms], output: str | os.PathLike | None, check: Callable[[], Any]
) -> Campaign:
    """Return the plan in its folder: written there after a check, or found there as it is."""
    directory, number = Path(output or DEFAULT_FOLDER), 1
    while (directory / PLAN).exists():
        difference = _difference(directory, runs, starts)
        if difference is None:
            return Campaign(directory, runs)
        if output is not None:
            raise InputError(
                f"{directory} has a campaign already, and {difference}: give the same settings to continue, or another "
                "--output"
            )
        number += 1
        directory = Path(f"{DEFAULT_FOLDER}-{number}")
    check()
    write_plan(directory, runs, starts)
    return Campaign(directory, runs)


def _difference(directory: Path, runs: Sequence[Run], starts: Sequence[Atoms]) -> str | None:
    """How the plan in a folder differs from this one, or None."""
    stored = read_plan(directory)
    if len(stored) != len(runs):
        return f"it has {len(stored)} runs, now {len(runs)}"
    for before, now in zip(stored, runs, strict=True):
        names = [name for name in now.settings if name != "model" and before.settings.get(name) != now.settings[name]]
        if names:
            name = names[0]
            return f"{name} of {before.name} was {before.settings.get(name)!r}, now {now.settings[name]!r}"
        if (before.name, before.sha256, before.reference) != (now.name, now.sha256, now.reference):
            return f"{before.name} is of another model or reference"
    same = (directory / STARTS).read_bytes() == xyz_bytes(starts)
    return None if same else "its start structures were others"


def _check_same_conditions(models: Sequence[Path], settings: Sequence[MDSettings]) -> None:
    """Refuse models that would run under unlike conditions beside each other in one table."""
    unlike = [name for name in _SAME if len({getattr(s, name) for s in settings}) > 1]
    if unlike:
        told = "; ".join(
            f"{model.name}: {', '.join(f'{name} {getattr(s, name)}' for name in unlike)}"
            for model, s in zip(models, settings, strict=True)
        )
        raise InputError(
            f"the models are meant for unlike runs ({told}), which cannot be compared: give --protocol, or "
            "--temperature, --timestep, --steps and --thermostat, for all of them"
        )


def _starts(structures: Sequence[str | Path], number: int | None, found: Sequence[Resolved]) -> list[Atoms]:
    """Start structures from files, or the one that comes with the only model."""
    paths = [Path(path) for path in structures]
    if not paths and len(found) > 1:
        raise InputError("several models need start structures that all of them know: give --structure FILE")
    if not paths:
        if found[0].structure_file is None:
            raise InputError(f"the model {found[0].name} comes without a start structure: give --structure FILE")
        paths = [found[0].structure_file]
    return pick_frames(read_structures(*paths), number, ", ".join(map(str, paths)))
