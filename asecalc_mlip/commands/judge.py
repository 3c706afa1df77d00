"""Errors of a model on labels; how structures look, and what they are compared with."""

from __future__ import annotations

from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import existing, reading_options, written
from asecalc_mlip.commands.numbers import Number

KINDS = click.Choice(["solid", "liquid"])


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the errors to this JSON file.")
@click.option("--predictions", metavar="FILE.xyz", help="Write frames with labels and predictions to this file. "
              "Alone it needs no labels.")  # fmt: skip
@click.option("--figure", metavar="FILE.png", help="Draw predictions against labels into this file.")
@click.option("--batch-size", type=Number(q.BATCH), help="Structures at once; default: as memory and caches allow.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@reading_options
def evaluate(model: str, data: str, batch_size: int | None, **options: Any) -> None:
    """Print the errors of a MODEL (.pt) on labelled DATA.

    \b
    Example:
      asecalc evaluate aspirin.pt test.xyz -o errors.json --predictions predicted.xyz --figure parity.png
    """
    from asecalc_mlip.data.errors import evaluate_file
    from asecalc_mlip.files import check_other

    existing(data, "MODEL DATA")
    for source in (model, data):
        check_other(source, options["output"], options["predictions"], options["figure"])
    click.echo(str(evaluate_file(model, data, batch_size=batch_size or "auto", **options)))
    for name in ("output", "predictions", "figure"):
        if options[name]:
            click.echo(options[name])


@click.command()
@click.argument("data")
@click.option("-o", "--output", required=True, metavar="FILE.json", help="Reference to write.")
@click.option(
    "--kind", type=KINDS, help="Kind of periodic DATA; a run is unstable above a g(r) difference of 1.0 or 3.0 Å."
)
@click.option("--group-by", metavar="KEY", help="Entry of info by which periodic DATA are grouped, e.g. topology.")
@click.option(
    "--temperature",
    "temperature_K",
    type=Number(q.TEMPERATURE),
    help="Temperature of runs with this reference, K (periodic).",
)
@click.option("--protocol", help="Protocol of runs with this reference, e.g. eam-silica (periodic).")
@click.option("--range", "temperatures_K", type=(Number(q.TEMPERATURE),) * 2, metavar="LOW HIGH",
              help="Temperatures of DATA, K; default: as its frames say (temperature_K).")  # fmt: skip
@click.option("--index", default=":", show_default=True, metavar="START:STOP:STEP", help="Frames to take.")
@click.option("--source", help="Where the frames come from; default: the name of the file.")
def reference(data: str, output: str, source: str | None, index: str, **options: Any) -> None:
    """Make a reference from DATA, a trajectory or a data set, with which runs are compared.

    It holds mean bond lengths and h(r) of a molecule, or g(r) of a periodic system, and the closest approach of each
    pair of elements.

    A file NAME.reference.json beside NAME.pt is found without being named.

    \b
    Examples:
      asecalc reference train.xyz -o mine.reference.json
      asecalc nvt mine.pt --reference mine.reference.json
    """
    from pathlib import Path

    from asecalc_mlip.analysis.references import describe_reference, make_reference, temperature_doubt
    from asecalc_mlip.data.readers import read_frames
    from asecalc_mlip.files import check_other, check_writable

    existing(data)
    check_writable(output)
    check_other(data, output)
    made = make_reference(read_frames(data, index=index), source or Path(data).name, **options)
    made.save(output)
    click.echo(f"{output}: {describe_reference(made.to_dict())}")
    if doubt := temperature_doubt(made, options["temperature_K"]):
        click.echo(f"note: {doubt}")


@click.command()
@click.argument("frames")
@click.option(
    "--pair", "pairs", multiple=True, metavar="A-B", help="Pair of elements, e.g. O-Si; may be repeated; default: all."
)
@click.option("--reference", metavar="FILE", help="Reference (JSON) or frames to compare with.")
@click.option("--group", help="Part of the reference to compare with, e.g. a zeolite's topology.")
@click.option("--r-max", type=Number(q.DISTANCE), help="Largest distance, Å; default: that of a reference (JSON), "
              "else 6, for a molecule 10.")  # fmt: skip
@click.option("--bins", type=Number(q.BINS), help="Number of bins; default: that of a reference (JSON), else 120, for "
              "a molecule 500.")  # fmt: skip
@click.option("--index", default=":", show_default=True, metavar="START:STOP:STEP", help="Frames to take.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the functions to this JSON file.")
@click.option("--figure", type=click.Path(dir_okay=False), help="Draw them into this file.")
@click.option("--save-reference", type=click.Path(dir_okay=False), help="Write a reference for runs made of FRAMES.")
@click.option(
    "--kind", type=KINDS, help="Kind of the saved reference; unstable above a g(r) difference of 1.0 or 3.0 Å."
)
@click.option("--group-by", metavar="KEY", help="Entry of info by which the saved reference is grouped, e.g. topology.")
@click.option(
    "--temperature",
    "temperature_K",
    type=Number(q.TEMPERATURE),
    help="Temperature of runs with the saved reference, K.",
)
@click.option("--protocol", help="Protocol of runs with the saved reference, e.g. eam-silica.")
@click.option("--source", help="Where the frames of the saved reference come from.")
def rdf(frames: str, output: str | None, figure: str | None, **options: Any) -> None:
    """Compute g(r) of periodic FRAMES, total and by pair of elements, or h(r) of a molecule, and compare it.

    FRAMES is any file that ASE reads.

    \b
    Example:
      asecalc rdf run/trajectory.extxyz --reference silica.reference.json --group edi --figure rdf.png
    """
    from asecalc_mlip.analysis.rdf_report import rdf_report
    from asecalc_mlip.files import check_figure, check_other, check_writable, save_figure

    existing(frames)
    for source in filter(None, (frames, options["reference"])):
        check_other(source, output, figure, options["save_reference"])
    check_figure(figure)
    check_writable(output)
    made = {name: options.pop(name) for name in ("kind", "group_by", "temperature_K", "protocol", "source")}
    result = rdf_report(frames, **options, made=made)
    click.echo(str(result))
    if options["save_reference"]:
        click.echo(options["save_reference"])
    written(output, result)
    if figure:
        from asecalc_mlip.plots.rdf import rdf_figure

        save_figure(rdf_figure(result.functions, result.reference), figure)
