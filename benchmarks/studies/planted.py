"""Failures that are edited into sound trajectories, frame after frame: what a monitor has to find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ase import Atoms

__all__ = ["EDITS", "boxed"]


def boxed(atoms: Atoms) -> Atoms:
    """Put a molecule across the faces of a box."""
    atoms = atoms.copy()
    atoms.set_cell([14.0, 14.0, 14.0])
    atoms.pbc = True
    atoms.wrap()
    return atoms


def _pull(pair: tuple[str, str]) -> Callable[[list[Atoms], Any], Iterator[Atoms]]:
    """Bring the two closest atoms of a pair of elements together, slowly: to half their distance at the end."""

    def edit(frames: list[Atoms], rng: Any) -> Iterator[Atoms]:
        d = frames[0].get_all_distances(mic=True) + 99.0 * np.eye(len(frames[0]))
        symbols = np.array(frames[0].get_chemical_symbols())
        allowed = np.where((symbols[:, None] == pair[0]) & (symbols == pair[1]), d, 99.0)
        i, j = np.unravel_index(int(np.argmin(allowed)), allowed.shape)
        for k, atoms in enumerate(frames):
            vector = atoms.get_distance(i, j, mic=True, vector=True)
            share = 0.25 * k / len(frames)
            atoms.positions[i] += share * vector
            atoms.positions[j] -= share * vector
            yield atoms

    return edit


def _swap(frames: list[Atoms], rng: Any) -> Iterator[Atoms]:
    """Exchange two unlike atoms half way."""
    symbols = frames[0].get_chemical_symbols()
    i = 0
    j = next(k for k, s in enumerate(symbols) if s != symbols[i])
    for k, atoms in enumerate(frames):
        if k >= len(frames) // 2:
            atoms.positions[[i, j]] = atoms.positions[[j, i]]
        yield atoms


def _leave(frames: list[Atoms], rng: Any) -> Iterator[Atoms]:
    """Move the last atom away, slowly, by 6 Å."""
    for k, atoms in enumerate(frames):
        atoms.positions[-1] += [6.0 * k / len(frames), 0.0, 0.0]
        if atoms.pbc.any():
            atoms.wrap()
        yield atoms


def _melt(frames: list[Atoms], rng: Any) -> Iterator[Atoms]:
    """Let every atom walk away at random, as it does where the forces are lost."""
    drift = np.zeros_like(frames[0].positions)
    for atoms in frames:
        drift += 0.12 * rng.standard_normal(drift.shape)
        atoms.positions += drift
        yield atoms


def _clot(frames: list[Atoms], rng: Any) -> Iterator[Atoms]:
    """Draw all atoms towards the middle of the cell, by a fifth at the end."""
    for k, atoms in enumerate(frames):
        middle = atoms.positions.mean(axis=0)
        atoms.positions += (middle - atoms.positions) * 0.2 * k / len(frames)
        yield atoms


EDITS: dict[str, dict[str, Callable[[list[Atoms], Any], Iterator[Atoms]]]] = {
    "ethanol_painn": {
        "H-H together": _pull(("H", "H")),
        "H-O together": _pull(("H", "O")),
        "C-C together": _pull(("C", "C")),
        "swap": _swap,
        "atom leaves": _leave,
        "atom leaves, in a box": _leave,
        "swap, in a box": _swap,
        "melt": _melt,
    },
    "silica": {
        "Si-Si together": _pull(("Si", "Si")),
        "O-O together": _pull(("O", "O")),
        "O-Si together": _pull(("O", "Si")),
        "swap": _swap,
        "atom leaves": _leave,
        "melt": _melt,
        "clot": _clot,
    },
}
