"""Charge and spin that structures state: no model here reads them, so they are told where they differ from the data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

__all__ = ["CHARGES", "SPINS", "StateNote", "state_of_all", "state_note", "stated_state"]

# Names in `info`, and the values of a neutral singlet; "spin" is 2S or 2S+1, by the program that wrote it.
CHARGES = ("charge", "total_charge")
SPINS = ("multiplicity", "spin_multiplicity", "spin", "total_spin")
_USUAL = {**dict.fromkeys(CHARGES, (0,)), "multiplicity": (1,), "spin_multiplicity": (1,)}
_NAMES = {"total_charge": "charge", "spin_multiplicity": "multiplicity", "total_spin": "spin"}
# Of a sum of initial charges from a whole number; others are no total charge.
WHOLE = 0.05


def stated_state(atoms: Atoms) -> dict[str, float]:
    """Return what a structure states of its charge and spin, where it is no neutral singlet.

    Charge, multiplicity and spin of its `info`; without a charge there, the sum of its initial charges where that is a
    whole number.
    """
    found = {}
    for name in (*CHARGES, *SPINS):
        value = atoms.info.get(name)
        if _is_number(value) and value not in _USUAL.get(name, (0, 1)):
            found[_NAMES.get(name, name)] = float(value)
    if atoms.has("initial_charges") and not any(name in atoms.info for name in CHARGES):
        total = float(atoms.get_initial_charges().sum())
        if np.isfinite(total) and round(total) != 0 and abs(total - round(total)) < WHOLE:
            found["charge"] = float(round(total))
    return found


def state_of_all(frames: Sequence[Atoms]) -> dict[str, float]:
    """Return the state that all frames of more than one atom state; nothing where they differ or are neutral."""
    states = {tuple(sorted(stated_state(atoms).items())) for atoms in frames if len(atoms) > 1}
    return dict(states.pop()) if len(states) == 1 else {}


def state_note(atoms: Atoms, name: str, card: Mapping[str, Any]) -> str | None:
    """Return a sentence where a structure states another state than the data of a model, else None.

    Parameters
    ----------
    atoms : Atoms
    name : str
        Of the model.
    card : mapping
        Of the model; its `electronic_state` is that of all training data.
    """
    found = stated_state(atoms)
    known = card.get("electronic_state")
    known = known if isinstance(known, Mapping) else {}
    if not found or found == dict(known):
        return None
    data = f" ({_text(known)})" if known else ""
    return (
        f"{name} does not read the {_text(found)} of the structure: its energies and forces are those of the charge "
        f"and spin of its training data{data}"
    )


class StateNote:
    """Warns once of structures whose state is another one than that of the data of a model.

    Parameters
    ----------
    name : str
        Of the model.
    card : mapping
        Of the model.
    """

    def __init__(self, name: str, card: Mapping[str, Any]) -> None:
        self._name, self._card, self.told = name, card, False

    def __call__(self, atoms: Atoms) -> None:
        """Look at a structure."""
        if self.told or not (atoms.info or atoms.has("initial_charges")):
            return
        note = state_note(atoms, self._name, self._card)
        if note is not None:
            self.told = True
            warnings.warn(note, stacklevel=4)


def _text(state: Mapping[str, Any]) -> str:
    return " and ".join(f"{name} {value:g}" for name, value in state.items() if _is_number(value))


def _is_number(value: Any) -> bool:
    numbers = (int, float, np.integer, np.floating)
    return isinstance(value, numbers) and not isinstance(value, bool) and bool(np.isfinite(value))
