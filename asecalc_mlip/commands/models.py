"""Train, judge, describe and time models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import existing, own_training, refuse_given, settings, written
from asecalc_mlip.commands.numbers import Number

SETTINGS = "[CONFIG.yaml...] [KEY=VALUE...]"
trust_option = click.option(
    "--trust-data", is_flag=True, help="Train on labels that seem wrong; the same as data.trust=true."
)


class Trains(click.Command):
    """Command that takes KEY=VALUE pairs, and says so where somebody writes a setting as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add how settings are written to the error about an unknown option."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            advice = "settings are KEY=VALUE, such as data.train=FILE; asecalc train --defaults lists them"
            raise click.UsageError(f"{error.format_message()} {advice}", ctx) from None


@click.command(cls=Trains)
@click.argument("arguments", nargs=-1, metavar=SETTINGS)
@click.option("--defaults", is_flag=True, help="Print every setting with its default and its meaning.")
@trust_option
@click.pass_context
def train(context: click.Context, arguments: tuple[str, ...], defaults: bool, trust_data: bool) -> None:
    """Train a model.

    CONFIG files and KEY=VALUE pairs are merged from left to right over the defaults, which --defaults prints. Only
    data.train has to be given. Give the same command again to continue an interrupted training.

    \b
    Examples:
      asecalc train data.train=train.xyz run.output=runs/mine
      asecalc train aspirin.yaml run.max_epochs=100 run.time=30min
    """
    if defaults:
        refuse_given("arguments", "trust_data", why="with --defaults, which prints the defaults alone")
        own_training(stack=False)
        from training.explain import explain

        click.echo(explain())
        return
    configs, overrides = _given(context, arguments, trust_data)
    from training.main import train as run

    run(configs, overrides)


@click.command(cls=Trains)
@click.argument("arguments", nargs=-1, metavar=SETTINGS)
@trust_option
@click.pass_context
def pretrain(context: click.Context, arguments: tuple[str, ...], trust_data: bool) -> None:
    """Train a model first on structures that a teacher has labelled: an EAM, GFN2-xTB, a published model.

    With pretrain.teacher, data.train is the data set to fine-tune on later: the command perturbs its structures and has
    the teacher label them first. With pretrain.correct, small networks correct the teacher by the labels of the data.
    The labels stay in the folder of the run. Without a teacher, data.train is a file made by `asecalc eam label`.
    Give the same command again to continue an interrupted run.

    \b
    Example:
      asecalc pretrain silica.yaml pretrain.teacher=silica_eam.pt run.output=runs/pretrained
      asecalc pretrain silica.yaml pretrain.teacher=TensorNet-MatPES-PBE
      asecalc pretrain data.train=few.xyz pretrain.teacher=xtb pretrain.correct=4 pretrain.temperature=800
    """
    configs, overrides = _given(context, arguments, trust_data)
    from training.main import pretrain as run

    run(configs, overrides)


@click.command(cls=Trains)
@click.argument("base", metavar="MODEL")
@click.argument("arguments", nargs=-1, metavar=SETTINGS)
@trust_option
@click.pass_context
def finetune(context: click.Context, base: str, arguments: tuple[str, ...], trust_data: bool) -> None:
    """Train a MODEL (.pt) further on other data.

    All weights are trained. Reference energies are shifted to the level of the new data. finetune.replay keeps a share
    of old structures in the batches, finetune.layer_decay lowers the learning rate of the first layers, finetune.delta
    adds the model to another potential. A table at the end shows the errors on old data before and after.

    \b
    Example:
      asecalc finetune runs/pretrained/model.pt silica.yaml run.output=runs/silica finetune.replay=0.2
    """
    if "=" in base and not Path(base).exists():
        raise click.UsageError(f"{base} is no model; name the MODEL to start from first, then the settings", context)
    configs, overrides = _given(context, arguments, trust_data)
    from training.main import finetune as run

    run(base, configs, overrides)


@click.command(cls=Trains)
@click.argument("arguments", nargs=-1, metavar=SETTINGS)
@click.option("--space", multiple=True, metavar="KEY=LOW:HIGH[:log]|KEY=A,B,C",
              help="Setting to vary; may be repeated. Default: epsilon and coefficients of weak.method.")  # fmt: skip
@click.option(
    "--trials", type=Number(q.TRIALS), default=20, show_default=True, help="Number of trainings, with trial 0."
)
@click.option(
    "--timeout",
    type=Number(q.MINUTES),
    metavar="MIN",
    help="Stop after this many minutes; give the same command again to continue.",
)
@click.option("-o", "--output", default="runs/tune", show_default=True, metavar="DIR", help="Folder of the search.")
@click.option("--prune/--no-prune", default=True, help="Stop trials early that are worse than most.")
@trust_option
@click.pass_context
def tune(context: click.Context, arguments: tuple[str, ...], trust_data: bool, **options: Any) -> None:
    """Search for the settings with the lowest validation loss.

    Trial 0 uses the given settings, without weak supervision where its settings are searched. Give the same command
    again to continue an interrupted search.

    \b
    Example:
      asecalc tune aspirin.yaml --trials 30 --space weak.pitc=0.1:100:log --space weak.order=first,trapezoid
    """
    configs, overrides = _given(context, arguments, trust_data)
    from training.tune import main

    main(configs, overrides, **options)


@click.command()
@click.argument("model")
def info(model: str) -> None:
    """Print the card of a MODEL: its training data, errors, licence, sizes.

    \b
    Example:
      asecalc info aspirin.pt
    """
    from asecalc_mlip.checkpoint import describe

    click.echo(describe(model))


@click.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE.pt", help="Model to write.")
@click.option(
    "--data", metavar="FILE", help="Training structures, to check that the core does not change their forces."
)
def core(model: str, output: str, data: str | None) -> None:
    """Add a ZBL core to a MODEL that is trained already.

    The core keeps atoms apart at distances shorter than in the training data. It ends at 0.8 of the sum of their
    covalent radii. Few bonds are shorter, as in N2: with --data the command says how strongly the core acts there.
    Trained models have one already unless model.prior=none.

    \b
    Example:
      asecalc core plain.pt --data train.xyz -o safe.pt
    """
    from asecalc_mlip import checkpoint
    from asecalc_mlip.additions.core import add_core
    from asecalc_mlip.data.readers import read_frames
    from asecalc_mlip.files import check_other, check_writable

    if data:
        existing(data)
        check_other(data, output)
    check_writable(output)
    added, found = add_core(checkpoint.load(model), read_frames(data) if data else [])
    e0, reference = added.reference_energies, added.reference
    checkpoint.save(output, added.potential, card=added.card, reference_energies=e0, reference=reference)
    click.echo(f"{output}: the core {found or 'was checked against no data; give --data'}")


@click.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE.pt", help="Model to write.")
@click.option("--data", required=True, metavar="FILE", help="Training structures of the model.")
@click.option(
    "--table", metavar="FILE", help="Labelled isolated atoms and dimers; default: H, C and O at PBE/def2-SVP."
)
def dimers(model: str, output: str, data: str, table: str | None) -> None:
    """Give a MODEL the isolated atoms and dimers of a table.

    Isolated atoms and dimers then have the energies of the table. Energies of atoms with as many neighbours as in the
    training structures do not change, so test errors stay the same. The table must have the level of theory of the
    training data; `asecalc data atoms` makes one.

    \b
    Example:
      asecalc dimers plain.pt --data train.xyz -o physical.pt
    """
    from asecalc_mlip import checkpoint
    from asecalc_mlip.additions.dimers import add_dimers
    from asecalc_mlip.data.readers import read_frames
    from asecalc_mlip.files import check_other, check_writable
    from asecalc_mlip.probes.dimers import reference_frames

    existing(data)
    for source in filter(None, (data, table)):
        check_other(source, output)
    check_writable(output)
    added = add_dimers(
        checkpoint.load(model), reference_frames() if table is None else read_frames(table), read_frames(data)
    )
    e0, reference = added.reference_energies, added.reference
    checkpoint.save(output, added.potential, card=added.card, reference_energies=e0, reference=reference)
    click.echo(f"{output}: isolated atoms, and dimers {', '.join(added.card['dimers']['pairs']) or '(none)'}")


@click.command()
@click.argument("model", default="aspirin.pt")
@click.option("-s", "--structure", "structures", multiple=True, metavar="FILE|NAME", help="Structure; may be repeated.")
@click.option("--steps", type=Number(q.OPTIMIZER_STEPS), help="Timed steps; default: as five seconds allow, 3 to 100.")
@click.option("--timestep", type=Number(q.TIMESTEP), default=0.5, show_default=True, help="Time step for ns/day, fs.")
@click.option("--threads", type=Number(q.PROCESSES), help="Threads of the CPU; default: torch's choice.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True,
              help="Precision of the model.")  # fmt: skip
@click.option("--scaling", is_flag=True, help="Also measure larger and larger copies of the first structure.")
@click.option(
    "--largest",
    type=Number(q.ATOMS),
    default=10_000,
    show_default=True,
    help="Largest number of atoms for --scaling.",
)
@click.option("--batches", is_flag=True, help="Also measure the first structure in batches of 1 to 256.")
@click.option(
    "--peers", is_flag=True, help="Also measure MACE, TensorNet, M3GNet … of other packages that are installed."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the numbers to this JSON file.")
@click.option("--figure", type=click.Path(dir_okay=False), help="Draw the numbers into this file.")
def bench(
    model: str, structures: tuple[str, ...], output: str | None, figure: str | None, threads: int | None, **options: Any
) -> None:
    """Measure how fast a MODEL (default: aspirin.pt) runs on this machine.

    Structures are files, or names: ethanol, aspirin, quartz-72, water-192, quartz-576, quartz-2025; default: all
    names whose elements the model has. SchNetPack's calculator with the same weights runs beside a PaiNN or SchNet,
    such as aspirin_painn.pt, where that is installed.

    \b
    Example:
      asecalc bench silica.pt -s quartz.cif --scaling --figure speed.png
    """
    import torch

    from asecalc_mlip.bench.report import BATCHES
    from asecalc_mlip.bench.report import bench as measured
    from asecalc_mlip.calculators.piwsl import PIWSLCalculator
    from asecalc_mlip.files import check_figure, check_other
    from asecalc_mlip.plots.speed import bench_report

    if not options["scaling"]:
        refuse_given("largest", why="without --scaling")
    for source in (model, *structures):
        check_other(source, output, figure)
    check_figure(figure)
    if threads is not None:
        torch.set_num_threads(threads)
    report = measured(
        PIWSLCalculator.load(model, device=options["device"], dtype=options["dtype"]),
        structures,
        steps=options["steps"],
        timestep_fs=options["timestep"],
        scaling_to=options["largest"] if options["scaling"] else 0,
        batches=BATCHES if options["batches"] else (),
        peers=options["peers"],
        echo=click.echo,
    )
    written(output, report)
    if figure:
        bench_report(report.to_dict(), path=figure)
        click.echo(figure)


def _given(context: click.Context, arguments: tuple[str, ...], trust_data: bool) -> tuple[list[str], list[str]]:
    """Return files and KEY=VALUE pairs, at least one, once the training package is known to be ours."""
    if not arguments:
        raise click.UsageError("name a CONFIG.yaml, or give at least data.train=FILE", context)
    configs, overrides = settings(arguments)
    own_training()
    return configs, [*overrides, "data.trust=true"] if trust_data else overrides
