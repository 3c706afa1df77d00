"""Commands of runs as a user gives them, with a toy in place of the model's calculator."""

from __future__ import annotations

from click.testing import CliRunner

from asecalc_mlip.commands import dynamics


def call(command: str, *arguments, calculator=None):
    """Run `asecalc COMMAND ARGUMENTS`; click's result, with exit_code, stdout and stderr."""
    return CliRunner().invoke(getattr(dynamics, command), [str(a) for a in arguments], obj=calculator)
