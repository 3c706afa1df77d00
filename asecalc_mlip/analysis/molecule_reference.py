"""How a molecule looks in the reference data: its bonds, their mean lengths, h(r) and the closest approach of pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs
from scipy.spatial import cKDTree

from asecalc_mlip.analysis.bonds import (
    BOND_MARGIN,
    THRESHOLD,
    bond_lengths,
    bond_limits,
    find_bonds,
    holds_molecules,
    whole,
)
from asecalc_mlip.analysis.contacts import shortest_by_pair
from asecalc_mlip.analysis.distances import BINS, R_MAX, DistanceHistogram, distance_histogram
from asecalc_mlip.analysis.frames import stated_temperatures
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_json, write_json

FORMAT = "asecalc-mlip molecule reference"
# Share of the frames in which a bond may be broken.
MOBILE = 0.05


@dataclass(frozen=True, repr=False)
class MoleculeReference:
    """Reference against which the stability and the structure of a molecule are judged.

    Attributes
    ----------
    symbols : tuple of str
        Chemical symbols in the order of the atoms.
    bonds : (n_bonds, 2) array of int
        i < j.
    mean_lengths : (n_bonds,) array
        b_ij, mean bond lengths over the frames, Å.
    histogram : DistanceHistogram
        h(r) of the frames.
    source : str
        Where the frames come from, for reports.
    closest : dict of str to float
        Shortest distance in the frames by pair of elements, Å: {"C-H": 0.98}; empty in files of older versions.
    temperatures_K : (float, float) or None
        Lowest and highest temperature that the frames state; None: they state none.
    """

    symbols: tuple[str, ...]
    bonds: np.ndarray
    mean_lengths: np.ndarray
    histogram: DistanceHistogram
    source: str
    closest: dict[str, float] = field(default_factory=dict)
    temperatures_K: tuple[float, float] | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames the means are taken over."""
        return self.histogram.n_frames

    @classmethod
    def from_frames(
        cls,
        frames: Atoms | Iterable[Atoms],
        source: str = "",
        *,
        geometry: Atoms | None = None,
        bins: int = BINS,
        r_max: float = R_MAX,
    ) -> MoleculeReference:
        """Build the reference from frames of one molecule.

        Parameters
        ----------
        frames : Atoms or iterable of Atoms
            The same molecule in the same order of atoms; molecules in a periodic box are put together again.
        source : str
            Where they come from, e.g. "rMD17 aspirin, 950 training frames, PBE/def2-SVP".
        geometry : Atoms, optional
            The geometry that decides which atoms are bonded. By default a pair is bonded when its mean distance over
            the frames is below R_cov,i + R_cov,j + 0.6 Å, so that one stretched frame does not count, and its distance
            is within 0.5 Å of the mean in 95 % of them: the bond of a proton that moves between two atoms cannot be
            watched.
        bins, r_max : int, float
            Of h(r); `r_max` in Å.

        Raises
        ------
        InputError
            There are no frames, or they are of different molecules.
        """
        frames = [frames] if isinstance(frames, Atoms) else list(frames)
        _check_same_molecule(frames)
        bonded = find_bonds(frames[0]) if holds_molecules(frames[0]) else np.zeros((0, 2), dtype=np.int64)
        positions = np.array([whole(frame.positions, bonded, frame) for frame in frames])
        bonds = find_bonds(geometry) if geometry is not None else _bonds_of_mean(frames[0], positions)
        lengths = bond_lengths(positions, bonds).mean(axis=0)
        symbols = tuple(frames[0].get_chemical_symbols())
        closest, span = shortest_by_pair(frames), stated_temperatures(frames)
        return cls(symbols, bonds, lengths, distance_histogram(positions, bins, r_max), source, closest, span)

    def matches(self, atoms: Atoms) -> bool:
        """Return whether `atoms` has the same elements in the same order."""
        return tuple(atoms.get_chemical_symbols()) == self.symbols

    def bond_name(self, index: int) -> str:
        """Name a bond for people, e.g. "C3-H14" (atoms counted from 0)."""
        i, j = self.bonds[index]
        return f"{self.symbols[i]}{i}-{self.symbols[j]}{j}"

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON and model files."""
        return {
            "format": FORMAT,
            "version": 1,
            "source": self.source,
            "symbols": list(self.symbols),
            "bonds": self.bonds.tolist(),
            "mean_lengths": self.mean_lengths.tolist(),
            "histogram": self.histogram.to_dict(),
            "closest": dict(self.closest),
            "temperatures_K": list(self.temperatures_K) if self.temperatures_K else None,
        }

    @classmethod
    def from_dict(cls, data: dict) -> MoleculeReference:
        """Invert `to_dict`; floats come back exactly."""
        if data.get("format") != FORMAT or data.get("version") != 1:
            raise InputError(f"this is no '{FORMAT}' of version 1; make one with 'asecalc reference'")
        span = data.get("temperatures_K")  # as `closest`, not in files before 0.2
        return cls(
            tuple(data["symbols"]),
            np.array(data["bonds"], dtype=np.int64).reshape(-1, 2),
            np.array(data["mean_lengths"], dtype=float),
            DistanceHistogram.from_dict(data["histogram"]),
            data["source"],
            {str(pair): float(distance) for pair, distance in data.get("closest", {}).items()},
            (float(span[0]), float(span[1])) if span else None,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the reference as JSON."""
        write_json(path, self, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike) -> MoleculeReference:
        """Read a reference written by `save`."""
        return read_reference(cls, path)

    def __repr__(self) -> str:
        formula = Atoms(self.symbols).get_chemical_formula()
        span = f"{self.mean_lengths.min():.2f}-{self.mean_lengths.max():.2f} Å" if len(self.bonds) else "none"
        return (
            f"MoleculeReference({formula}, {len(self.bonds)} bonds ({span}), {self.n_frames} frames, "
            f"source: {self.source or 'not given'})"
        )


Kind = TypeVar("Kind", bound="FromDict")


class FromDict(Protocol):
    """Anything that is made of plain types."""

    @classmethod
    def from_dict(cls, data: dict) -> Any:
        """Invert `to_dict`."""


def read_reference(kind: type[Kind], path: str | os.PathLike) -> Kind:
    """Read a JSON file as one kind of reference; InputError that names the file where it is none."""
    data = read_json(path, "reference")
    try:
        return kind.from_dict(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as a reference: {error!r}") from None


def _check_same_molecule(frames: list[Atoms]) -> None:
    if not frames:
        raise InputError("a molecule reference needs at least one frame")
    for number, frame in enumerate(frames):
        if len(frame) != len(frames[0]) or (frame.numbers != frames[0].numbers).any():
            raise InputError(
                f"frame {number} is {frame.get_chemical_formula()} or has another order of atoms than frame 0 "
                f"({frames[0].get_chemical_formula()}): give frames of one molecule in one order"
            )


def _bonds_of_mean(atoms: Atoms, positions: np.ndarray) -> np.ndarray:
    """Bonds by mean distances over `positions` (n_frames, n_atoms, 3)."""
    # A mean below a limit has a value below it: all other pairs, of large clusters too many to hold, need no look.
    reach, codes = 2.0 * max(natural_cutoffs(atoms, mult=1)) + BOND_MARGIN, np.zeros(0, dtype=np.int64)
    for frame in positions:
        near = cKDTree(frame).query_pairs(reach, output_type="ndarray")
        codes = np.union1d(codes, near[:, 0] * len(atoms) + near[:, 1])
    candidates = np.stack(np.divmod(codes, len(atoms)), axis=1)
    if len(candidates) == 0:
        return candidates
    mean = np.mean([bond_lengths(frame, candidates) for frame in positions], axis=0)
    bonds = candidates[mean < bond_limits(atoms, candidates)].astype(np.int64)
    lengths = bond_lengths(positions, bonds)
    away = (np.abs(lengths - lengths.mean(axis=0)) > THRESHOLD).sum(axis=0)
    # One stretched frame says nothing, however few there are.
    return bonds[away <= max(1.0, MOBILE * len(positions))]
