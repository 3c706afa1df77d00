"""Arguments, options and first steps that every probe of the energy landscape has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import with_options
from asecalc_mlip.commands.numbers import Number

__all__ = ["as_is_option", "check_files", "fmax_option", "probe", "subject", "tight_option"]


def probe(
    *, structure: bool = True, figure: bool = True, output: str = "Write the numbers to this file."
) -> Callable[[Callable], Callable]:
    """Give a command the arguments and options that every probe has."""
    options = [click.argument("model")]
    if structure:
        options += [click.argument("structure", required=False)]
    options += [
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N."),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "float64"]),
            default="float64",
            show_default=True,
            help="Precision of the model.",
        ),
        click.option("-o", "--output", metavar="FILE.json", help=output),
    ]
    if figure:
        options += [click.option("--figure", metavar="FILE.png", help="Draw the numbers into this file.")]
    return with_options(*options)


fmax_option = click.option("--fmax", type=Number(q.FORCE), default=1e-3, show_default=True, metavar="EV/A",
                     help="Largest force after relaxations, eV/Å.")  # fmt: skip
tight_option = click.option("--fmax", type=Number(q.FORCE), default=1e-4, show_default=True, metavar="EV/A",
                      help="Largest force after the relaxation, eV/Å.")  # fmt: skip
as_is_option = click.option("--as-is", is_flag=True, help="Take the structure as it is: do not relax it first.")


def subject(model: str, structure: str | None, *, device: str, dtype: Any, **files: str | None) -> tuple[Any, Any]:
    """Return calculator and structure, after `check_files`."""
    from asecalc_mlip.calculators.loading import load_calculator, load_structure

    check_files(model, structure, **files)
    return load_calculator(model, device=device, dtype=dtype), load_structure(model, structure)


def check_files(*sources: str | None, output: str | None = None, figure: str | None = None) -> None:
    """Refuse files that cannot be written, or that are read as `sources`, before anything is computed."""
    from asecalc_mlip.files import check_figure, check_other, check_writable

    for source in sources:
        if source:
            check_other(source, output, figure)
    check_writable(output)
    check_figure(figure)
