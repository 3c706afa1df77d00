"""One page and one figure of how a model behaves."""

from __future__ import annotations

import sys
from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.numbers import Number

__all__ = ["report"]


@click.command()
@click.argument("model")
@click.option("--data", metavar="FILE", help="Labelled structures, for errors and parity plots.")
@click.option("-o", "--output", metavar="DIR", help="Folder of page, figure and runs; default: MODEL-report.")
@click.option("--structure", metavar="FILE", help="Start of the dynamics; default: the one beside MODEL.")
@click.option("--reference", metavar="FILE", help="Reference of h(r) or g(r); default: that of MODEL, else of --data.")
@click.option(
    "--temperature",
    "temperature_K",
    type=Number(q.TEMPERATURE),
    metavar="K",
    help="Temperature; default: that of the card or the reference.",
)
@click.option(
    "--timestep",
    "timestep_fs",
    type=Number(q.TIMESTEP),
    metavar="FS",
    help="Time step; default: 0.5 with hydrogen, else 1.",
)
@click.option(
    "--steps",
    type=Number(q.count(1e8, 200)),
    metavar="N",
    help="Steps of each NVT run; NVE runs have half as many; default 10000.",
)
@click.option("--seeds", metavar="N|A,B,C", help="Number of seeds from 0 on, or the seeds; default 3.")
@click.option(
    "--frames",
    type=Number(q.FRAMES),
    metavar="N",
    help="Largest number of structures taken from --data; default 1000.",
)
@click.option("--quick", is_flag=True, help="A first look: 600 steps, 2 seeds, 50 structures.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True,
              help="Precision of the model.")  # fmt: skip
def report(model: str, seeds: str | None, **options: Any) -> None:
    """Write one HTML page and one figure of how a MODEL (.pt) behaves.

    The page has warnings at the top, then the card, errors on labelled data, stability over seeds, h(r) or g(r) against
    the reference, diatomic curves, energy conservation and speed. Give the same command again to continue.

    \b
    Example:
      asecalc report aspirin.pt --data rmd17_aspirin_test.xyz -o aspirin-report
    """
    from asecalc_mlip.quantities import parse_seeds
    from asecalc_mlip.report import ReportSettings, make_report
    from asecalc_mlip.report.dynamics import Stopped
    from asecalc_mlip.report.settings import MOST_SEEDS

    settings = ReportSettings(model, seeds=parse_seeds(seeds, most=MOST_SEEDS), **options)
    try:
        click.echo(str(make_report(settings, echo=click.echo)))
    except Stopped as stop:
        kept = f"the results so far are in {settings.folder}"
        click.echo(f"Stopped; {kept}. Give the same command again to continue.", err=True)
        sys.exit(128 + stop.signal)
