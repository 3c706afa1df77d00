"""Molecular dynamics."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from asecalc_mlip.commands.common import PASS_ON, existing


def _script(name: str, text: str) -> click.Command:
    """Command that hands its arguments to the script of that name in md_protocols."""

    @click.command(name, help=f"{text} (asecalc {name} --help).", context_settings=PASS_ON, add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        sys.exit(import_module(f"md_protocols.{name}").main(list(arguments)))

    return command


nvt = _script("nvt", "Molecular dynamics at constant temperature")
nve = _script("nve", "Molecular dynamics at constant energy")
npt = _script("npt", "Molecular dynamics at constant temperature and pressure")
anneal = _script("anneal", "Molecular dynamics with a temperature ramp")
campaign = _script("campaign", "Many runs: starts × seeds × temperatures × models")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("model")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--elements", metavar="A,B", help="Of the atom types, in order. Default: those with LAMMPS' masses.")
@click.option("--beside-pair-style", is_flag=True, help="Add the model to the script's pair_style; else refused.")
def lammps(model: str, script: str, arguments: tuple[str, ...], elements: str | None, beside_pair_style: bool) -> None:
    """Run the LAMMPS input SCRIPT with the forces of MODEL; further ARGUMENTS go to LAMMPS.

    The script has 'units metal' and, where other scripts have their pair_style, after the atoms are made:

    \b
        fix mlip all external pf/callback 1 1

    \b
    Example:
      asecalc lammps silica.pt in.silica --elements Si,O -var T 2000
    """
    existing(script)
    symbols = [symbol.strip() for symbol in elements.split(",")] if elements else None
    from asecalc_mlip.lammps import run_script

    run_script(model, script, symbols, arguments=arguments, beside_pair_style=beside_pair_style)
