"""Properties of a crystal by a model: equation of state, elastic constants, phonons."""

from __future__ import annotations

from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import refuse_given, written
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.commands.probe_options import as_is_option, fmax_option, probe, subject, tight_option

__all__ = ["COMMANDS"]


@click.command()
@probe()
@click.option("--range", "volume_range", type=Number(q.RANGE), default=1.0, show_default=True, metavar="%",
              help="Range of the volume to either side; wide ones suit stiff crystals only.")  # fmt: skip
@click.option("--volumes", type=Number(q.POINTS), default=9, show_default=True, metavar="N", help="Number of volumes.")
@fmax_option
@as_is_option
@click.option("--rigid", is_flag=True, help="Scale positions only: do not relax the atoms in each cell.")
def eos(
    model: str,
    structure: str | None,
    volume_range: float,
    volumes: int,
    fmax: float,
    as_is: bool,
    rigid: bool,
    **options: Any,
) -> None:
    """Fit the equation of state of a crystal (Birch-Murnaghan): volume, bulk modulus, energy.

    \b
    Example:
      asecalc eos silica.pt quartz.cif --figure eos.png
    """
    from asecalc_mlip import probes
    from asecalc_mlip.plots.probes import eos_figure

    output, figure = options["output"], options["figure"]
    if as_is and rigid:
        refuse_given("fmax", why="with --as-is and --rigid, which relax nothing")
    calculator, atoms = subject(model, structure, **options)
    if not as_is and atoms.pbc.all():
        relaxed = probes.relax(atoms, calculator, fmax_eV_per_A=fmax, cell="full")
        click.echo(str(relaxed))
        atoms = relaxed.atoms
    result = probes.equation_of_state(atoms, calculator, volume_range_percent=volume_range, n_volumes=volumes,
                                      relax_positions=not rigid, fmax_eV_per_A=fmax)  # fmt: skip
    click.echo(str(result))
    written(output, result)
    if figure:
        eos_figure([result], path=figure, title=result.formula)
        click.echo(figure)


@click.command()
@probe()
@click.option("--symmetry", default="triclinic", show_default=True,
              help="cubic, hexagonal, trigonal_high, ..., as matscipy names them; triclinic assumes none.")  # fmt: skip
@click.option("--strain", type=Number(q.STRAIN), default=0.004, show_default=True, help="Largest strain.")
@click.option(
    "--strains",
    type=Number(q.POINTS),
    default=5,
    show_default=True,
    metavar="N",
    help="Number of strains of each kind.",
)
@fmax_option
@as_is_option
def elastic(
    model: str,
    structure: str | None,
    strains: int,
    fmax: float,
    as_is: bool,
    symmetry: str,
    strain: float,
    **options: Any,
) -> None:
    """Compute the elastic constants of a crystal by stress over strain, after a relaxation of cell and atoms.

    \b
    Example:
      asecalc elastic silica.pt quartz.cif --symmetry trigonal_high -o elastic.json
    """
    from asecalc_mlip.plots.probes import elastic_figure
    from asecalc_mlip.probes import elastic_constants

    output, figure = options["output"], options["figure"]
    calculator, atoms = subject(model, structure, **options)
    result = elastic_constants(atoms, calculator, symmetry=symmetry, strain=strain, n_strains=strains,
                               fmax_eV_per_A=fmax, relax_first=not as_is)  # fmt: skip
    click.echo(str(result))
    written(output, result)
    if figure:
        elastic_figure(result, path=figure, title=f"{result.formula}, {result.model}")
        click.echo(figure)


@click.command()
@probe()
@click.option(
    "--supercell",
    type=Number(q.REPEATS),
    nargs=3,
    metavar="N N N",
    help="Supercell; default: at least 12 Å high in each direction.",
)
@click.option(
    "--displacement",
    type=Number(q.DISPLACEMENT),
    default=0.01,
    show_default=True,
    metavar="A",
    help="Displacement, Å.",
)
@click.option("--mesh", type=Number(q.MESH), nargs=3, default=(12, 12, 12), show_default=True, metavar="N N N",
              help="Mesh of wave vectors of the density of states.")  # fmt: skip
@tight_option
@as_is_option
def phonons(
    model: str,
    structure: str | None,
    supercell: tuple[int, int, int] | None,
    displacement: float,
    mesh: tuple[int, int, int],
    fmax: float,
    as_is: bool,
    **options: Any,
) -> None:
    """Compute the phonons of a crystal: band structure, density of states, thermal properties. Needs phonopy.

    \b
    Example:
      asecalc phonons silica.pt quartz.cif --supercell 5 5 5 --figure phonons.png -o phonons.json
    """
    from asecalc_mlip import probes
    from asecalc_mlip.plots.probes import phonon_figure

    output, figure = options["output"], options["figure"]
    calculator, atoms = subject(model, structure, **options)
    result = probes.phonons(atoms, calculator, supercell=supercell, displacement_A=displacement, mesh=mesh,
                            fmax_eV_per_A=fmax, relax_first=not as_is)  # fmt: skip
    click.echo(str(result))
    written(output, result)
    if figure:
        title = f"{result.primitive.get_chemical_formula()}, {result.spacegroup}"
        phonon_figure([result], path=figure, title=title)
        click.echo(figure)


COMMANDS = (eos, elastic, phonons)
