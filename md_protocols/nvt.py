"""Molecular dynamics at constant temperature, call by call: copy `main` into a notebook and change what you like.

python md_protocols/nvt.py                                     # shipped aspirin, 500 K, 10 ps
python md_protocols/nvt.py --model silica.pt --steps 2000 --output silica
python md_protocols/nvt.py --model silica.pt --steps 2000 --output silica    # the same command goes on

`asecalc nvt` does the same and has more options.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

try:
    from asecalc_mlip import md
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from asecalc_mlip import md

from asecalc_mlip.commands.run_options import EXIT_CODES, RunCommand, script_options


@click.command(cls=RunCommand, help="Run molecular dynamics at constant temperature.", epilog=EXIT_CODES)
@script_options("Temperature; default: that of the model, else 500 K.")
def main(
    model: str | None,
    structure: str | None,
    temperature: float | None,
    steps: int | None,
    seed: int | None,
    output: str | None,
    restart: bool,
) -> int:
    """Run molecular dynamics; returns the exit code."""
    if restart:
        if output is None:
            raise click.UsageError("--restart needs the folder of the run: --output DIR")
        result = md.continue_run(output, model=model, temperature_K=temperature, steps=steps, seed=seed, progress=None)
        click.echo(result.report())
        return result.exit_code

    # Load the model, its start structure, and the reference with which the monitor compares the run.
    found = md.resolve(model, structure)

    # The settings fix the trajectory. Those that are not given come from the model, or are defaults: print(settings).
    settings = found.settings("nvt", temperature_K=temperature, steps=steps, seed=seed)

    # Any ase.Atoms with any ASE calculator will do.
    atoms = found.atoms
    atoms.calc = found.calculator(device="auto", dtype=settings.dtype)

    # One generator gives the first velocities and then the noise of the thermostat.
    rng = np.random.default_rng(settings.seed)
    md.maxwell_boltzmann(atoms, settings.temperature_K, rng)

    # The thermostat of the settings. To make one directly: md.NoseHoover(atoms, timestep_fs=0.5, temperature_K=500.0).
    thermostat = md.make_integrator(atoms, settings, rng)

    # The monitor looks at every frame: broken bonds, atoms too close, g(r), temperature.
    monitor = md.Monitor.for_run(atoms, settings, found.reference)
    md.warn_of(atoms, settings, found.reference)

    # The run writes trajectory, log, restart file, summary and figure. It continues a run with the same settings that
    # is already in its folder.
    run = md.MDRun(
        atoms,
        settings,
        output or md.folder_for(settings, found.identity),
        integrator=thermostat,
        monitor=monitor,
        reference=found.reference,
        identity=found.identity,
    )
    result = run.run(progress=None)
    click.echo(result.report())
    return result.exit_code


if __name__ == "__main__":
    main()
