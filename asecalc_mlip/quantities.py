"""Numbers that users write, on the command line and in files: one place with their bounds and units.

A number is digits, a point and an exponent, as in 300, 0.5 or 1e-3. Text that Python would read as well, such as 1_000,
inf or digits of other scripts, is an error, and so is what no computer can do: 10³⁰ steps, or a cutoff of 10³⁰ Å.
"""

from __future__ import annotations

import math
import numbers
import re
from dataclasses import dataclass
from typing import Any

from asecalc_mlip.errors import InputError

__all__ = ["Quantity", "count", "derived_seed", "parse_seeds", "seconds_of", "shortened"]

MOST_SEEDS = 1000
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
WHOLE = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
REAL = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,4})?", re.ASCII)


@dataclass(frozen=True)
class Quantity:
    """A number with bounds and a unit.

    Attributes
    ----------
    low, high : float
        Smallest and largest value.
    unit : str
        For the message; empty: it has none.
    whole : bool
        Whether it is a whole number.
    above : bool
        Whether `low` itself is not allowed.
    """

    low: float
    high: float
    unit: str = ""
    whole: bool = False
    above: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        unit = f" {self.unit}" if self.unit else ""
        begin = f"above {_shown(self.low)}, at most" if self.above else f"from {_shown(self.low)} to"
        return f"{kind} {begin} {_shown(self.high)}{unit}"

    def holds(self, value: Any) -> bool:
        """Tell whether a value is such a number."""
        if isinstance(value, bool) or not isinstance(value, numbers.Integral if self.whole else numbers.Real):
            return False
        # As it is: a whole number of a thousand digits is no float.
        number: Any = value
        return (self.low < number if self.above else self.low <= number) and number <= self.high

    def check(self, value: Any, name: str) -> None:
        """Raise InputError, which names the setting, unless a value is such a number."""
        if not self.holds(value):
            raise InputError(f"{name} is {shortened(value)}; expected {self}")

    def read(self, text: str, name: str) -> Any:
        """Read a number from text; InputError, which names the setting, for other text and numbers out of bounds."""
        stripped = text.strip(" ")
        value: float | int | None = None
        if (WHOLE if self.whole else REAL).fullmatch(stripped):
            value = int(stripped) if self.whole else float(stripped)
        if value is None or not self.holds(value):
            raise InputError(f"{name} is {shortened(text)}; expected {self}")
        return value


def count(most: float, least: int = 1, unit: str = "") -> Quantity:
    """Return the quantity of things that are counted."""
    return Quantity(least, int(most), unit, whole=True)


def seconds_of(text: str) -> float | None:
    """Return the seconds of a time such as "30min", "2h" or "1h30min"; None for other text, and for no time at all."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)(?![a-z])", text)
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    whole = "".join(number + unit for number, unit in parts) == re.sub(r"\s", "", text)
    return total if whole and total > 0 else None


def shortened(value: Any, length: int = 60) -> str:
    """Return what a user wrote for a message: quoted, without what cannot be printed, not longer than a line."""
    try:
        text = repr(value)
    except ValueError:  # whole numbers of more than 4300 digits
        return f"a whole number of {value.bit_length()} bits"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= length + 20 else f"{text[:length]}… ({len(text)} characters)"


def parse_seeds(text: str | None, *, most: int = MOST_SEEDS) -> tuple[int, ...] | None:
    """Read seeds from "3" (0, 1, 2) or "1234,2345,3456"; None of None.

    Raises
    ------
    InputError
        For text that is neither, seeds given twice, none or more than `most`.
    """
    if text is None:
        return None
    try:
        numbers = [SEED.read(part, "--seeds") for part in text.removesuffix(",").split(",", most)]
    except InputError:
        numbers = []
    if "," not in text and len(numbers) == 1:
        numbers = list(range(min(numbers[0], most + 1)))
    if not 1 <= len(numbers) <= most or len(set(numbers)) < len(numbers):
        raise InputError(
            f"--seeds is {shortened(text)}; give a number from 1 to {most}, or a list such as 1234,2345,3456"
        )
    return tuple(numbers)


def derived_seed(*numbers: int) -> int:
    """Return the seed of one of many, such as (seed, number of the replica), whose random numbers no other shares."""
    import numpy as np  # The command line, whose bounds stand here, starts without it.

    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _shown(value: float) -> str:
    if value == math.floor(value) and abs(value) >= 1e6:
        exponent = len(str(int(value))) - 1
        if value == 10**exponent:
            return "10" + str(exponent).translate(_RAISED)
    return f"{value:g}" if abs(value) < 1e6 else str(int(value))


# Of dynamics. Bounds are far from what anybody wants, and near enough that nothing overflows.
TEMPERATURE = Quantity(0, 1e6, "K", above=True)
TIMESTEP = Quantity(1e-4, 100, "fs")
STEPS = count(1e10, 0)
INTERVAL = count(1e10)
SEED = Quantity(0, 2**32 - 1, whole=True)
TAU = Quantity(1e-3, 1e9, "fs")
PRESSURE = Quantity(-1e4, 1e5, "GPa")
RUNS = count(1e6)
# Of data and of judging.
FRAMES = count(1e8)
BATCH = count(1e6)
PROCESSES = count(4096)
TIME = Quantity(0, 1e9, "fs")
SPACING = Quantity(1e-4, 1e9, "fs")
DISTANCE = Quantity(1e-3, 100, "Å")
BINS = count(1e5)
CHARGE = Quantity(-1000, 1000, "e", whole=True)
MULTIPLICITY = count(1000)
# Of probes.
FORCE = Quantity(1e-12, 1e3, "eV/Å")
OPTIMIZER_STEPS = count(1e7, 0)
DISPLACEMENT = Quantity(1e-6, 1, "Å")
STRETCH = Quantity(0.05, 20)
STRAIN = Quantity(1e-7, 0.2)
RANGE = Quantity(1e-3, 50, "%")
POINTS = count(1000, 3)
REPEATS = count(100)
MESH = count(500)
ATOMS = count(1e6)
INDEX = count(1e9, 0)
# Of training.
EPOCHS = count(1e7)
RATE = Quantity(0, 1e3, above=True)
WEIGHT = Quantity(0, 1e9)
CUTOFF = Quantity(0.5, 100, "Å")
EXPONENTIALS = count(1000)
COPIES = count(1e5, 0)
SHIFT = Quantity(0, 10, "Å")
TRIALS = count(1e5)
MINUTES = Quantity(0, 1e7, "min", above=True)
HOURS = Quantity(0, 1e6, "h", above=True)
MEMBERS = count(20, 2)
