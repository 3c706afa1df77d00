"""Frames one by one, whether they came as arrays or as `ase.Atoms`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.cell import Cell

from asecalc_mlip.errors import InputError

Select = str | Sequence[int] | np.ndarray | None


def as_list(frames: Atoms | Iterable) -> Iterable:
    """Return an iterable of frames, also for one single `ase.Atoms` or one (n, 3) array."""
    if isinstance(frames, Atoms) or (isinstance(frames, np.ndarray) and frames.ndim == 2):
        return [frames]
    return frames


def stated_temperatures(frames: Iterable[Atoms]) -> tuple[float, float] | None:
    """Return the lowest and the highest temperature (K) that frames state in `info`, or None where none does.

    Frames name it "temperature_K" or "temperature".
    """
    stated = [atoms.info.get("temperature_K", atoms.info.get("temperature")) for atoms in frames]
    known = [float(t) for t in stated if isinstance(t, (int, float, np.number)) and np.isfinite(t)]
    return (min(known), max(known)) if known else None


def selection(frame, select: Select) -> np.ndarray:
    """Return the indices of the atoms that `select` means: all (None), those of an element ("O"), or those given."""
    n = len(frame)
    if n == 0:
        raise InputError("the frames have no atoms: give some with atoms")
    if select is None:
        return np.arange(n)
    if isinstance(select, str):
        if not isinstance(frame, Atoms):
            raise InputError(f"select={select!r} needs frames that are ase.Atoms: give indices of atoms for arrays")
        found = np.flatnonzero(np.array(frame.get_chemical_symbols()) == select)
        if len(found) == 0:
            present = ", ".join(sorted(set(frame.get_chemical_symbols())))
            raise InputError(f"there is no {select!r} in the frames; their elements are {present}")
        return found
    index = np.asarray(select)
    if index.ndim != 1 or len(index) == 0 or index.min() < 0 or index.max() >= n:
        raise InputError(f"select names atoms {list(select)}, but the frames have atoms 0 to {n - 1}")
    return index


def masses_of(frame, masses: np.ndarray | None) -> np.ndarray:
    """Return the masses (n,) in u: the given ones, those of the atoms, or all equal."""
    if masses is not None:
        masses = np.asarray(masses, dtype=float)
        if masses.shape != (len(frame),) or not (masses > 0).all():
            raise InputError(f"masses must be {len(frame)} positive numbers, not an array of shape {masses.shape}")
        return masses
    return frame.get_masses() if isinstance(frame, Atoms) else np.ones(len(frame))


def unwrapped(frames: Iterable, cell: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield positions (n, 3) in Å of each frame without jumps by lattice vectors.

    Atoms are followed from frame to frame, so none may move by half a lattice vector in between. `cell` (3, 3) makes
    plain arrays periodic in all directions; `ase.Atoms` bring their own cell and periodicity.
    """
    before, path = None, np.zeros(0)
    for number, frame in enumerate(frames):
        now = np.asarray(frame.positions if isinstance(frame, Atoms) else frame, dtype=float)
        if now.ndim != 2 or now.shape[1] != 3 or (before is not None and now.shape != before.shape):
            raise InputError(f"frame {number} has the shape {now.shape}; (n_atoms, 3) as the first is expected")
        if not np.isfinite(now).all():
            raise InputError(f"frame {number} has positions that are NaN or infinite: leave it out")
        if before is None:
            path = now.copy()
        else:
            path = path + _without_jumps(now - before, frame, cell)
        before = now
        yield path


def _without_jumps(step: np.ndarray, frame, cell: np.ndarray | None) -> np.ndarray:
    if isinstance(frame, Atoms):
        vectors, pbc = frame.cell.array, frame.pbc
    else:
        vectors, pbc = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float), np.full(3, cell is not None)
    if not pbc.any():
        return step
    if vectors.shape != (3, 3) or np.linalg.matrix_rank(vectors[pbc]) < pbc.sum():
        raise InputError(
            f"the cell is {vectors.tolist()} Å; an independent lattice vector for each periodic direction is expected"
        )
    lattice = Cell(np.where(pbc[:, None], vectors, 0.0)).complete().array
    return step - (np.round(step @ np.linalg.inv(lattice)) * pbc) @ lattice
