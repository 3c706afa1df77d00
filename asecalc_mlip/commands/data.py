"""Labelled data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import echo_census, reading_options, refuse_given
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.data.published import PUBLISHED, DataSet


@click.group()
def data() -> None:
    """Make and convert labelled data sets."""


@data.command()
@click.argument("molecule")
@click.option("-n", "--frames", type=Number(q.FRAMES), default=500, show_default=True, help="Frames in the end.")
@click.option(
    "-T", "--temperature", type=Number(q.TEMPERATURE), default=500.0, show_default=True, help="Temperature, K."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="File to write; default: MOLECULE_xtb_500K.xyz.")
@click.option("--seed", type=Number(q.SEED), default=0, show_default=True, help="Seed of velocities and noise.")
@click.option("--spacing", type=Number(q.SPACING), default=10.0, show_default=True, help="Time between frames, fs.")
@click.option("--timestep", type=Number(q.TIMESTEP), default=0.5, show_default=True, help="Time step, fs.")
@click.option("--equilibration", type=Number(q.TIME), default=500.0, show_default=True, help="Time before frame 0, fs.")
@click.option(
    "--charge", type=Number(q.CHARGE), default=0, show_default=True,
    help="Total charge, such as -1; 0: that of the start structure.",
)  # fmt: skip
@click.option(
    "--multiplicity", type=Number(q.MULTIPLICITY),
    help="2S+1; default: that of the start structure, else the lowest that is possible.",
)  # fmt: skip
@click.option("--method", type=click.Choice(["GFN2-xTB", "GFN1-xTB"]), default="GFN2-xTB", show_default=True)
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def xtb(molecule: str, frames: int, temperature: float, output: str | None, progress: bool, **options: Any) -> None:
    """Make a data set of MOLECULE by GFN2-xTB dynamics.

    Give the same command again to continue an interrupted run. A larger -n extends a complete one.

    \b
    Example:
      asecalc data xtb ethanol.xyz -n 500 -T 500
    """
    from asecalc_mlip.data.xtb import XtbSettings, make_dataset

    fields = {f"{name}_fs": options.pop(name) for name in ("spacing", "timestep", "equilibration")}
    settings = XtbSettings(temperature_K=temperature, **fields, **options)
    target = output or f"{Path(molecule).stem}_xtb_{temperature:g}K.xyz"
    path = make_dataset(molecule, target, n_frames=frames, settings=settings, progress=progress)
    echo_census(path)


@data.command("atoms")
@click.argument("elements", nargs=-1, required=True)
@click.option("--level", default="PBE/def2-SVP", show_default=True, help="Functional and basis set, for PySCF.")
@click.option("--dimers", type=Number(q.count(200, 0)), default=0, show_default=True, help="Distances of each dimer.")
@click.option(
    "--longest", type=Number(q.Quantity(1, 20, "Å")), default=6.0, show_default=True, help="Longest dimer, Å."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="File to write; default: atoms_LEVEL.xyz.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def atoms_command(
    elements: tuple[str, ...], level: str, dimers: int, longest: float, output: str | None, progress: bool
) -> None:
    """Compute isolated atoms of ELEMENTS by PySCF, and with --dimers isolated dimers of each two.

    Their energies are the E0 of a training at this level of theory (model.isolated_atoms=FILE). Dimers serve as labels
    for two isolated atoms (far.data=FILE). The command keeps results in a cache. Give it again to continue.

    \b
    Example:
      asecalc data atoms H C O --level PBE/def2-SVP
      asecalc data atoms H C O --dimers 30 -o far.xyz
    """
    from asecalc_mlip.teachers.atoms import write_atoms

    if not dimers:
        refuse_given("longest", why="without --dimers N")
    target = output or f"atoms_{level.replace('/', '_')}.xyz"
    write_atoms(elements, level, target, dimers=dimers, longest=longest, progress=progress)
    click.echo(f"{target}: use it with model.isolated_atoms={target}")


@data.command("convert")
@click.argument("source")
@click.argument("target")
@click.option("--index", default=":", show_default=True, help="Frames to take, e.g. ::10.")
@reading_options
@click.option("--overwrite", is_flag=True, help="Replace TARGET.")
def convert_command(source: str, target: str, **options: Any) -> None:
    """Convert SOURCE (.xyz, .db, .npz, …) to extended XYZ with REF_ names, eV and Å.

    SOURCE may also be a folder of DeePMD: one system, with type.raw, type_map.raw and sets.

    \b
    Example:
      asecalc data convert labels.db train.xyz --energy-unit kcal/mol --index ::10
    """
    from asecalc_mlip.data.convert import convert

    census = convert(source, target, **options)
    click.echo(f"{target}\n{census.report()}")


@data.command()
@click.argument("molecule")
@click.option("-o", "--output", default=".", show_default=True, metavar="DIR", help="Folder, also of the download.")
@click.option("--n", "n_frames", type=Number(q.FRAMES), default=1000, show_default=True, help="Frames of each file.")
@click.option("--seed", type=Number(q.SEED), default=0, show_default=True, help="Seed of the random choice of frames.")
@click.option("--original", is_flag=True, help="Take the original MD17 instead of the revised one.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def rmd17(molecule: str, output: str, original: bool, **options: Any) -> None:
    """Download MOLECULE of the public data set rMD17, and write a training and a test file.

    Without a network, the command names the file to download by hand and the place to put it.

    \b
    Example:
      asecalc data rmd17 aspirin -o data
    """
    from asecalc_mlip.data.downloads import fetch_molecule

    for path in fetch_molecule(molecule, output, data_set="md17" if original else "rmd17", **options):
        echo_census(path)


def _add(name: str, data_set: DataSet) -> None:
    """Add the command of a public data set."""
    example = next(iter(data_set.parts), "") if data_set.parts else "cha" if data_set.pattern else ""
    part = f" --part {example}" if example else ""

    @data.command(name, short_help=data_set.about)
    @click.argument("dest", metavar="DEST")
    @click.option("--part", metavar="NAME", help="Part of the set, such as a molecule, a subset or a folder.")
    @click.option("--split", metavar="NAME", help="Part of a split set, such as train.")
    @click.option("-n", "--frames", "n_frames", type=Number(q.FRAMES), help="Number of random frames; default: all.")
    @click.option("--seed", type=Number(q.SEED), default=0, show_default=True, help="Seed of the random choice.")
    @click.option("--from", "source", metavar="FILE", help="File to read instead of a download.")
    @click.option("--overwrite", is_flag=True, help="Replace DEST.")
    @click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
    def command(dest: str, **options: Any) -> None:
        from asecalc_mlip.data.published_files import fetch

        if options["n_frames"] is None:
            refuse_given("seed", why="without -n N, as all frames are taken")
        found = fetch(name, dest, **options)
        left_out = f", {found.left_out} without labels left out" if found.left_out else ""
        click.echo(f"{found.target}: {found.frames} frames of {data_set.title}{left_out}, in eV and Å")
        click.echo(f"licence: {data_set.licence}; cite: {data_set.cite}")
        if found.sha256:
            known = "its published checksum fits" if found.checked else "no published checksum of it is known here"
            click.echo(f"{found.source}: SHA-256 {found.sha256}; {known}")

    command.help = f"""Fetch {data_set.title} and write DEST (.xyz).

{data_set.about} Level: {data_set.level}. Licence: {data_set.licence}. Give the same command
again to continue an interrupted download.

\b
Example:
  asecalc data {name} {name}.xyz{part} -n 1000
"""


for _name, _data_set in PUBLISHED.items():
    _add(_name, _data_set)
