"""Embedded-atom potentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import echo_census, own_training, refuse_given
from asecalc_mlip.commands.numbers import Number


@click.group()
def eam() -> None:
    """Fit embedded-atom potentials, label structures with them, write them for LAMMPS."""


@eam.command()
@click.argument("data")
@click.option("-o", "--output", default="eam.pt", show_default=True, metavar="FILE.pt", help="Model to write.")
@click.option(
    "--n-train",
    type=Number(q.FRAMES),
    help="Number of frames to fit, drawn at random; the others are the test.",
)
@click.option("--test", type=click.Path(), help="Test on the frames of this file.")
@click.option("--isolated", type=click.Path(), help="File of isolated atoms for E0; default: fitted with the rest.")
@click.option("--epochs", type=Number(q.EPOCHS), help="Passes over the data; default: as many as make 12 000 steps.")
@click.option("--lr", type=Number(q.RATE), default=2e-3, show_default=True, help="Learning rate.")
@click.option("--batch-size", type=Number(q.BATCH), default=4, show_default=True, help="Structures in a step.")
@click.option("--core", type=click.Choice(["none", "zbl"]), default="none", show_default=True,
              help="zbl adds a repulsion that ends at 0.8 of the sum of two covalent radii.")  # fmt: skip
@click.option("--cutoff", type=Number(q.CUTOFF), default=8.0, show_default=True, help="Cutoff, Å.")
@click.option("--exponentials", "n_exponentials", type=Number(q.EXPONENTIALS), default=10, show_default=True,
              help="Exponentials in the density of each pair of elements.")  # fmt: skip
@click.option(
    "--energy-weight",
    type=Number(q.WEIGHT),
    default=0.01,
    show_default=True,
    help="Weight of energy errors, per eV/atom.",
)
@click.option(
    "--forces-weight",
    type=Number(q.WEIGHT),
    default=50.0,
    show_default=True,
    help="Weight of force errors, per eV/Å.",
)
@click.option(
    "--stress-weight",
    type=Number(q.WEIGHT),
    help="Weight of stress errors, per eV/Å³; default: 50 where there is a stress.",
)
@click.option("--density/--morse-only", default=True, help="Fit the full EAM, or Morse pairs alone.")
@click.option("--compare", is_flag=True, help="Fit Morse pairs alone too and report their errors.")
@click.option(
    "--seed",
    type=Number(q.SEED),
    default=0,
    show_default=True,
    help="Seed of the split and of the first parameters.",
)
@click.option("--trust-data", "trust", is_flag=True, help="Fit labels that seem wrong too.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def fit(data: str, output: str, core: str, **options: Any) -> None:
    """Fit an EAM to labelled DATA.

    This writes the model, the curve of each pair of elements as a figure and as JSON, and a checkpoint. Give the same
    command again to continue an interrupted fit.

    \b
    Example:
      asecalc eam fit silica.xyz -o silica_eam.pt --n-train 120 --core zbl
    """
    # What older versions began with them goes on by the same command.
    if not options["density"] and not Path(output).with_suffix(".ckpt").exists():
        refuse_given("n_exponentials", "compare", why="with --morse-only, which has no density")
    files = {name: options.pop(name) for name in ("n_train", "test", "isolated", "compare", "progress", "trust")}
    own_training(stack=False)
    from training.eam import FitSettings
    from training.eam.files import fit_file

    settings = FitSettings(core="zbl" if core == "zbl" else None, **options)
    result = fit_file(data, output, settings=settings, **files)
    click.echo(f'{result}\nuse it:  atoms.calc = EAMCalculator.load("{output}")')


@eam.command()
@click.argument("data")
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE", help="Extended XYZ, or .db for an ASE database.")
@click.option("--rounds", type=Number(q.COPIES), default=5, show_default=True, help="Copies of each structure.")
@click.option(
    "--strength",
    type=Number(q.SHIFT),
    default=0.5,
    show_default=True,
    help="Largest displacement in the last copy, Å.",
)
@click.option(
    "--pairs",
    "n_pairs",
    type=Number(q.COPIES),
    default=4,
    show_default=True,
    help="Number of closest pairs that are pulled together.",
)
@click.option("--seed", type=Number(q.SEED), default=0, show_default=True, help="Seed of the perturbations.")
@click.option(
    "--dimers",
    type=Number(q.COPIES),
    default=0,
    show_default=True,
    help="Isolated dimers of each pair of elements.",
)
@click.option("--workers", type=Number(q.PROCESSES), default=1, show_default=True, help="Number of processes.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def label(data: str, model: str, output: str, **options: Any) -> None:
    """Perturb the structures of DATA and label them with the EAM in MODEL.

    Give the same command again to continue an interrupted file.

    \b
    Example:
      asecalc eam label silica.xyz silica_eam.pt -o labelled.xyz --rounds 5
    """
    if options["rounds"] == 1 and not Path(output).exists():  # see `fit`
        refuse_given("strength", "n_pairs", "seed", why="with --rounds 1, as the first copy is not perturbed")
    own_training(stack=False)
    from asecalc_mlip.data.readers import read_frames
    from training.eam.files import label_file
    from training.pretrain.labels import large_labels

    path = label_file(data, model, output, **options)
    # An EAM labels far from equilibrium: forces that would be implausible in ab-initio data are meant here.
    echo_census(path, allow_implausible=large_labels(path, read_frames(path)))


@eam.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE.eam.fs", help="Table for pair_style eam/fs.")
@click.option("--check", metavar="DATA", help="Compare with the model on structures of this file, by ASE's EAM reader.")
def export(model: str, output: str, check: str | None) -> None:
    """Write the EAM in MODEL as a table for LAMMPS, without its E0.

    \b
    Example:
      asecalc eam export silica_eam.pt -o silica.eam.fs --check silica.xyz
    """
    own_training(stack=False)
    from training.eam.files import export_file

    found = export_file(model, output, check=check)
    click.echo(output if found is None else f"{output}\n{found}")
