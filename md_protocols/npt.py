"""Molecular dynamics at constant temperature and pressure. nvt.py shows each part of a run by itself.

python md_protocols/npt.py --model silica.pt                   # 300 K, 0 GPa, 10 ps
python md_protocols/npt.py --model silica.pt --steps 4000 --output npt

`asecalc npt` does the same and has more options: --pressure, --barostat.
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


@click.command(cls=RunCommand, help="Run molecular dynamics at constant temperature and pressure.", epilog=EXIT_CODES)
@script_options("Temperature; default 300 K.")
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
    settings = found.settings(
        "npt", temperature_K=temperature, steps=steps, seed=seed, pressure_GPa=0.0, barostat="isotropic"
    )
    atoms = found.atoms
    atoms.calc = found.calculator(device="auto", dtype=settings.dtype)
    md.warn_of(atoms, settings, found.reference)

    # The cell moves too: log.csv has its volume, pressure and lengths, and the figure shows them.
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
