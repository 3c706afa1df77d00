"""Molecular dynamics at constant energy. nvt.py shows each part of a run by itself.

python md_protocols/nve.py                                     # shipped aspirin, 300 K, 10 ps
python md_protocols/nve.py --steps 4000 --output nve           # given again, the same command goes on

`asecalc nve` does the same and has more options.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

try:
    from asecalc_mlip import md
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from asecalc_mlip import md

from asecalc_mlip.commands.run_options import EXIT_CODES, RunCommand, script_options


@click.command(cls=RunCommand, help="Run molecular dynamics at constant energy.", epilog=EXIT_CODES)
@script_options("Temperature of the first velocities; default 300 K.")
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

    # Model, start structure and the reference that the run is compared with, from one look at the file.
    found = md.resolve(model, structure)
    settings = found.settings("nve", temperature_K=temperature, steps=steps, seed=seed)
    atoms = found.atoms
    atoms.calc = found.calculator(device="auto", dtype=settings.dtype)
    md.warn_of(atoms, settings, found.reference)

    # How well the total energy is conserved says how good forces and time step are: see the drift in the report.
    result = md.run_md(
        atoms,
        settings,
        output or md.folder_for(settings, found.identity),
        reference=found.reference,
        identity=found.identity,
        progress=None,
    )
    click.echo(result.report())
    return result.exit_code


if __name__ == "__main__":
    main()
