"""On-the-fly learning."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import existing, own_training, refuse_given
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.commands.run_options import INTERRUPTED, WORKERS, RunCommand
from asecalc_mlip.errors import InputError

__all__ = ["learn"]

EXIT_CODES = (
    "Exit code: 0 all replicas were quiet, 1 the budget or the hours ended first, 2 bad input, 3 another error, "
    "130 if stopped."
)


@click.command(cls=RunCommand, epilog=EXIT_CODES)
@click.argument("arguments", nargs=-1, metavar="STRUCTURE... [KEY=VALUE...]")
@click.option("--labels", metavar="TEACHER",
              help="Source of labels, always needed: xtb, pyscf:PBE/def2-SVP, a model file, or "
              "my_vasp.py:calculator.")  # fmt: skip
@click.option("--charge", type=Number(q.CHARGE), default=0, show_default=True,
              help="Total charge, such as -1; 0: that of the start structures.")  # fmt: skip
@click.option("--multiplicity", type=Number(q.MULTIPLICITY),
              help="2S+1; default: that of the start structures, else the lowest that is possible.")  # fmt: skip
@click.option("--temperature", "temperature_K", type=Number(q.TEMPERATURE), metavar="K", default=500.0,
              show_default=True, help="Temperature of the dynamics.")  # fmt: skip
@click.option("--temperature-end", "temperature_end_K", type=Number(q.TEMPERATURE), metavar="K",
              help="Temperature at the end of a ramp; default: no ramp.")  # fmt: skip
@click.option("--pressure", "pressure_GPa", type=Number(q.PRESSURE), metavar="GPA",
              help="Pressure of dynamics at constant pressure; default: a fixed cell.")  # fmt: skip
@click.option("--timestep", "timestep_fs", type=Number(q.TIMESTEP), metavar="FS", default=0.5, show_default=True,
              help="Time step.")  # fmt: skip
@click.option("--until", default="8 x 50 ps", show_default=True, metavar="N x TIME",
              help="Number of replicas, and the time for which all of them must be quiet.")  # fmt: skip
@click.option("--budget", type=Number(q.FRAMES), default=200, show_default=True, help="Largest number of labels.")
@click.option("--hours", type=Number(q.HOURS), metavar="H",
              help="Largest time for labels, training and dynamics before the final model, checked after each "
              "round.")  # fmt: skip
@click.option("--members", type=Number(q.MEMBERS), default=3, show_default=True, help="Models in the committee.")
@click.option("--tolerance", type=Number(q.FORCE), metavar="EV/A", default=0.5, show_default=True,
              help="Label a frame if the expected error of the force on an atom is larger.")  # fmt: skip
@click.option("--threshold", type=Number(q.FORCE), metavar="EV/A",
              help="Label a frame if the committee's spread is larger; default: from held-out labels.")  # fmt: skip
@click.option("--initial", type=Number(q.FRAMES), default=10, show_default=True,
              help="Number of labels before the first round.")  # fmt: skip
@click.option("--per-round", type=Number(q.FRAMES), default=8, show_default=True,
              help="Largest number of labels of a round.")  # fmt: skip
@click.option("--data", metavar="FILE", help="Labelled frames to start from, at the level of theory of --labels.")
@click.option("--model", metavar="MODEL", help="Model to start the committee from.")
@click.option("--steps-first", type=Number(q.STEPS), metavar="N", default=1500, show_default=True,
              help="Gradient steps of a member in the first round.")  # fmt: skip
@click.option("--steps", type=Number(q.STEPS), metavar="N", default=500, show_default=True,
              help="Gradient steps of a member in later rounds, from its last weights.")  # fmt: skip
@click.option("--steps-last", type=Number(q.STEPS), metavar="N", default=10000, show_default=True,
              help="Gradient steps of the final model.")  # fmt: skip
@click.option("--seed", type=Number(q.SEED), default=0, show_default=True, help="Seed of everything random.")
@click.option("--processes", **WORKERS["--processes"])
@click.option("--dask", **WORKERS["--dask"])
@click.option("-o", "--output", default="learn", show_default=True, metavar="DIR", help="Folder of the learning.")
@click.option("--dry-run", is_flag=True, help="Compute one label, and print what the budget would cost.")
def learn(
    arguments: tuple[str, ...], output: str, dry_run: bool, processes: int, dask: str | None, **options: Any
) -> int:
    """Learn a potential for one system from start structures, with labels only where they are needed.

    STRUCTURE is a start structure of the dynamics. The command labels a few frames, trains a committee of small models
    and runs dynamics with it. It stops a replica when the monitor finds it broken or the committee disagrees, labels
    the frames that differ most from the labelled ones, and continues the training. When all replicas reach their end
    (are quiet), it trains the final model anew on all labels. KEY=VALUE is a setting of `asecalc train` for all models.
    Give the same command again to continue.

    \b
    Examples:
      asecalc learn ethanol.xyz --labels pyscf:PBE/def2-SVP --temperature 500 --until "8 x 50 ps" -o ethanol
      asecalc learn quartz.xyz --labels my_vasp.py:calculator --temperature 1000 --pressure 0 --budget 200 -o quartz
    """
    own_training()
    from asecalc_mlip.files import read_structures
    from asecalc_mlip.teachers.naming import ADVICE
    from asecalc_mlip.workers import Workers
    from training.learn import LearnSettings, Until, learn
    from training.learn.cost import estimate

    structures = [text for text in arguments if "=" not in text]
    training = tuple(text for text in arguments if "=" in text)
    if not structures:
        raise InputError("name a file with the structure to start from")
    if not options["labels"]:
        raise InputError(f"--labels is missing, the source of energies and forces; {ADVICE}")
    if options["data"]:
        existing(options["data"])
        refuse_given("initial", why="with --data FILE, whose frames are the first labels")
    if options["threshold"]:
        refuse_given("tolerance", why="with --threshold, which stands in place of the one calibrated for it")
    settings = LearnSettings(**{**options, "until": Until.read(options["until"]), "training": training})
    workers = Workers(processes, dask)
    starts = read_structures(*structures, what="start structures")
    if dry_run:
        click.echo(estimate(settings, starts))
        return 0
    live = _live if sys.stderr.isatty() else lambda text: None
    result = learn(settings, starts, output, workers=workers, tell=_tell, live=live)
    _clear()
    click.echo(result.describe())
    return INTERRUPTED if result.status == "interrupted" else int(result.status != "stable")


def _tell(text: str) -> None:
    _clear()
    click.echo(text)


def _live(text: str) -> None:
    """Write over the line that stands there."""
    width = max(20, shutil.get_terminal_size().columns - 1)
    click.echo(f"\r\x1b[K{text[:width]}", nl=False, err=True)


def _clear() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
