"""The command line, `asecalc`: thin commands that import what they need when they run.

Bad input is told in one message without a traceback and ends with exit code 2; the molecular-dynamics commands end
with 0 when the run was stable and 1 when it was not.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from asecalc_mlip._version import __version__
from asecalc_mlip.commands import data, dynamics, eam, models, probes, report
from asecalc_mlip.errors import InputError

TRAINING_PACKAGES = {"schnetpack", "pytorch_lightning", "hydra", "torchmetrics", "torch_ema", "tensorboard"}


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


for command in (
    models.train,
    models.pretrain,
    models.finetune,
    models.tune,
    models.evaluate,
    models.info,
    models.core,
    models.bench,
    dynamics.nvt,
    dynamics.nve,
    dynamics.npt,
    dynamics.anneal,
    dynamics.campaign,
    dynamics.rdf,
    dynamics.lammps,
    report.report,
    data.data,
    eam.eam,
    *probes.COMMANDS,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
