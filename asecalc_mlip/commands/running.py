"""What commands and scripts of runs share: exit codes, and options that are made when they are looked at."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import click

from asecalc_mlip import logs
from asecalc_mlip.commands.common import BadInput
from asecalc_mlip.errors import InputError

__all__ = ["EXIT_CODES", "RunCommand"]

CRASH, INTERRUPTED = 3, 130
EXIT_CODES = "Exit code: 0 stable, 1 unstable, 2 bad input, 3 another error, 128 + signal if stopped."


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
        except KeyboardInterrupt:  # before or after the dynamics, which has its own way to stop
            click.echo(f"Interrupted; {again}.", err=True)
            return INTERRUPTED
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:  # Python would exit with 1, which here means unstable
            traceback.print_exc()
            click.echo(f"The run stopped by an error that is not its physics; {again}.", err=True)
            return CRASH
