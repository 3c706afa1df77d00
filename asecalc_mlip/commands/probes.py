"""What the energy landscape of a model looks like; each command is a script of md_protocols."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from asecalc_mlip.commands.common import PASS_ON

__all__ = ["COMMANDS"]

HELP = {
    "diatomic": "Energy of two lone atoms over their distance (asecalc diatomic --help).",
    "relax": "Relax a structure, and its cell if asked to (asecalc relax --help).",
    "vibrations": "Harmonic vibrations of a molecule (asecalc vibrations --help).",
    "scan": "Bond, angle and dihedral scans; smoothness of all bonds (asecalc scan --help).",
    "eos": "Equation of state of a crystal (asecalc eos --help).",
    "elastic": "Elastic constants of a crystal (asecalc elastic --help).",
    "phonons": "Phonons of a crystal (asecalc phonons --help).",
}


def _command(name: str, text: str) -> click.Command:
    @click.command(name, context_settings=PASS_ON, add_help_option=False, help=text)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments: tuple[str, ...]) -> None:
        sys.exit(import_module(f"md_protocols.{name}").main(list(arguments)))

    return run


COMMANDS = [_command(name, text) for name, text in HELP.items()]
