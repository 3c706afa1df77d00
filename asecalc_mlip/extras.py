"""What is said when a package that only some probes need is not there."""

from __future__ import annotations

from asecalc_mlip.errors import InputError

__all__ = ["needs"]


def needs(what: str, error: ModuleNotFoundError) -> InputError:
    """The error to raise in place of a failed import."""
    return InputError(f"{what} needs {error.name}, which is not installed: pip install 'asecalc-mlip[phonons]'")
