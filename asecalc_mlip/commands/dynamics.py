"""Molecular dynamics, and what it is compared with."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from asecalc_mlip.commands.common import PASS_ON, existing, write_json


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


@click.command()
@click.argument("frames")
@click.option("--pair", "pairs", multiple=True, metavar="A-B", help="E.g. O-Si; may be repeated. Default: all.")
@click.option("--reference", metavar="FILE", help="Reference (JSON) or frames to compare with.")
@click.option("--group", help="Part of the reference to compare with, e.g. a zeolite's topology.")
@click.option("--r-max", type=float, default=6.0, show_default=True, help="Å.")
@click.option("--bins", type=click.IntRange(1), default=120, show_default=True)
@click.option("--index", default=":", show_default=True, metavar="START:STOP:STEP", help="Frames to take.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the functions to this JSON file.")
@click.option("--figure", type=click.Path(dir_okay=False), help="Draw them into this file.")
@click.option("--save-reference", type=click.Path(dir_okay=False), help="Write a reference for nvt.py made of FRAMES.")
@click.option("--kind", type=click.Choice(["solid", "liquid"]), default="solid", show_default=True,
              help="Of the saved reference: unstable above 1.0 or 3.0 Å.")  # fmt: skip
@click.option("--group-by", metavar="KEY", help="Entry of info that parts the saved reference, e.g. topology.")
@click.option("--temperature", type=float, help="K; that of runs with the saved reference.")
@click.option("--protocol", help="Protocol of runs with the saved reference, e.g. eam-silica.")
@click.option("--source", default="", help="Where the frames of the saved reference come from.")
def rdf(frames: str, **options: Any) -> None:
    """Radial distribution functions of periodic FRAMES (any file ASE reads), total and by pair of elements.

    asecalc rdf run/trajectory.extxyz --reference silica.reference.json --group edi --figure rdf.png
    """
    existing(frames)
    result = import_module("asecalc_mlip.analysis.rdf_report").rdf_report(frames, **options)
    click.echo(str(result))
    if options["output"]:
        write_json(options["output"], result)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("model")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--elements", metavar="A,B", help="Of the atom types, in order. Default: those with LAMMPS' masses.")
@click.option("--beside-pair-style", is_flag=True, help="Add the model to the script's pair_style; else refused.")
def lammps(model: str, script: str, arguments: tuple[str, ...], elements: str | None, beside_pair_style: bool) -> None:
    """Run the LAMMPS input SCRIPT with the forces of MODEL; further ARGUMENTS go to LAMMPS.

    The script has 'units metal' and, where other scripts have their pair_style, after the atoms are made:

        fix mlip all external pf/callback 1 1

    asecalc lammps silica.pt in.silica --elements Si,O -var T 2000
    """
    existing(script)
    symbols = [symbol.strip() for symbol in elements.split(",")] if elements else None
    run_script = import_module("asecalc_mlip.lammps").run_script
    run_script(model, script, symbols, arguments=arguments, beside_pair_style=beside_pair_style)
