"""The parts of ASE's calculator that run at every step, made fast."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from asecalc_mlip.errors import InputError
from asecalc_mlip.quantities import shortened

__all__ = ["NoStressError", "StateCalculator", "check_atoms"]


class NoStressError(InputError, PropertyNotImplementedError):
    """A stress that a model or a structure does not have: programs that take what is there pass over it."""


def check_atoms(atoms: Any, name: str = "the structure") -> None:
    """Raise InputError for what is no `ase.Atoms`, such as the name of a file."""
    if not isinstance(atoms, Atoms):
        read = ": read a file with ase.io.read" if isinstance(atoms, (str, os.PathLike)) else ""
        raise InputError(f"{name} is {shortened(atoms)}, not an ase.Atoms object{read}")


class CallLock:
    """Lets one thread in at a time; a copy, also one made by pickling, is a lock of its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple:
        return CallLock, ()


class StateCalculator(Calculator):
    """A calculator whose results depend on positions, elements, cell and periodicity alone.

    Several threads may ask one for the properties of structures of their own; they wait for each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = CallLock()

    def set(self, **changes: Any) -> dict[str, Any]:
        """Refuse changes, which ASE's own would note without an effect. Called by ASE with none.

        Raises
        ------
        InputError
            For any change.
        """
        if changes:
            raise InputError(
                f"{', '.join(changes)} cannot be set: a {type(self).__name__} stays as it was made. Load another one, "
                "such as PIWSLCalculator.load('aspirin.pt', dtype='float64')"
            )
        return {}

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property, one thread at a time. Called by ASE."""
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Tell the changes since the last evaluation that a model sees. Called by ASE, whose own takes 0.1 ms or more.

        Charges and magnetic moments change nothing, and `tol` is not used: any other position counts.
        """
        if self.atoms is None:
            return list(all_changes)
        old, new = self.atoms, atoms
        pairs = {
            "positions": (old.positions, new.positions),
            "numbers": (old.numbers, new.numbers),
            "cell": (old.cell.array, new.cell.array),
            "pbc": (old.pbc, new.pbc),
        }
        return [name for name, (one, other) in pairs.items() if not np.array_equal(one, other)]

    def take(self, atoms: Atoms | None) -> Atoms:
        """Keep a copy of the structure as `atoms`, as `Calculator.calculate` does, without looking for a directory.

        Raises
        ------
        InputError
            Where there is none and never was.
        """
        if atoms is not None:
            check_atoms(atoms)
            if self.check_state(atoms):
                self.atoms = atoms.copy()
        if self.atoms is None:
            raise InputError("the calculator has no structure yet: give calculate(atoms) one, or set atoms.calc")
        return self.atoms
