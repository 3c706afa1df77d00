"""The command line in this process."""

from click.testing import CliRunner, Result

from asecalc_mlip import cli


def asecalc(*arguments) -> Result:
    """Run a command; its exit code, stdout and stderr. Errors that are not of the input come through."""
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
