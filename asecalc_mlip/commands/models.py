"""Train, judge, describe and time models."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from asecalc_mlip.commands.common import existing, settings, write_json


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="CONFIG.yaml... [KEY=VALUE...]")
def train(arguments: tuple[str, ...]) -> None:
    """Train a model.

    Several CONFIG files and KEY=VALUE pairs are merged from left to right over training/defaults.yaml, e.g.

        asecalc train aspirin.yaml training.epochs=100
    """
    configs, overrides = settings(arguments)
    import_module("training.train").main(configs, overrides)


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="CONFIG.yaml... [KEY=VALUE...]")
def pretrain(arguments: tuple[str, ...]) -> None:
    """Train a model on structures that an embedded-atom potential has labelled.

    data.train is a file made by `asecalc eam label`. Or, with pretrain.eam, it is the data that will be fine-tuned
    on: those of its structures that a training would see are perturbed in two steps and labelled first, e.g.

        asecalc pretrain silica.yaml pretrain.eam=silica_eam.pt run.output=runs/pretrained

    Labels stay in the folder of the run; the same command continues one that was interrupted.
    """
    configs, overrides = settings(arguments)
    import_module("training.pretrain").main(configs, overrides)


@click.command()
@click.argument("base", metavar="BASE.pt")
@click.argument("arguments", nargs=-1, required=True, metavar="CONFIG.yaml... [KEY=VALUE...]")
def finetune(base: str, arguments: tuple[str, ...]) -> None:
    """Train the model BASE.pt further on other data, e.g.

        asecalc finetune runs/pretrained/model.pt silica.yaml run.output=runs/silica finetune.replay=0.2

    All weights are trained. Reference energies are shifted to the level of the new data. finetune.replay keeps a share
    of old structures in the batches, finetune.layer_decay lowers the rate from the head down, finetune.delta adds the
    model to another potential. What is forgotten of the old data is shown at the end.
    """
    configs, overrides = settings(arguments)
    import_module("training.finetune").main(base, configs, overrides)


@click.command()
@click.argument("arguments", nargs=-1, required=True, metavar="CONFIG.yaml... [KEY=VALUE...]")
@click.option("--space", multiple=True, metavar="KEY=LOW:HIGH[:log]|KEY=A,B,C",
              help="What is varied; may be repeated. Default: epsilon and coefficients of weak.method.")  # fmt: skip
@click.option("--trials", type=int, default=20, show_default=True, help="Trainings in all, the plain one included.")
@click.option("--timeout", type=float, metavar="MIN", help="End after so many minutes; run again to continue.")
@click.option("-o", "--output", default="runs/tune", show_default=True, metavar="DIR", help="Folder of the search.")
@click.option("--prune/--no-prune", default=True, help="End trials early that are worse than most.")
def tune(arguments: tuple[str, ...], **options: Any) -> None:
    """Search for the settings with the lowest validation loss.

    Trial 0 is the plain training, to compare with. The same command continues a search that was interrupted, e.g.

        asecalc tune aspirin.yaml --trials 30 --space weak.pitc=0.1:100:log --space weak.order=first,trapezoid
    """
    configs, overrides = settings(arguments)
    import_module("training.tune").main(configs, overrides, **options)


@click.command()
@click.argument("model")
def info(model: str) -> None:
    """Print what a MODEL file says about itself."""
    click.echo(import_module("asecalc_mlip.checkpoint").describe(model))


@click.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE.pt", help="Model to write.")
@click.option("--data", metavar="FILE", help="Structures it was trained on, to see that they stay as they are.")
def core(model: str, output: str, data: str | None) -> None:
    """Add a ZBL core to a MODEL that is trained already.

    It keeps atoms apart where the model has seen nothing, and ends at 0.8 of the sum of their covalent radii, inside
    the shortest bonds. To train with a core in place: finetune.delta=zbl.
    """
    checkpoint = import_module("asecalc_mlip.checkpoint")
    frames = []
    if data:
        existing(data)
        frames = import_module("asecalc_mlip.data.readers").read_frames(data)
    added, found = import_module("asecalc_mlip.calculators.zbl").add_core(checkpoint.load(model), frames)
    e0, reference = added.reference_energies, added.reference
    checkpoint.save(output, added.potential, card=added.card, reference_energies=e0, reference=reference)
    click.echo(f"{output}: the core {found or 'was checked against no data; give --data'}")


@click.command()
@click.argument("model", default="aspirin.pt")
@click.option("-s", "--structure", "structures", multiple=True, metavar="FILE|NAME", help="Structure; may be repeated.")
@click.option("--steps", type=click.IntRange(1), help="Timed steps; default: what five seconds allow, 3 to 100.")
@click.option("--timestep", type=float, default=0.5, show_default=True, help="Time step, fs, of the ns/day.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the CPU; default: torch's choice.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--scaling", is_flag=True, help="Also larger and larger copies of the first structure.")
@click.option("--largest", type=click.IntRange(1), default=10_000, show_default=True, help="Atoms, for --scaling.")
@click.option("--batches", is_flag=True, help="Also the first structure in batches of 1 to 256.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the numbers to this JSON file.")
@click.option("--figure", type=click.Path(dir_okay=False), help="Draw them into this file.")
def bench(model: str, structures: tuple[str, ...], output: str | None, figure: str | None, **options: Any) -> None:
    """Measure how fast a MODEL (default: aspirin.pt) runs on this machine.

    Structures are files, or names: ethanol, aspirin, quartz-72, water-192, quartz-576, quartz-2025; default: all
    names whose elements the model knows. SchNetPack's calculator with the same weights runs beside it where that is
    installed.
    """
    import_module("asecalc_mlip.files").check_figure(figure)
    report = import_module("asecalc_mlip.bench.report").bench_file(model, structures, echo=click.echo, **options)
    if output:
        write_json(output, report)
    if figure:
        import_module("asecalc_mlip.plots.speed").bench_report(report.to_dict(), path=figure)
