"""Molecular dynamics while the temperature rises. nvt.py shows each part of a run by itself.

python md_protocols/anneal.py                                  # shipped aspirin, 300 to 3000 K in 10 ps
python md_protocols/anneal.py --steps 200000 --output ramp     # in 100 ps: where does it break?

`asecalc anneal` does the same and has more options: --end-temperature, --ramp-steps.
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


@click.command(cls=RunCommand, help="Run molecular dynamics while the temperature rises to 3000 K.", epilog=EXIT_CODES)
@script_options("At the start; default 300 K.")
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
    settings = found.settings("anneal", temperature_K=temperature, steps=steps, seed=seed, temperature_end_K=3000.0)
    atoms = found.atoms
    atoms.calc = found.calculator(device="auto", dtype=settings.dtype)
    md.warn_of(atoms, settings, found.reference)

    # The monitor stops the run where the molecule breaks, and the report says at which temperature.
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
