"""Structures that speed is measured on, by name or from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.geometry import complete_cell
from ase.spacegroup import crystal

from asecalc_mlip import zoo
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_structure

__all__ = ["NAMES", "enlarged", "quartz", "structure"]

_QUARTZ = {"quartz-72": (2, 2, 2), "quartz-576": (4, 4, 4), "quartz-2025": (5, 5, 9)}
NAMES = ("ethanol", "aspirin", "quartz-72", "water-192", "quartz-576", "quartz-2025")

# Å between the copies of a molecule that `enlarged` makes: neighbours within any usual cutoff, none too close.
_GAP = 2.5


def structure(name_or_file: str) -> Atoms:
    """Return a structure by its name in `NAMES`, or from a file that ASE reads.

    Raises
    ------
    InputError
        For a name that is unknown and no file, or a file that cannot be read.
    """
    if name_or_file in ("ethanol", "aspirin"):
        # Another geometry has another number of edges; this one is that of all published times.
        return zoo.structure(f"{name_or_file}_painn")
    if name_or_file in _QUARTZ:
        return quartz() * _QUARTZ[name_or_file]
    if name_or_file == "water-192":
        return _water()
    if not Path(name_or_file).is_file():
        raise InputError(
            f"{name_or_file}: no such file, and no structure of that name; the names are {', '.join(NAMES)}"
        )
    return read_structure(name_or_file)


def quartz() -> Atoms:
    """Return α-quartz, 9 atoms, P3₂21 (Levien, Prewitt and Weidner, Am. Mineral. 65 (1980) 920)."""
    sites = [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)]
    return crystal(["Si", "O"], sites, spacegroup=154, cellpar=[4.916, 4.916, 5.4054, 90, 90, 120])


def enlarged(atoms: Atoms, repeats: int) -> Atoms:
    """Return `repeats`³ copies: a supercell along the periodic directions, molecules side by side along the others."""
    lattice = complete_cell(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0))
    for axis in np.flatnonzero(~atoms.pbc):
        # A unit vector across the others; a cell given for a free direction says nothing about the extent.
        lattice[axis] *= np.ptp(atoms.positions @ lattice[axis]) + _GAP
    block = atoms.copy()
    block.set_cell(lattice)
    return block * (repeats, repeats, repeats)


def _water() -> Atoms:
    """Return 64 molecules at the density of water, on a grid and turned at random."""
    rng, box = np.random.default_rng(0), Atoms(cell=[12.43] * 3, pbc=True)
    for site in np.ndindex(4, 4, 4):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.translate((np.array(site) + 0.5) * 12.43 / 4)
        box += water
    return box
