"""Exit codes and options of the commands and scripts that run dynamics."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from asecalc_mlip import logs
from asecalc_mlip import quantities as q
from asecalc_mlip.commands.common import BadInput, check_text, is_of_file, told, with_options
from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.errors import InputError

__all__ = ["EXIT_CODES", "INTERRUPTED", "WORKERS", "RunCommand", "script_options"]

CRASH, INTERRUPTED, UNREAD = 3, 130, 141
EXIT_CODES = "Exit code: 0 stable, 1 unstable, 2 bad input, 3 another error, 128 + signal if stopped."
# Options of commands whose work may be done by several workers, see asecalc_mlip.workers.
WORKERS: dict[str, dict[str, Any]] = {
    "--processes": {
        "type": Number(q.PROCESSES),
        "default": 1,
        "show_default": True,
        "metavar": "N",
        "help": "Number of processes; if several, each has one thread.",
    },
    "--dask": {
        "metavar": "ADDRESS",
        "help": "Address of a Dask scheduler; its workers must have access to the same files.",
    },
}


def script_options(temperature: str) -> Callable[[Callable], Callable]:
    """Add the options that the scripts of `md_protocols` have in common; `temperature` is the help of that option."""
    return with_options(
        click.option("--model", metavar="FILE", help="Model file or shipped model; default aspirin.pt."),
        click.option(
            "--structure", metavar="FILE", help="Start structure, any file ASE reads; default: the model's own."
        ),
        click.option("--temperature", type=Number(q.TEMPERATURE), metavar="K", help=temperature),
        click.option("--steps", type=Number(q.STEPS), metavar="N", help="Number of steps; default: 20000, 10 ps."),
        click.option("--seed", type=Number(q.SEED), metavar="N", help="Seed of velocities and noise; default 0."),
        click.option("--output", metavar="DIR", help="Folder of the run; default: a name made from the settings."),
        click.option("--restart", is_flag=True, help="Continue what is in --output; other settings come from there."),
    )


class RunCommand(click.Command):
    """A command whose function returns the exit code; errors about the input are told in one message.

    Parameters
    ----------
    later : callable, optional
        Gives the parameters when they are needed: what they tell of defaults takes time to import.
    """

    def __init__(self, *arguments: Any, later: Callable[[], list[click.Parameter]] | None = None, **options: Any):
        self._later, self._params = later, list[click.Parameter]()
        super().__init__(*arguments, **options)

    @property
    def params(self) -> list[click.Parameter]:
        """Arguments and options."""
        if self._later is not None:
            later, self._later = self._later, None
            self._params = [*later(), *self._params]
        return self._params

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._params = params

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse arguments that are no text before anything is read."""
        logs.printable()
        check_text(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exits with its code."""
        logs.show()
        ctx.call_on_close(logs.hide)
        ctx.exit(self._code(ctx))

    def _code(self, ctx: click.Context) -> int:
        again = "the same command continues it, if it had begun"
        try:
            return super().invoke(ctx) or 0
        except InputError as error:
            raise BadInput(str(error)) from None
        except BrokenPipeError:  # the end of `| head`: as a signal ends other programs, 128 + SIGPIPE
            for stream in (sys.stdout, sys.stderr):
                logs.lead_nowhere(stream)
            return UNREAD
        except OSError as error:
            if not is_of_file(error):
                return self._crashed(again)
            raise BadInput(told(error)) from None
        except KeyboardInterrupt:  # before or after the dynamics, which has its own way to stop
            click.echo(f"Interrupted; {again}.", err=True)
            return INTERRUPTED
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:  # Python would exit with 1, which here means unstable
            return self._crashed(again)

    @staticmethod
    def _crashed(again: str) -> int:
        traceback.print_exc()
        click.echo(f"The run stopped by an error that is not its physics; {again}.", err=True)
        return CRASH
