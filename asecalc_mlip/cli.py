"""The command line, `asecalc`: thin commands that import what they need when they run.

Bad input is told in one message without a traceback and ends with exit code 2; the molecular-dynamics commands end
with 0 when the run was stable and 1 when it was not.
"""

from __future__ import annotations

import warnings
from typing import Any

import click

from asecalc_mlip import logs
from asecalc_mlip._version import __version__
from asecalc_mlip.commands import crystals, data, dynamics, eam, judge, lammps, learn, models, probes, report, zoo
from asecalc_mlip.commands.common import BadInput, check_text, is_of_file, told
from asecalc_mlip.commands.run_options import INTERRUPTED
from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import EXTRA_OF, needs

# Commands by what people do, in the order in which they are shown.
GROUPS: dict[str, tuple[click.Command, ...]] = {
    "Run": (dynamics.nvt, dynamics.nve, dynamics.npt, dynamics.anneal, dynamics.campaign, lammps.lammps, lammps.ipi),
    "Judge": (
        judge.evaluate,
        report.report,
        probes.diatomic,
        probes.scan,
        probes.relax,
        *crystals.COMMANDS,
        probes.vibrations,
        judge.rdf,
        judge.reference,
        models.bench,
        models.info,
    ),
    "Train": (models.train, models.finetune, models.pretrain, learn.learn, models.tune),
    "Data": (data.data,),
    "Potentials": (models.core, models.dimers, eam.eam, zoo.zoo, zoo.convert),
}


class Commands(click.Group):
    """Group of commands that shows them by what people do, and turns errors about the input into one message."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; warnings go to the log, bad input becomes a message."""
        try:
            return self._invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted. All files written so far are kept; give the same command again.", err=True)
            ctx.exit(INTERRUPTED)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_, **__: logs.LOGGER.warning(str(message))
                return super().invoke(ctx)
        except InputError as error:
            raise BadInput(str(error)) from None
        except OSError as error:
            if not is_of_file(error):
                raise
            raise BadInput(told(error)) from None
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in EXTRA_OF:
                raise
            raise BadInput(str(needs("this command", error))) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are no text before anything is read."""
        logs.printable()
        check_text(args)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by what people do."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                width = max(len(str(command.name)) for group in GROUPS.values() for command in group)
                rows = [(str(command.name).ljust(width), command.get_short_help_str(200)) for command in commands]
                formatter.write_dl(rows)


EPILOG = (
    "The option --help of a command prints its options and an example. First steps: `asecalc nvt aspirin.pt "
    "--steps 2000` runs dynamics, `asecalc report aspirin.pt --quick` judges a model, and `asecalc train "
    "data.train=frames.xyz` trains one."
)


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="asecalc-mlip")
@click.pass_context
def main(context: click.Context) -> None:
    """Train, judge and run machine-learned interatomic potentials."""
    logs.show()
    context.call_on_close(logs.hide)


for group in GROUPS.values():
    for command in group:
        main.add_command(command)


if __name__ == "__main__":
    main()
