"""Molecular dynamics."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from asecalc_mlip.commands.common import PASS_ON


@click.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def nvt(arguments: tuple[str, ...]) -> None:
    """Molecular dynamics at constant temperature (asecalc nvt --help)."""
    sys.exit(import_module("md_protocols.nvt").main(list(arguments)))


@click.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def nve(arguments: tuple[str, ...]) -> None:
    """Molecular dynamics at constant energy (asecalc nve --help)."""
    sys.exit(import_module("md_protocols.nve").main(list(arguments)))
