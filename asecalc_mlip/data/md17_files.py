"""Read the archives of MD17, rMD17 and Si-ZEO22, .npz of plain arrays."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from asecalc_mlip.data.xyz_files import DAMAGE
from asecalc_mlip.errors import DataError, InputError

__all__ = ["read_npz_frames", "read_zeolite_frames", "stated_units"]

# Bytes of an array; its size over that of the file, which deflate never exceeds.
MOST_BYTES, MOST_RATIO = 1 << 36, 1100


def stated_units(path: Path) -> tuple[str | None, str | None]:
    """Return the units of energy and length that an archive states, as sGDML writes them; None where it is silent."""
    texts = _arrays(path, "SU", ("e_unit", "r_unit"))
    found = {name: value for name, array in texts.items() for value in array.reshape(-1)[:1].tolist()}
    units = {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in found.items()}
    return units.get("e_unit") or None, units.get("r_unit") or None


def read_npz_frames(path: Path) -> Iterator[Atoms]:
    """Read an MD17 (z, R, E, F) or rMD17 (nuclear_charges, coords, energies, forces) archive.

    One with a lattice is refused: programs write its vectors as rows or as columns, and do not say which.
    """
    arrays = _arrays(path, "iuf")
    for names in (("nuclear_charges", "coords", "energies", "forces"), ("z", "R", "E", "F")):
        if set(names) <= set(arrays):
            numbers, positions, energies, forces = (arrays[name] for name in names)
            break
    else:
        raise InputError(
            f"{path}: has the arrays {sorted(arrays)}, but an MD17 archive has z, R, E, F and an rMD17 archive "
            "nuclear_charges, coords, energies, forces. Convert other archives to extended XYZ"
        )
    shape = (energies.size, numbers.size, 3)
    if numbers.ndim != 1 or positions.shape != shape or forces.shape != shape:
        raise DataError(
            f"{path}: shapes do not fit: coordinates {positions.shape}, forces {forces.shape}, "
            f"energies {energies.shape} for atoms {numbers.shape}"
        )
    if not np.array_equal(numbers, numbers.round()):
        raise DataError(f"{path}: its atomic numbers are no whole numbers: {str(numbers[:5])[:80]}")
    if np.any(arrays.get("lattice", 0)):
        raise InputError(f"{path}: has a lattice, which is not read from .npz. Convert it to extended XYZ")
    origin = arrays.get("old_indices", np.arange(len(positions))).reshape(-1)
    if len(origin) != len(positions) or not np.isfinite(origin).all():
        raise DataError(f"{path}: {len(origin)} old_indices for {len(positions)} frames, or some that are no numbers")
    for frame, energy in enumerate(energies.reshape(-1)):
        atoms = Atoms(numbers=numbers, positions=positions[frame], info={"md17_index": int(origin[frame])})
        atoms.info["energy"] = float(energy)
        atoms.new_array("forces", np.asarray(forces[frame], dtype=float))
        yield atoms


def read_zeolite_frames(path: Path) -> Iterator[Atoms]:
    """Read a topology of Si-ZEO22: positions, cells, forces (eV/Å), energies (eV) and symbols."""
    arrays = _arrays(path, "iufU")
    kinds = {"positions": "iuf", "cells": "iuf", "forces": "iuf", "energies": "iuf", "symbols": "U"}
    missing = {name for name, kind in kinds.items() if name not in arrays or arrays[name].dtype.kind not in kind}
    if missing:
        raise InputError(f"{path}: has the arrays {sorted(arrays)}, but one of Si-ZEO22 has {sorted(missing)} as well")
    positions, cells, forces, energies, symbols = (
        arrays[name] for name in ("positions", "cells", "forces", "energies", "symbols")
    )
    rows, atoms = len(positions), symbols.size
    found = (positions.shape, cells.shape, forces.shape, energies.shape)
    if found != ((rows, atoms, 3), (rows, 3, 3), (rows, atoms, 3), (rows,)):
        raise DataError(f"{path}: shapes do not fit: {found} for {atoms} atoms")
    try:
        numbers = Atoms([str(symbol) for symbol in symbols.reshape(-1)]).numbers
    except KeyError as error:
        raise DataError(f"{path}: {error!s:.40} is no element") from None
    for row in range(rows):
        frame = Atoms(numbers, positions[row], cell=cells[row], pbc=True)
        frame.info |= {"energy": float(energies[row]), "group": path.stem, "frame_file": path.name, "frame_index": row}
        frame.new_array("forces", np.asarray(forces[row], dtype=float))
        yield frame


def _arrays(path: Path, kinds: str, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an archive, or those of these names, whose types are of these kinds."""
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            wanted = [name for name in archive.files if names is None or name in names]
            return {name: array for name in wanted if (array := archive[name]).dtype.kind in kinds}
    except DAMAGE as error:
        text = f"{path}: not a complete .npz archive of plain arrays ({str(error)[:300] or type(error).__name__})"
        raise DataError(f"{text}. Download it again") from error


def _check_archive(path: Path) -> None:
    """Compare what headers of arrays announce with the bytes that are there, before memory is taken for them."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > MOST_BYTES or member.file_size > MOST_RATIO * max(path.stat().st_size, 1 << 20):
                raise ValueError(f"{member.filename} would be {member.file_size} bytes long")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            size = math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or size > member.file_size:
                raise ValueError(f"{member.filename} announces the shape {shape}, for which it is too short")
