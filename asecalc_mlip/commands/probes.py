"""The energy landscape of a model: curves of two atoms, relaxation, scans, vibrations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import Repeating, refuse_given, written
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.commands.probe_options import as_is_option, check_files, fmax_option, probe, subject, tight_option
from asecalc_mlip.errors import InputError

__all__ = ["diatomic", "relax", "scan", "vibrations"]


@click.command(cls=Repeating)
@probe(structure=False)
@click.option("--pairs", multiple=True, metavar="A-B...", help="Pairs of elements; default: all of the model.")
@click.option("--against", multiple=True, metavar="MODEL...", help="Other models, in the same figure.")
@click.option("--names", multiple=True, metavar="NAME...", help="Names of the models in the figure, in their order.")
@click.option("--training", metavar="FILE", help="Training data: attraction below 0.8 times their shortest distance of "
              "a pair is a hole. Default: below 0.6 times the covalent radii.")  # fmt: skip
@click.option("--grid", type=click.Choice(["full", "arena"]), default="full", show_default=True,
              help="full: 0.3 Å to past the cutoff; arena: 0.9 R_cov to 3.1 R_vdW. Metrics are those of arena either "
              "way.")  # fmt: skip
@click.option("--title", default="Diatomic curves", help="Title of the figure.")
def diatomic(
    model: str,
    pairs: tuple[str, ...],
    against: tuple[str, ...],
    names: tuple[str, ...],
    training: str | None,
    grid: Any,
    title: str,
    device: str,
    dtype: Any,
    **options: Any,
) -> None:
    """Draw and judge the energy of two isolated atoms over their distance.

    The table has the metrics of the benchmark MLIP Arena and lists unphysical features, such as attraction between
    atoms that are too close. It compares the energy minima of pairs of H, C and O with those of PBE/def2-SVP.

    \b
    Examples:
      asecalc diatomic aspirin.pt --figure pairs.png
      asecalc diatomic plain.pt --against delta.pt --pairs Si-O O-O --training train.xyz
    """
    from asecalc_mlip.calculators.loading import load_calculator
    from asecalc_mlip.files import read_structures
    from asecalc_mlip.plots.diatomic import diatomic_figure
    from asecalc_mlip.probes import compare_dimers, diatomic_report, dimer_table, shortest_distances

    if not options["figure"]:
        refuse_given("title", why="without --figure FILE, which it is written over")
    models = [model, *against]
    names = names or tuple(Path(path).stem for path in models)
    if len(names) != len(models):
        raise InputError(f"--names gives {len(names)} names for {len(models)} models: give one for each")
    check_files(*models, training, **options)
    shortest = shortest_distances(read_structures(training)) if training else None
    reports = []
    for path, name in zip(models, names, strict=True):
        calculator = load_calculator(path, device=device, dtype=dtype)
        reports.append(diatomic_report(calculator, pairs or None, grid=grid, shortest_A=shortest, name=name))
        click.echo(str(reports[-1]))
        for flags, curve in zip(reports[-1].flags, reports[-1].curves, strict=True):
            for flag in flags:
                click.echo(f"    {curve.pair}: {flag.name}: {flag.text}")
        if differences := compare_dimers(reports[-1].curves):
            click.echo(dimer_table(differences))
    dimers = [[one.to_dict() for one in compare_dimers(report.curves)] for report in reports]
    written(options["output"], [{**r.to_dict(), "against_dft": d} for r, d in zip(reports, dimers, strict=True)])
    if options["figure"]:
        diatomic_figure(reports, path=options["figure"], title=title)
        click.echo(options["figure"])


@click.command()
@probe(figure=False, output="Write the numbers to this file; the structure, if it does not end with .json.")
@fmax_option
@click.option(
    "--steps",
    type=Number(q.OPTIMIZER_STEPS),
    default=500,
    show_default=True,
    metavar="N",
    help="Largest number of steps.",
)
@click.option("--cell", type=click.Choice(["fixed", "full", "volume"]), default="fixed", show_default=True,
              help="How the cell may relax; volume keeps its shape.")  # fmt: skip
@click.option("--keep-symmetry", is_flag=True, help="Keep the space group.")
@click.option("--optimizer", type=click.Choice(["bfgs", "fire"]), default="bfgs", show_default=True)
@click.option("--write", metavar="FILE", help="Write the structure to this file, beside -o. "
              "Default: STRUCTURE-relaxed.xyz here, or the next free name.")  # fmt: skip
def relax(
    model: str,
    structure: str | None,
    write: str | None,
    fmax: float,
    output: str | None,
    device: str,
    dtype: Any,
    **options: Any,
) -> None:
    """Relax a structure, and its cell if asked to, and write it to a file.

    The exit code is 0 if it relaxed and 1 if it did not.

    \b
    Examples:
      asecalc relax aspirin.pt
      asecalc relax silica.pt quartz.cif --cell full -o relaxed.cif
    """
    from tqdm import tqdm

    from asecalc_mlip import probes
    from asecalc_mlip.files import check_structure, unused, write_structure
    from asecalc_mlip.stopping import SoftStop

    if output and not output.endswith(".json"):
        if write:
            raise InputError(f"-o {output} and --write {write}: numbers go to a .json file, the structure to one other")
        output, write = None, output
    target = Path(write) if write else unused(f"{Path(structure or model).stem}-relaxed.xyz")
    check_structure(target)
    calculator, atoms = subject(model, structure, device=device, dtype=dtype, output=output)
    with SoftStop() as stop, tqdm(unit="step", disable=None) as bar:

        def tell(step: int, force: float) -> bool:
            bar.update(step - bar.n)
            bar.set_postfix_str(f"largest force {force:.3g} eV/Å")
            return stop.signal is not None

        result = probes.relax(atoms, calculator, fmax_eV_per_A=fmax, tell=tell, **options)
    click.echo(str(result))
    written(output, result)
    write_structure(target, result.atoms)
    click.echo(str(target))
    if stop.signal and not result.converged:
        click.echo("Interrupted; the structure is as far as it came.", err=True)
        sys.exit(128 + stop.signal)
    sys.exit(0 if result.converged else 1)


@click.command()
@probe()
@click.option("--bond", "bonds", multiple=True, metavar="0,1", help="Two atoms, counted from 0; may be repeated.")
@click.option("--angle", "angles", multiple=True, metavar="0,1,2", help="Three atoms; may be repeated.")
@click.option("--dihedral", "dihedrals", multiple=True, metavar="0,1,2,3", help="Four atoms; may be repeated.")
@click.option("--stretch", type=Number(q.STRETCH), nargs=2, metavar="X X", help="Shortest and longest bond, in units "
              "of its length; default: 0.6 1.8 of each --bond, 0.6 1.6 of all bonds.")  # fmt: skip
def scan(
    model: str,
    structure: str | None,
    bonds: tuple[str, ...],
    angles: tuple[str, ...],
    dihedrals: tuple[str, ...],
    stretch: tuple[float, float] | None,
    **options: Any,
) -> None:
    """Scan bonds, angles and dihedrals of a rigid molecule.

    Without --bond, --angle or --dihedral, all bonds are stretched, and the table tells whether their energy is smooth.

    \b
    Examples:
      asecalc scan aspirin.pt --figure bonds.png
      asecalc scan ethanol.pt --bond 0,1 --angle 0,1,2 --dihedral 2,0,1,5 -o scans.json
    """
    from asecalc_mlip.plots.probes import scan_figure
    from asecalc_mlip.probes import angle_scan, bond_scan, bond_smoothness, dihedral_scan

    kinds: list[tuple[Callable, int, Sequence[str]]]
    kinds = [(bond_scan, 2, bonds), (angle_scan, 3, angles), (dihedral_scan, 4, dihedrals)]
    wanted = [(function, _indices(text, n)) for function, n, texts in kinds for text in texts]
    if stretch and wanted and not bonds:
        raise InputError("--stretch is for bonds: leave it out, or give bonds as well, such as --bond 0,1")
    output, figure = options["output"], options["figure"]
    calculator, atoms = subject(model, structure, **options)
    own = {bond_scan: {"stretch": stretch}} if stretch else {}
    scans = [function(atoms, calculator, *indices, **own.get(function, {})) for function, indices in wanted]
    if scans:
        click.echo("\n".join(map(str, scans)))
        written(output, [scan.to_dict() for scan in scans])
    else:
        found = bond_smoothness(atoms, calculator, stretch=stretch or (0.6, 1.6))
        click.echo(str(found))
        written(output, found)
        scans = found.scans
    if figure:
        scan_figure(scans, path=figure, title=f"{atoms.get_chemical_formula()}, {scans[0].model}")
        click.echo(figure)


@click.command()
@probe()
@click.option("--method", type=click.Choice(["auto", "exact", "differences"]), default="auto", show_default=True,
              help="Hessian: the exact one, or differences of forces.")  # fmt: skip
@click.option(
    "--delta",
    type=Number(q.DISPLACEMENT),
    metavar="A",
    help="Displacement for differences of forces, Å; default 0.01.",
)
@tight_option
@as_is_option
def vibrations(
    model: str, structure: str | None, method: Any, delta: float | None, fmax: float, as_is: bool, **options: Any
) -> None:
    """Compute the harmonic vibrations of a molecule from the exact Hessian of the model, after a relaxation.

    \b
    Example:
      asecalc vibrations aspirin.pt --figure vibrations.png
    """
    from asecalc_mlip import probes
    from asecalc_mlip.plots.probes import vibration_figure
    from asecalc_mlip.probes.vibrations import is_exact

    output, figure = options["output"], options["figure"]
    if as_is:
        refuse_given("fmax", why="with --as-is, which relaxes nothing")
    calculator, atoms = subject(model, structure, **options)
    is_exact(calculator, method, delta)  # before a relaxation, which may take long
    if not as_is:
        relaxed = probes.relax(atoms, calculator, fmax_eV_per_A=fmax, steps=1000)
        click.echo(str(relaxed))
        atoms = relaxed.atoms
    result = probes.vibrations(atoms, calculator, method=method, delta_A=delta)
    click.echo(str(result))
    written(output, result)
    if figure:
        vibration_figure([result], path=figure, title=atoms.get_chemical_formula())
        click.echo(figure)


def _indices(text: str, n: int) -> list[int]:
    try:
        indices = [q.INDEX.read(part, "an atom") for part in text.split(",")]
    except InputError:
        indices = []
    if len(indices) != n:
        raise InputError(
            f"{q.shortened(text)} is not {n} atoms: write their numbers, counted from 0, as {','.join('0123'[:n])}"
        )
    return indices
