"""Exceptions of the package.

Every message names the bad thing, lists what is allowed and says the next step; the command line prints it
without a traceback and exits with code 2.
"""

from __future__ import annotations

import math
from typing import Literal

Action = Literal["warn", "stop"]
"""What a committee does where its members disagree."""


class InputError(ValueError):
    """Input from outside (a structure, a file, an option) that cannot be used as it is."""


class DataError(InputError):
    """Training or test data that are incomplete, inconsistent or implausible."""


class CheckpointError(InputError):
    """A model file that is missing, damaged, too new, or not one of ours."""


class NotEnoughMemoryError(InputError, MemoryError):
    """A structure that needs more memory than there is; raised before it runs out where that can be told."""


class CommitteeDisagreement(InputError):
    """A structure on which the models of a committee disagree more than was allowed.

    Attributes
    ----------
    atom : int
        The atom on whose force they disagree most.
    spread, threshold : float
        Of the force on that atom, and what was allowed, eV/Å.
    """

    def __init__(self, message: str, *, atom: int = 0, spread: float = math.nan, threshold: float = math.nan) -> None:
        super().__init__(message)
        self.atom, self.spread, self.threshold = atom, spread, threshold
