"""Published models of other packages: list, get, convert."""

from __future__ import annotations

import click

from asecalc_mlip.errors import InputError

__all__ = ["convert", "zoo"]


@click.group()
def zoo() -> None:
    """List and get published models."""


@zoo.command("list")
def list_() -> None:
    """List shipped models, and published ones that can be converted.

    \b
    Example:
      asecalc zoo list
    """
    from asecalc_mlip import zoo as shipped
    from asecalc_mlip.zoo.catalogue import CATALOGUE, cached

    click.echo("shipped: " + ", ".join(shipped.models()) + "\n")
    rows = [("name", "level of theory", "elements", "MB", "licence", "here")]
    for model in CATALOGUE:
        size = f"{model.size / 1e6:.1f}"
        here = "yes" if cached(model).is_file() else "no"
        rows.append((model.name, model.level, model.elements, size, model.licence.partition(",")[0], here))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo("\nasecalc zoo get NAME loads and converts one.")


@zoo.command()
@click.argument("name")
@click.option(
    "--from",
    "source",
    type=click.Path(),
    metavar="FOLDER",
    help="Take the files from this folder and download nothing.",
)
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def get(name: str, source: str | None, progress: bool) -> None:
    """Get the published model NAME into the cache.

    \b
    Example:
      asecalc zoo get TensorNet-MatPES-PBE
    """
    from asecalc_mlip import zoo as shipped
    from asecalc_mlip.zoo.catalogue import published
    from asecalc_mlip.zoo.fetch import get as fetch

    file = f"{name.removesuffix('.pt')}.pt"
    if file in shipped.models():
        raise InputError(f'{file} is shipped with this package, load it at once: PIWSLCalculator.load("{file}")')
    model = published(name)
    click.echo(f"{fetch(name, source=source, progress=progress)}\n{model.licence}; cite {model.cite}")
    click.echo(f'use it:  atoms.calc = PIWSLCalculator.load("{model.name}")')


@click.group()
def convert() -> None:
    """Convert models of other packages."""


@convert.command()
@click.argument("folder")
@click.option("-o", "--output", required=True, metavar="FILE.pt", help="Model to write.")
def matgl(folder: str, output: str) -> None:
    """Convert a MatGL FOLDER with state.pt and model.json.

    \b
    Example:
      asecalc convert matgl TensorNet-MatPES-PBE-v2025.1-PES -o tensornet.pt
    """
    from asecalc_mlip.checkpoint import describe
    from asecalc_mlip.files import check_writable
    from asecalc_mlip.zoo.fetch import convert_matgl

    check_writable(output)
    click.echo(f"{convert_matgl(folder, output)}\n{describe(output)}")
