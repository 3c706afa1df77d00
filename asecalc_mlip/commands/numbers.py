"""Numbers of the command line, as click's types: their bounds stand in `asecalc_mlip.quantities`."""

from __future__ import annotations

from typing import Any

import click

from asecalc_mlip.commands.common import BadInput
from asecalc_mlip.errors import InputError
from asecalc_mlip.quantities import Quantity

__all__ = ["Number"]


class Number(click.ParamType):
    """A number with bounds and a unit.

    Parameters
    ----------
    quantity : Quantity
    """

    def __init__(self, quantity: Quantity) -> None:
        self.quantity, self.name = quantity, "integer" if quantity.whole else "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a number; defaults are numbers already."""
        if not isinstance(value, str):
            return value
        try:
            return self.quantity.read(value, max(param.opts, key=len) if param else "the number")
        except InputError as error:
            raise BadInput(str(error)) from None
