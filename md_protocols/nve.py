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

from asecalc_mlip.commands.running import EXIT_CODES, RunCommand


@click.command(cls=RunCommand, help="Run molecular dynamics at constant energy.", epilog=EXIT_CODES)
@click.option("--model", metavar="FILE", help="Model file or shipped model; default aspirin.pt.")
@click.option("--structure", metavar="FILE", help="Start structure, any file ASE reads; default: the model's own.")
@click.option("--temperature", type=float, metavar="K", help="Temperature of the first velocities; default 300 K.")
@click.option("--steps", type=int, metavar="N", help="Number of steps; default: 20000, 10 ps.")
@click.option("--seed", type=int, metavar="N", help="Seed of velocities and noise; default 0.")
@click.option("--output", metavar="DIR", help="Folder of the run; default: a name made from the settings.")
@click.option("--restart", is_flag=True, help="Continue what is in --output; other settings come from there.")
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
