"""Names and units of labels and of errors, and numbers that users write."""

from __future__ import annotations

from typing import Literal

from asecalc_mlip.errors import InputError

__all__ = ["ERROR_UNITS", "Label", "LABELS", "UNITS", "error_text", "parse_seeds", "with_unit"]

Label = Literal["energy", "forces", "stress"]
LABELS: tuple[Label, ...] = ("energy", "forces", "stress")
# As ASE and SchNetPack write them.
UNITS = {"energy": "eV", "length": "Ang", "forces": "eV/Ang", "stress": "eV/Ang^3"}
# Of errors, which are a thousandth of their labels.
ERROR_UNITS = {"energy": "meV", "energy_per_atom": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}
MOST_SEEDS = 1000


def with_unit(quantity: str) -> str:
    """Return the name of an error with its unit, as cards have it: "forces (meV/Å)"."""
    return f"{quantity} ({ERROR_UNITS[quantity]})"


def error_text(quantity: str, value: float, digits: int = 2) -> str:
    """Return an error with its unit: "13.10 meV/Å"."""
    return f"{value:.{digits}f} {ERROR_UNITS[quantity]}"


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
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        numbers = []
    if "," not in text and len(numbers) == 1:
        numbers = list(range(min(numbers[0], most + 1)))
    if not 1 <= len(numbers) <= most or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise InputError(f"--seeds is {text!r}; give a number from 1 to {most}, or a list such as 1234,2345,3456")
    return tuple(numbers)
