"""Shared parts of the commands."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from asecalc_mlip.errors import InputError
from asecalc_mlip.quantities import shortened


class BadInput(click.ClickException):
    """Input that cannot be used: click prints "Error: ..." and exits with 2."""

    exit_code = 2


class Repeating(click.Command):
    """Command whose repeatable options take several values at once: --pairs A-B B-C, or --pairs A-B --pairs B-C."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat an option before each of its values, which click expects."""
        many = {name for p in self.params if isinstance(p, click.Option) and p.multiple for name in p.opts}
        spread: list[str] = []
        option, values = "", 0
        for word in args:
            if word.startswith("-"):
                option, values = word if word in many else "", 0
            elif option:
                values += 1
                if values > 1:
                    spread.append(option)
            spread.append(word)
        return super().parse_args(ctx, spread)


def check_text(arguments: Sequence[str]) -> None:
    """Raise BadInput for arguments that are no text: names in another encoding, which files and figures cannot show."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            raise BadInput(f"{shortened(argument)} is not UTF-8 text: rename the file, or make a link to it") from None


def is_of_file(error: OSError) -> bool:
    """Tell whether an error is about a file or folder that the user can choose otherwise."""
    return error.errno in _OF_FILES


def told(error: OSError) -> str:
    """Return in one line what is wrong with a file, and what to do."""
    name = "" if error.filename is None else f"{shortened(str(error.filename))}: "
    return f"{name}{(error.strerror or str(error)).lower()}; {_OF_FILES[error.errno or 0]}"


_ELSEWHERE = "name another file or folder"
_OF_FILES = {
    errno.ENAMETOOLONG: "name it in fewer letters",
    errno.ENOSPC: "make room, and run the same command again",
    errno.EFBIG: "make room, and run the same command again",
    errno.EDQUOT: "make room, and run the same command again",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP), _ELSEWHERE),
}


def existing(path: str, order: str | None = None) -> None:
    """Raise InputError unless there is such a file; `order` of the arguments is told where this one is a model."""
    if order is not None and path.endswith(".pt"):
        raise InputError(f"{path} is a model by its name, and no data: give the arguments in the order {order}")
    if Path(path).is_dir():
        from asecalc_mlip.data.deepmd_files import folder_text

        raise InputError(folder_text(Path(path)))
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")


def settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return configuration files, which must exist, and KEY=VALUE pairs."""
    if any(argument.startswith("=") for argument in arguments):
        raise InputError("a setting has spaces around its '='; write KEY=VALUE in one word, such as run.seed=1")
    configs = [argument for argument in arguments if "=" not in argument]
    for config in configs:
        existing(config)
    return configs, [argument for argument in arguments if "=" in argument]


def own_training(*, stack: bool = True) -> None:
    """Raise InputError where a folder of the user's hides the package training, or its stack is not installed."""
    from asecalc_mlip.extras import check_ours, require

    check_ours("training")
    if stack:
        require("training", "schnetpack", "pytorch_lightning")


def echo_census(path: Path, **options: Any) -> None:
    """Print which labels a file has that was made; options are those of `Census.report`."""
    from asecalc_mlip.data.census import census
    from asecalc_mlip.data.readers import read_frames

    click.echo(f"{path}\n{census(read_frames(path)).report(**options)}")


def refuse_given(*names: str, why: str) -> None:
    """Raise InputError for options that the user gives where they have no effect.

    Parameters
    ----------
    *names : str
        Of parameters of the command.
    why : str
        What makes them useless; it follows "--host has no effect".
    """
    context = click.get_current_context()
    defaults = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    given = [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name in names and context.get_parameter_source(parameter.name) not in defaults
    ]
    if given:
        verb, them = ("has", "it") if len(given) == 1 else ("have", "them")
        raise InputError(f"{' and '.join(given)} {verb} no effect {why}: leave {them} out")


def written(path: str | None, result: Any) -> None:
    """Write a result to a JSON file, if there is a name for it, and tell the name."""
    if path:
        from asecalc_mlip.files import write_json

        write_json(path, result)
        click.echo(path)


def with_options(*options: Callable[[Callable], Callable]) -> Callable[[Callable], Callable]:
    """Return a decorator that gives a command several arguments and options, told in this order."""

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# Where a labelled file has its labels, and in which units.
reading_options = with_options(
    click.option("--energy-key", help="Name of the energies, if not a usual one."),
    click.option("--forces-key", help="Name of the forces."),
    click.option("--stress-key", help="Name of the stresses."),
    click.option("--energy-unit", help="eV, kcal/mol, kJ/mol, Hartree, Rydberg; default: that of the format."),
    click.option("--length-unit", help="Ang, Bohr, nm."),
    click.option("--force-unit", help="Such as Hartree/Bohr, if not energy unit/length unit."),
    click.option("--stress-unit", help="GPa, kbar, bar, or such as eV/Ang^3; compression is negative."),
)
