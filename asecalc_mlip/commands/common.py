"""What the commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from asecalc_mlip.errors import InputError

# For scripts that read their own options.
PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


def existing(path: str) -> None:
    """Raise InputError unless there is such a file."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file.")


def settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Configuration files, which must exist, and KEY=VALUE pairs."""
    configs = [argument for argument in arguments if "=" not in argument]
    for config in configs:
        existing(config)
    return configs, [argument for argument in arguments if "=" in argument]


def report(path: Path) -> None:
    """Print the census of a file that was made, without what is implausible only for labels of another source."""
    frames = import_module("asecalc_mlip.data.readers").read_frames(path)
    allowed = import_module("training.pretrain").large_labels(path, frames)
    click.echo(f"{path}\n{import_module('asecalc_mlip.data.census').census(frames).report(allow_implausible=allowed)}")


def write_json(path: str, result: Any) -> None:
    """Write a result, or what its to_dict() returns."""
    to_dict: Callable[[], dict] | None = getattr(result, "to_dict", None)
    try:
        Path(path).write_text(json.dumps(to_dict() if to_dict else result, indent=2, default=float) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}).") from error


def reading_options(command: Callable) -> Callable:
    """Options that say where a labelled file has its labels, and in which units."""
    options = (
        click.option("--energy-key", help="Name of the energies, if not a usual one."),
        click.option("--forces-key", help="Name of the forces."),
        click.option("--stress-key", help="Name of the stresses."),
        click.option("--energy-unit", help="eV, kcal/mol, kJ/mol, Hartree, Rydberg; default: that of the format."),
        click.option("--length-unit", help="Ang, Bohr, nm."),
        click.option("--force-unit", help="Such as Hartree/Bohr, if not energy unit/length unit."),
    )
    for option in reversed(options):
        command = option(command)
    return command
