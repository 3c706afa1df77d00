"""Read the archives of MD17 and rMD17, .npz of plain arrays."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from asecalc_mlip.data.xyz_files import DAMAGE
from asecalc_mlip.errors import DataError, InputError

__all__ = ["read_npz_frames"]

# Bytes of an array; its size over that of the file, which deflate never exceeds.
MOST_BYTES, MOST_RATIO = 1 << 36, 1100


def read_npz_frames(path: Path) -> Iterator[Atoms]:
    """Read an MD17 (z, R, E, F) or rMD17 (nuclear_charges, coords, energies, forces) archive."""
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if archive[name].dtype.kind in "iuf"}
    except DAMAGE as error:
        text = f"{path}: not a complete .npz archive of plain arrays ({str(error)[:300] or type(error).__name__})"
        raise DataError(f"{text}. Download it again") from error
    for names in (("nuclear_charges", "coords", "energies", "forces"), ("z", "R", "E", "F")):
        if set(names) <= set(arrays):
            numbers, positions, energies, forces = (arrays[name] for name in names)
            break
    else:
        raise InputError(
            f"{path}: has the arrays {sorted(arrays)}, but an MD17 archive has z, R, E, F and an rMD17 archive "
            "nuclear_charges, coords, energies, forces. Convert other archives to extended XYZ"
        )
    shape = (len(positions), len(numbers), 3)
    if positions.shape != shape or forces.shape != shape or energies.size != shape[0]:
        raise DataError(
            f"{path}: shapes do not fit: coordinates {positions.shape}, forces {forces.shape}, "
            f"energies {energies.shape} for {len(numbers)} atoms"
        )
    origin = arrays.get("old_indices", np.arange(len(positions))).reshape(-1)
    if len(origin) != len(positions):
        raise DataError(f"{path}: {len(origin)} old_indices for {len(positions)} frames")
    for frame, energy in enumerate(energies.reshape(-1)):
        atoms = Atoms(numbers=numbers, positions=positions[frame], info={"md17_index": int(origin[frame])})
        atoms.info["energy"] = float(energy)
        atoms.new_array("forces", np.asarray(forces[frame], dtype=float))
        yield atoms


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
