"""Copies of structures with all that a label may depend on, and nothing else.

A label depends on elements, positions, cell and periodicity, and for a program with electrons on the electronic
state that a structure states: ``initial_magmoms`` and ``initial_charges`` of its atoms (ASE's names), and ``charge``,
``spin`` and ``multiplicity`` in its `info`, which published models read. Old results, constraints, momenta and names
of data sets are left behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

__all__ = ["bare", "state_of", "stated_charge", "stated_multiplicity", "states_of", "with_state"]

ARRAYS = ("initial_magmoms", "initial_charges")
INFO = ("charge", "spin", "multiplicity")
# Of a sum of charges or moments from a whole number; others are no total.
WHOLE = 0.05


def bare(atoms: Atoms) -> Atoms:
    """Copy elements, positions (Å), cell (Å), periodicity and the electronic state."""
    return with_state(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc), atoms)


def with_state(atoms: Atoms, source: Atoms) -> Atoms:
    """Give a structure, in place, the electronic state of another one of the same atoms; return it."""
    for name in ARRAYS:
        if source.has(name):
            atoms.set_array(name, source.arrays[name].copy())
    atoms.info.update({name: source.info[name] for name in INFO if name in source.info})
    return atoms


def stated_charge(atoms: Atoms) -> int:
    """Return the total charge that a structure states, e; 0 where it states none.

    `info["charge"]`, else the sum of its initial charges, where that is a whole number.
    """
    found = _whole(atoms.info.get("charge"))
    if found is None and atoms.has("initial_charges"):
        found = _whole(float(atoms.get_initial_charges().sum()))
    return found or 0


def stated_multiplicity(atoms: Atoms) -> int | None:
    """Return the multiplicity 2S+1 that a structure states; None where it states none.

    `info["multiplicity"]`, else by the sum of its initial magnetic moments, where that is a whole number and not 0.
    `info["spin"]` has different meanings, and is left to the calculators that read it.
    """
    found = _whole(atoms.info.get("multiplicity"))
    if found is not None:
        return found
    moments = atoms.get_initial_magnetic_moments() if atoms.has("initial_magmoms") else np.zeros(1)
    unpaired = _whole(float(moments.sum())) if moments.ndim == 1 else None
    return abs(unpaired) + 1 if unpaired else None


def state_of(atoms: Atoms) -> bytes:
    """Return the electronic state as bytes for a digest; none of a neutral singlet without moments and charges."""
    arrays = {name: atoms.arrays[name] for name in ARRAYS if atoms.has(name) and np.any(atoms.arrays[name])}
    parts = [name.encode() + np.ascontiguousarray(values).tobytes() for name, values in arrays.items()]
    usual = {"charge": 0, "spin": 1, "multiplicity": 1}
    found = {name: atoms.info[name] for name in INFO if name in atoms.info}
    parts += [f"{name}={value}".encode() for name, value in found.items() if str(value) != str(usual[name])]
    return b"".join(parts)


def states_of(frames: Sequence[Atoms]) -> tuple[str, ...]:
    """Return the electronic states of some structures, for a fingerprint; nothing where none of them states any."""
    found = tuple(state_of(atoms).hex() for atoms in frames)
    return found if any(found) else ()


def _whole(value: object) -> int | None:
    """Return a number as the whole one that it is, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    return round(float(value)) if np.isfinite(value) and abs(value - round(float(value))) < WHOLE else None
