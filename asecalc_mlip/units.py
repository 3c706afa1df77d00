"""Names and units of labels and of errors, and the number types of models."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["DTYPES", "Dtype", "ERROR_UNITS", "Label", "LABELS", "UNITS", "error_text", "threads_text", "with_unit"]

Dtype = Literal["float32", "float64"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Label = Literal["energy", "forces", "stress"]
LABELS: tuple[Label, ...] = ("energy", "forces", "stress")
# As ASE and SchNetPack write them.
UNITS = {"energy": "eV", "length": "Ang", "forces": "eV/Ang", "stress": "eV/Ang^3"}
# Of errors, which are a thousandth of their labels.
ERROR_UNITS = {"energy": "meV", "energy_per_atom": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}


def with_unit(quantity: str) -> str:
    """Return the name of an error with its unit, as cards have it: "forces (meV/Å)"."""
    return f"{quantity} ({ERROR_UNITS[quantity]})"


def error_text(quantity: str, value: float, digits: int = 2) -> str:
    """Return an error with its unit: "13.10 meV/Å"."""
    return f"{value:.{digits}f} {ERROR_UNITS[quantity]}"


def threads_text(number: int) -> str:
    """Return a number of CPU threads in words: "1 thread"."""
    return f"{number} thread{'' if number == 1 else 's'}"
