"""Read a system of DeePMD: a folder with type.raw, type_map.raw and sets of NumPy arrays.

Energies are in eV, coordinates and boxes in Å, forces in eV/Å; the virial, in eV, is −V times the stress.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from asecalc_mlip.errors import DataError, InputError

__all__ = ["folder_text", "is_deepmd", "read_deepmd_frames"]

# Numbers a frame of each array has: for each atom, or in all.
PER_ATOM, IN_ALL = {"coord": 3, "force": 3}, {"box": 9, "energy": 1, "virial": 9}


def is_deepmd(path: Path) -> bool:
    """Return whether a path is the folder of a system of DeePMD."""
    return (path / "type.raw").is_file()


def folder_text(path: Path) -> str:
    """Say of a folder that it is no file, and what to do."""
    if is_deepmd(path):
        return f"{path} is a folder of DeePMD; make one file of it: asecalc data convert {path} {path.name}.xyz"
    if any(is_deepmd(child) for child in path.iterdir() if child.is_dir()):
        return (
            f"{path} is a folder of several systems of DeePMD; make a file of each: asecalc data convert SYSTEM X.xyz"
        )
    return f"{path} is a folder, not a file"


def read_deepmd_frames(path: Path) -> Iterator[Atoms]:
    """Read the frames of all sets of a system, in the order of the names of the sets.

    Raises
    ------
    InputError
        Its types have no elements, it has no set, or sets in which each frame has atoms of its own (mixed type).
    DataError
        An array is missing, damaged or of another shape.
    """
    numbers = _numbers(path)
    sets = sorted(folder for folder in path.glob("set.*") if folder.is_dir())
    if not sets:
        raise InputError(f"{path}: has no folder set.000; text files (coord.raw) are read once raw_to_set.sh made sets")
    open_box = (path / "nopbc").is_file()
    for folder in sets:
        if (folder / "real_atom_types.npy").exists():
            raise InputError(f"{folder}: the mixed-type format is not read; write each composition as a system")
        yield from _frames(folder, numbers, open_box)


def _numbers(path: Path) -> np.ndarray:
    """Atomic numbers, (N,), of the types."""
    names = path / "type_map.raw"
    if not names.is_file():
        raise InputError(f"{path}: has no type_map.raw, which names the element of each type: write one, a line each")
    try:
        elements = [atomic_numbers[name] for name in names.read_text(encoding="utf-8-sig").split()]
        return np.array([elements[int(kind)] for kind in (path / "type.raw").read_text(encoding="utf-8-sig").split()])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(f"{path}: type.raw and type_map.raw do not name elements ({error!r:.80})") from None


def _frames(folder: Path, numbers: np.ndarray, open_box: bool) -> Iterator[Atoms]:
    arrays = {name: _array(folder, name, len(numbers)) for name in (*PER_ATOM, *IN_ALL)}
    coordinates, boxes = arrays["coord"], arrays["box"]
    if coordinates is None or (boxes is None and not open_box):
        raise DataError(f"{folder}: has no {'coord' if coordinates is None else 'box'}.npy")
    lengths = {name: len(array) for name, array in arrays.items() if array is not None}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{folder}: its arrays have unlike numbers of frames: {lengths}")
    for k, positions in enumerate(coordinates):
        cell = None if open_box or boxes is None else boxes[k].reshape(3, 3)
        atoms = Atoms(numbers, positions.reshape(-1, 3), cell=cell, pbc=not open_box)
        for name, label in (("energy", "energy"), ("virial", "virial"), ("force", "forces")):
            array = arrays[name]
            if array is None or (name == "virial" and open_box):
                continue
            if name == "force":
                atoms.set_array(label, array[k].reshape(-1, 3), float, (3,))
            else:
                atoms.info[label] = float(array[k, 0]) if name == "energy" else array[k].reshape(3, 3)
        yield atoms


def _array(folder: Path, name: str, n_atoms: int) -> np.ndarray | None:
    """Return an array of a set in float64, (frames, numbers); None where there is none."""
    file = folder / f"{name}.npy"
    if not file.is_file():
        return None
    width = n_atoms * PER_ATOM[name] if name in PER_ATOM else IN_ALL[name]
    try:
        found = np.load(file, allow_pickle=False, mmap_mode="r")
        return np.asarray(found.reshape(len(found), width), dtype=float)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise DataError(f"{file}: no array of {width} numbers a frame ({error!s:.100})") from None
