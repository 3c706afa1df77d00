"""Molecular dynamics: one run and many runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, get_args

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.commands.run_options import EXIT_CODES, WORKERS, RunCommand
from asecalc_mlip.errors import Action, InputError
from asecalc_mlip.quantities import Quantity, parse_seeds

__all__ = ["anneal", "campaign", "npt", "nve", "nvt"]

CAMPAIGN_EXIT_CODES = (
    "Exit code: 0 all runs ended (stable or not), 2 bad input, 3 another error, 128 + signal if stopped."
)
DEVICE = "cpu, cuda, cuda:1, or auto: a GPU if there is one."
PROGRESS = "Show a progress bar even if this is not a terminal."
RESTART = "Continue the run in --output with its own settings. Giving the same command again does so, too."


def _run_command(ensemble: str, title: str, text: str) -> RunCommand:
    """Make the command that runs one ensemble."""
    more = "Give the same command again to continue an interrupted run, or to print a complete one."
    return RunCommand(
        ensemble,
        later=partial(_options, ensemble),
        callback=click.pass_obj(partial(_run, ensemble)),
        help=f"{title}\n\n{text} {more}\n\n\b\nExample:\n{_EXAMPLES[ensemble]}",
        epilog=EXIT_CODES,
    )


_EXAMPLES = {
    "nvt": "  asecalc nvt aspirin.pt --temperature 300 -o run\n  asecalc nvt silica.pt quartz.cif --steps 5000",
    "nve": "  asecalc nve aspirin.pt --temperature 300 -o run",
    "npt": "  asecalc npt silica.pt --pressure 5 --barostat full -o squeezed",
    "anneal": "  asecalc anneal aspirin.pt --protocol ramp -o ramp",
}
_WITH = (
    "MODEL is a .pt file or the name of a shipped model (default aspirin.pt); STRUCTURE is any file that ASE reads; "
    "of several structures the last is taken, and FILE@0 is the first."
)
_HOLDS = f"{_WITH} Atoms that are fixed in it (FixAtoms) stay where they are."


def _run(
    ensemble: str, calculator: Any, /, *, model: str | None, model_files: tuple[str, ...], structure: str | None,
    structure_file: str | None, reference: str | None, device: str, output: str | None, restart: bool,
    progress: bool | None, **options: Any,
) -> int:  # fmt: skip
    """Run or go on; returns the exit code. `calculator` stands in for that of the model file."""
    from asecalc_mlip.analysis.references import load_reference
    from asecalc_mlip.md.conditions import conditions, warn_of, warn_once
    from asecalc_mlip.md.ensembles import ENSEMBLES
    from asecalc_mlip.md.going_on import check_reference, ended_before
    from asecalc_mlip.md.lifecycle import continue_run, folder_for, run_md
    from asecalc_mlip.md.resolving import resolve

    warn_once.cache_clear()
    models, structure = _models(model, model_files), _one("STRUCTURE", structure, structure_file)
    if structure and structure.endswith(".pt"):
        raise InputError(f"{structure} is a model: for a committee give --model for each, as --model a.pt --model b.pt")
    if restart:
        if output is None:
            raise InputError("--restart needs the folder of the run: --output DIR")
        check_reference(output, load_reference(reference) if reference else None)
        given = {**options, "ensemble": ensemble, "structure": _resolved(structure)}
        result = continue_run(output, calculator, model=models, device=device, progress=progress, **given)
        click.echo(result.report())
        return result.exit_code
    found = resolve(models, structure, reference, calculator=calculator)
    settings = found.settings(ensemble, **options)
    folder = output or folder_for(settings, found.identity)
    check_reference(folder, found.known_reference if found.reference_given else None)
    ended = ended_before(folder, settings, found.identity, start=_given_start(found))
    if ended is None:
        atoms = found.atoms
        ENSEMBLES[ensemble].check_atoms(atoms)
        fitting = found.reference
        atoms.calc = found.calculator_for(settings, device=device)
        warn_of(atoms, settings, fitting)
        click.echo(f"{atoms.get_chemical_formula()}, {conditions(settings)}; output in {folder}", err=True)
        ended = run_md(atoms, settings, folder, reference=fitting, identity=found.identity, progress=progress)
    click.echo(ended.report())
    return ended.exit_code


def _given_start(found: Any) -> Any:
    """Return the structure that was given; None where none was, or it is gone, which a run that has ended survives."""
    with suppress(InputError):
        return found.atoms if found.structure_name is not None else None
    return None


def _models(positional: str | None, options: tuple[str, ...]) -> list[str] | None:
    """Return the models of an argument and of its options; several make a committee. None: none is given."""
    # The same word twice, as argument and option, is one model.
    given = [*([positional] if positional and positional not in options else []), *options]
    return given or None


def _one(name: str, positional: str | None, option: str | None) -> str | None:
    """Return the value of an argument or of its option, but not of both."""
    if positional and option and positional != option:
        raise InputError(f"{name} is given twice, as {positional!r} and as {option!r}: give it once")
    return positional or option


def _resolved(path: str | None) -> str | None:
    from pathlib import Path

    return str(Path(path).resolve()) if path else None


def _options(ensemble: str) -> list[click.Parameter]:
    """Make arguments and options; None means "not given": a protocol or the model fills it in."""
    from asecalc_mlip.md.ensembles import ENSEMBLES
    from asecalc_mlip.md.settings import make_settings
    from asecalc_mlip.md.thermostats import THERMOSTATS
    from asecalc_mlip.units import DTYPES

    default, row = make_settings(ensemble), ENSEMBLES[ensemble]
    heat = (
        "Temperature of the thermostat and of the first velocities"
        if row.thermostats
        else "Temperature of the first velocities"
    )
    if "temperature_end_K" in row.own:
        heat = "Temperature at the start"
    made: list[click.Parameter] = [
        click.Argument(["model"], required=False),
        click.Argument(["structure"], required=False),
        _option(
            "--model",
            "model_files",
            multiple=True,
            metavar="FILE",
            help="The same as MODEL; several make a committee, whose mean force moves the atoms.",
        ),
        _option("--structure", "structure_file", metavar="FILE", help="The same as STRUCTURE."),
        _option("--protocol", metavar="NAME", help=_protocols_help(ensemble)),
        _number(
            "--temperature",
            "temperature_K",
            q.TEMPERATURE,
            "K",
            f"{heat}; default {default.temperature_K:g} K.",
        ),
        *(_OWN[name]() for name in row.own),
        _number("--timestep", "timestep_fs", q.TIMESTEP, "FS", f"Time step; default {default.timestep_fs:g} fs."),
        _number("--steps", "steps", q.STEPS, "N", f"Number of steps; default {default.steps}."),
    ]
    if len(row.thermostats) > 1:
        kinds = click.Choice(row.thermostats)
        made.append(_option("--thermostat", type=kinds, help=f"Default {default.thermostat}."))
    if row.thermostats:
        taus = ", ".join(f"{THERMOSTATS[name].default_tau_fs:g} ({name})" for name in row.thermostats)
        made.append(_number("--tau", "tau_fs", q.TAU, "FS", f"Relaxation time of the thermostat; default, fs: {taus}."))
    return [
        *made,
        _number("--seed", "seed", q.SEED, "N", f"Seed of velocities and noise; default {default.seed}."),
        _number("--interval", "interval", q.INTERVAL, "N", f"Steps between frames; default {default.interval}."),
        _option("--dtype", type=click.Choice(DTYPES), help=f"Precision of the model; default {default.dtype}."),
        _number(
            "--threshold",
            "threshold_eV_per_A",
            q.FORCE,
            "EV/A",
            "Spread of the force on an atom from which on a committee acts; default: it is only recorded.",
        ),
        _option("--action", type=click.Choice(get_args(Action)), help="What a committee does then; default warn."),
        *_common_options(),
        _option("--output", "-o", metavar="DIR", help="Folder of the run; default: a name made from the settings."),
    ]


def _protocols_help(*ensembles: str) -> str:
    from asecalc_mlip.md.settings import protocols

    names = ", ".join(name for name, protocol in protocols().items() if protocol["ensemble"] in ensembles)
    return f"Named settings: {names}; default: those of the model, if it names some." if names else "Named settings."


def _common_options() -> list[click.Parameter]:
    """Make the options that a campaign has too."""
    watched = "Reference of the monitor: JSON, or frames to make one from; default: that of the model."
    return [
        _option("--device", default="auto", show_default=True, metavar="DEVICE", help=DEVICE),
        _option("--reference", metavar="FILE", help=watched),
        _option("--no-bond-rule", "bond_rule", flag_value=False, help="Do not stop when a bond breaks (reactions)."),
        _option("--no-rdf-rule", "rdf_rule", flag_value=False, help="Do not stop when order is lost (melting)."),
        _option("--restart", is_flag=True, help=RESTART),
        _option("--progress", flag_value=True, help=PROGRESS),
    ]


def _option(*names: str, **attributes: Any) -> click.Option:
    if "flag_value" in attributes:
        attributes = {"is_flag": True, "default": None, "type": bool, **attributes}
    return click.Option([*names], **attributes)


def _number(flag: str, name: str, quantity: Quantity, metavar: str, text: str) -> click.Option:
    return click.Option([flag, name], type=Number(quantity), metavar=metavar, help=text)


def _barostat() -> click.Option:
    from asecalc_mlip.md.barostats import BAROSTATS

    kinds = click.Choice(tuple(BAROSTATS))
    return _option("--barostat", type=kinds, help="Whether the shape of the cell may change; default isotropic.")


# Of the settings that only one ensemble reads.
_OWN: Mapping[str, Callable[[], click.Option]] = {
    "temperature_end_K": lambda: _number(
        "--end-temperature", "temperature_end_K", q.TEMPERATURE, "K", "End of the ramp; default 3000 K."
    ),
    "ramp_steps": lambda: _number(
        "--ramp-steps",
        "ramp_steps",
        q.STEPS,
        "N",
        "Steps of the ramp; afterwards the temperature stays constant; default: all steps.",
    ),
    "pressure_GPa": lambda: _number("--pressure", "pressure_GPa", q.PRESSURE, "GPA", "Pressure; default 0 GPa."),
    "barostat": _barostat,
    "tau_p_fs": lambda: _number(
        "--tau-p",
        "tau_p_fs",
        q.TAU,
        "FS",
        "Relaxation time of the barostat; default 1000 steps, at least 500 fs.",
    ),
}

nvt = _run_command("nvt", "Run molecular dynamics at constant temperature.", _HOLDS)
nve = _run_command("nve", "Run molecular dynamics at constant energy.", _HOLDS)
npt = _run_command("npt", "Run molecular dynamics at constant temperature and pressure.", _WITH)
anneal = _run_command("anneal", "Run molecular dynamics while the temperature changes.", _HOLDS)


def _campaign_options() -> list[click.Parameter]:
    from asecalc_mlip.md.campaign.plan import CAMPAIGN_THERMOSTATS
    from asecalc_mlip.units import DTYPES

    seeds = "Number of seeds from 0 on, or the seeds; default: those of the protocol, else 3."
    return [
        click.Argument(["models"], nargs=-1, metavar="[MODEL]..."),
        _option("--model", "model_files", multiple=True, metavar="FILE", help="The same as MODEL; may be repeated."),
        _option("--structure", "structures", multiple=True, metavar="FILE", help="Start structures; may be repeated."),
        _number("--starts", "starts", q.RUNS, "N", "Take N structures, evenly spread over the files; default: all."),
        _option("--seeds", metavar="N|A,B,C", help=seeds),
        _option("--temperature", "temperatures_K", type=Number(q.TEMPERATURE), multiple=True, metavar="K",
                help="Temperature; may be repeated."),
        _option("--ensemble", type=click.Choice(("nvt", "nve")), help="Default: that of the protocol, else nvt."),
        _option("--protocol", metavar="NAME", help=_protocols_help("nvt", "nve")),
        _number("--timestep", "timestep_fs", q.TIMESTEP, "FS", "Time step."),
        _number("--steps", "steps", q.STEPS, "N", "Steps of each run."),
        _number("--interval", "interval", q.INTERVAL, "N", "Steps between frames."),
        _option("--thermostat", type=click.Choice(CAMPAIGN_THERMOSTATS), help="Thermostat of all runs."),
        _number("--tau", "tau_fs", q.TAU, "FS", "Relaxation time of the thermostat."),
        _option("--dtype", type=click.Choice(DTYPES), help="Precision of the models."),
        *_common_options(),
        _option("--batch-size", type=Number(q.BATCH), default=64, show_default=True, metavar="N",
                help="Largest number of replicas in one batch."),
        *(_option(name, **given) for name, given in WORKERS.items()),
        _option("--output", "-o", metavar="DIR", help="Folder; default campaign, or the next free name."),
    ]  # fmt: skip


def _run_campaign(
    *, models: tuple[str, ...], model_files: tuple[str, ...], restart: bool, output: str | None, device: str,
    batch_size: int, processes: int, dask: str | None, progress: bool | None, seeds: str | None, **options: Any,
) -> int:  # fmt: skip
    """Run many simulations: models × starts × temperatures × seeds.

    Each MODEL is a .pt file or the name of a shipped model (default aspirin.pt). Replicas of a model run in one batch.
    Give the same command again to continue an interrupted campaign.

    \b
    Example:
      asecalc campaign --seeds 64 --steps 20000
      asecalc campaign a.pt b.pt --structure test.xyz --starts 100 --protocol eam-silica
    """
    from asecalc_mlip.md.campaign.plan import Campaign, check_means, plan_campaign, run_campaign
    from asecalc_mlip.md.conditions import warn_once

    warn_once.cache_clear()
    check_means(batch_size=batch_size, processes=processes, dask=dask)
    every, numbers = (*models, *model_files), parse_seeds(seeds, most=1_000_000)
    if restart:
        planned = Campaign.stored(output or "campaign", models=every, seeds=numbers, **options)
    else:
        planned = plan_campaign(every or ("aspirin.pt",), output=output, seeds=numbers, **options)
    report = run_campaign(
        planned, device=device, batch_size=batch_size, processes=processes, dask=dask, progress=progress
    )
    click.echo(str(report))
    return report.exit_code


campaign = RunCommand(
    "campaign", later=_campaign_options, callback=_run_campaign, help=_run_campaign.__doc__, epilog=CAMPAIGN_EXIT_CODES
)
