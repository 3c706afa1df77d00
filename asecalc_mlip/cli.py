"""The command line, `asecalc`: thin commands that import what they need when they run.

Bad input is told in one message without a traceback and ends with exit code 2; the molecular-dynamics commands end
with 0 when the run was stable and 1 when it was not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from asecalc_mlip._version import __version__
from asecalc_mlip.errors import InputError

TRAINING_PACKAGES = {"schnetpack", "pytorch_lightning", "hydra", "torchmetrics", "torch_ema", "tensorboard"}
PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


class Commands(click.Group):
    """Command group that turns errors about the input into one message."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _stop(str(error))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in TRAINING_PACKAGES:
                raise
            _stop(f"This command needs {error.name}, a part of the training extra; "
                  "try: pip install 'asecalc-mlip[train]', or 'make' in a checkout.")  # fmt: skip


def _stop(message: str) -> NoReturn:
    click.echo(f"asecalc: {message}", err=True)
    sys.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="asecalc-mlip")
def main() -> None:
    """Train, judge and run machine-learned interatomic potentials."""


@main.command()
@click.argument("arguments", nargs=-1, required=True, metavar="CONFIG.yaml... [KEY=VALUE...]")
def train(arguments: tuple[str, ...]) -> None:
    """Train a model.

    Several CONFIG files and KEY=VALUE pairs are merged from left to right over training/defaults.yaml, e.g.

        asecalc train aspirin.yaml training.epochs=100
    """
    configs = [argument for argument in arguments if "=" not in argument]
    for config in configs:
        _existing(config)
    run = import_module("training.train").main
    run(configs, [argument for argument in arguments if "=" in argument])


@main.command()
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
    configs = [argument for argument in arguments if "=" not in argument]
    for config in configs:
        _existing(config)
    run = import_module("training.tune").main
    run(configs, [argument for argument in arguments if "=" in argument], **options)


@main.command()
@click.argument("model")
@click.argument("data")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the errors to this JSON file.")
@click.option("--batch-size", type=click.IntRange(1), help="Structures at once; default: what memory and caches like.")
def evaluate(model: str, data: str, output: str | None, batch_size: int | None) -> None:
    """Print the errors of a MODEL (.pt) on labelled DATA."""
    _existing(data)
    result = import_module("training.evaluate").evaluate_file(model, data, batch_size=batch_size or "auto")
    click.echo(str(result))
    if output:
        _write_json(output, result)


@main.command()
@click.argument("model")
def info(model: str) -> None:
    """Print what a MODEL file says about itself."""
    click.echo(import_module("asecalc_mlip.checkpoint").describe(model))


@main.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def nvt(arguments: tuple[str, ...]) -> None:
    """Molecular dynamics at constant temperature (asecalc nvt --help)."""
    sys.exit(import_module("md_protocols.nvt").main(list(arguments)))


@main.command(context_settings=PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def nve(arguments: tuple[str, ...]) -> None:
    """Molecular dynamics at constant energy (asecalc nve --help)."""
    sys.exit(import_module("md_protocols.nve").main(list(arguments)))


@main.command()
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
    report = import_module("asecalc_mlip.bench.report").bench_file(model, structures, echo=click.echo, **options)
    if output:
        _write_json(output, report)
    if figure:
        import_module("asecalc_mlip.plots.speed").bench_report(report.to_dict(), path=figure)


@main.group()
def data() -> None:
    """Make and convert labelled data sets."""


@data.command()
@click.argument("molecule")
@click.option("-n", "--frames", type=click.IntRange(1), default=500, show_default=True, help="Frames in the end.")
@click.option("-T", "--temperature", type=float, default=500.0, show_default=True, help="Temperature, K.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Default: MOLECULE_xtb_500K.xyz, here.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--spacing", type=float, default=10.0, show_default=True, help="Time between frames, fs.")
@click.option("--timestep", type=float, default=0.5, show_default=True, help="Time step, fs.")
@click.option("--equilibration", type=float, default=500.0, show_default=True, help="Time before frame 0, fs.")
@click.option("--charge", type=int, default=0, show_default=True, help="Total charge, e.")
@click.option("--multiplicity", type=click.IntRange(1), default=1, show_default=True, help="2S+1.")
@click.option("--method", type=click.Choice(["GFN2-xTB", "GFN1-xTB"]), default="GFN2-xTB", show_default=True)
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def xtb(molecule: str, frames: int, temperature: float, output: str | None, progress: bool, **options: Any) -> None:
    """Make a data set of MOLECULE by GFN2-xTB dynamics.

    The same command continues a run that was interrupted, or extends it when -n is larger.
    """
    module = import_module("training.xtb")
    fields = {f"{name}_fs": options.pop(name) for name in ("spacing", "timestep", "equilibration")}
    settings = module.XtbSettings(temperature_K=temperature, **fields, **options)
    target = output or f"{Path(molecule).stem}_xtb_{temperature:g}K.xyz"
    path = module.make_dataset(molecule, target, n_frames=frames, settings=settings, progress=progress)
    _report(path)


@data.command()
@click.argument("source")
@click.argument("target")
@click.option("--index", default=":", show_default=True, help="Frames to take, e.g. ::10.")
@click.option("--energy-key", help="Name of the energies, if not a usual one.")
@click.option("--forces-key", help="Name of the forces.")
@click.option("--stress-key", help="Name of the stresses.")
@click.option("--energy-unit", help="eV, kcal/mol, kJ/mol, Hartree, Rydberg; default: that of the format.")
@click.option("--length-unit", help="Ang, Bohr, nm.")
@click.option("--force-unit", help="Such as Hartree/Bohr, if not energy unit/length unit.")
@click.option("--overwrite", is_flag=True, help="Replace TARGET.")
def convert(source: str, target: str, **options: Any) -> None:
    """Convert SOURCE (.xyz, .db, .npz, …) to extended XYZ with REF_ names, eV and Å."""
    result = import_module("training.convert").convert(source, target, **options)
    click.echo(f"{target}\n{result.report()}")


@data.command()
@click.argument("molecule")
@click.option("-o", "--output", default=".", show_default=True, metavar="DIR", help="Folder, also of the download.")
@click.option("--n", "n_frames", type=click.IntRange(1), default=1000, show_default=True, help="Frames of each file.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of frames.")
@click.option("--original", is_flag=True, help="The original MD17 in place of the revised.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def rmd17(molecule: str, output: str, original: bool, **options: Any) -> None:
    """Fetch MOLECULE of the public rMD17, a training and a test file.

    Without a network it says what to download by hand and where to put it.
    """
    fetch = import_module("training.downloads").fetch_molecule
    for path in fetch(molecule, output, data_set="md17" if original else "rmd17", **options):
        _report(path)


@main.group()
def eam() -> None:
    """Fit embedded-atom potentials, label structures with them, write them for LAMMPS."""


@eam.command()
@click.argument("data")
@click.option("-o", "--output", default="eam.pt", show_default=True, metavar="FILE.pt", help="Model to write.")
@click.option("--n-train", type=click.IntRange(1), help="Use so many frames, drawn by the seed; test on the others.")
@click.option("--test", type=click.Path(), help="Test on the frames of this file.")
@click.option("--isolated", type=click.Path(), help="File of isolated atoms for E0; default: fitted with the rest.")
@click.option("--epochs", type=click.IntRange(1), default=200, show_default=True)
@click.option("--lr", type=float, default=2e-3, show_default=True, help="Learning rate.")
@click.option("--batch-size", type=click.IntRange(1), default=4, show_default=True)
@click.option("--core", type=click.Choice(["none", "zbl"]), default="none", show_default=True)
@click.option("--cutoff", type=float, default=8.0, show_default=True, help="Å.")
@click.option("--exponentials", "n_exponentials", type=click.IntRange(1), default=10, show_default=True)
@click.option("--energy-weight", type=float, default=0.01, show_default=True, help="Per eV/atom.")
@click.option("--forces-weight", type=float, default=50.0, show_default=True, help="Per eV/Å.")
@click.option("--stress-weight", type=float, default=50.0, show_default=True, help="Per eV/Å³, where labelled.")
@click.option("--density/--morse-only", default=True, help="Embedded atoms, or Morse pairs alone.")
@click.option("--compare", is_flag=True, help="Fit Morse pairs alone too and report their errors.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def fit(data: str, output: str, core: str, **options: Any) -> None:
    """Fit an EAM to labelled DATA.

    Leaves the model, a figure and JSON of every pair curve with its components, and a checkpoint, from which the same
    command continues.
    """
    files = {name: options.pop(name) for name in ("n_train", "test", "isolated", "compare", "progress")}
    settings = import_module("training.eam").FitSettings(core=None if core == "none" else core, **options)
    result = import_module("training.eam_files").fit_file(data, output, settings=settings, **files)
    click.echo(f'{result}\nuse it:  atoms.calc = EAMCalculator.load("{output}")')


@eam.command()
@click.argument("data")
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE", help="Extended XYZ, or .db for an ASE database.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Copies of each structure.")
@click.option("--strength", type=float, default=0.5, show_default=True, help="Å, of the last round.")
@click.option("--pairs", "n_pairs", type=click.IntRange(0), default=4, show_default=True, help="Closest pairs pulled.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--progress/--no-progress", default=True, help="Show a progress bar.")
def label(data: str, model: str, output: str, **options: Any) -> None:
    """Perturb the structures of DATA and label them with the EAM in MODEL.

    The same command continues a file that was interrupted.
    """
    path = import_module("training.eam_files").label_file(data, model, output, **options)
    _report(path)


@eam.command()
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE.eam.fs", help="Table for pair_style eam/fs.")
@click.option("--check", metavar="DATA", help="Compare with the model on structures of this file, by ASE's EAM reader.")
def export(model: str, output: str, check: str | None) -> None:
    """Write the EAM in MODEL as a table for LAMMPS, without its E0."""
    found = import_module("training.eam_files").export_file(model, output, check=check)
    click.echo(output if found is None else f"{output}\n{found}")


def _existing(path: str) -> None:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file.")


def _report(path: Path) -> None:
    """Print the census of a file that was made."""
    frames = import_module("training.readers").read_frames(path)
    click.echo(f"{path}\n{import_module('training.census').census(frames).report()}")


def _write_json(path: str, result: Any) -> None:
    to_dict: Callable[[], dict] | None = getattr(result, "to_dict", None)
    try:
        Path(path).write_text(json.dumps(to_dict() if to_dict else result, indent=2, default=float) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error}).") from error


if __name__ == "__main__":
    main()
