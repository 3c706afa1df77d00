"""Read the HDF5 files of ANI-1x and SPICE: a group for each molecule, with arrays over its geometries.

Files are taken for hostile: links that lead elsewhere, arrays kept in other files, shapes and types that are not those
of numbers, and filters that would be loaded from somewhere are refused before anything of them is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units

from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.extras import require

__all__ = ["ANI", "SPICE", "Layout", "read_groups"]

# Of an array in bytes, of groups, and of atoms and geometries of one.
MOST_BYTES, MOST_GROUPS, MOST_ROWS = 2**31, 10**7, 10**6
# Those of the HDF5 library itself (deflate, shuffle, checksum, szip, nbit, scale and offset) and LZF of h5py.
FILTERS = {1, 2, 3, 4, 5, 6, 32000}


class Layout(NamedTuple):
    """Names of the arrays of a group and their units in eV and Å; `force` is negative where gradients are kept."""

    numbers: str
    positions: str
    energy: str
    forces: str
    length_unit: float
    energy_unit: float
    force_unit: float
    subset: str | None = None


ANI = Layout("atomic_numbers", "coordinates", "wb97x_dz.energy", "wb97x_dz.forces", 1.0, units.Hartree, units.Hartree)
SPICE = Layout(
    "atomic_numbers",
    "conformations",
    "dft_total_energy",
    "dft_total_gradient",
    units.Bohr,
    units.Hartree,
    -units.Hartree / units.Bohr,
    "subset",
)


def read_groups(path: Path, layout: Layout, part: str | None = None) -> Iterator[Callable[[], Atoms]]:
    """Give a function for each geometry that makes its frame; a group stays in memory until another one is asked for.

    Parameters
    ----------
    path : Path
    layout : Layout
    part : str, optional
        Value of `layout.subset` of the groups that are wanted.

    Raises
    ------
    DataError
        For a file that is damaged or made to harm.
    InputError
        Without h5py, and for a part that the file does not have.
    """
    require("this data set", "h5py")
    with _told(path):
        reader = _Groups(path, layout)
        if len(reader.file) > MOST_GROUPS:
            raise DataError(f"{path} has {len(reader.file)} groups; at most {MOST_GROUPS} are possible")
    subsets = set()
    for name in reader.file:
        with _told(path):
            subset, rows = reader.subset(name), reader.rows(name)
        subsets.add(subset)
        if part is None or subset == part:
            yield from (partial(reader.frame, name, row) for row in range(rows))
    if part is not None and part not in subsets:
        raise InputError(f"{path} has no part {part!r:.60}; it has {', '.join(sorted(map(str, subsets)))[:600]}")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell what h5py raises as damage of the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError) as error:
        text = f"{path}: not a complete HDF5 file of this data set ({str(error)[:300] or type(error).__name__})"
        raise DataError(f"{text}. Remove it and run the same command again") from error


class _Groups:
    def __init__(self, path: Path, layout: Layout):
        import h5py

        self.path, self.layout = path, layout
        # Closed with the last of the functions that make frames.
        self.file = h5py.File(path, "r")
        self.name: str | None = None
        self.arrays: list[np.ndarray] = []

    def rows(self, name: str) -> int:
        """Count the geometries of a group, after a look at the shapes of its arrays."""
        numbers, positions, energy, forces = (self._array(name, field) for field in self.layout[:4])
        atoms, rows = len(numbers), len(positions)
        shapes = ((atoms,), (rows, atoms, 3), (rows,), (rows, atoms, 3))
        found = (numbers.shape, positions.shape, energy.shape, forces.shape)
        if found != shapes or max(atoms, rows) > MOST_ROWS or atoms < 1:
            raise DataError(f"{self.path}: group {name!r:.60} has arrays of the shapes {found}, which do not fit")
        return rows

    def subset(self, name: str) -> str | None:
        """Return the subset that a group is of."""
        if self.layout.subset is None:
            return None
        array = self._member(self._group(name), self.layout.subset, "Dataset")
        if array.size != 1 or array.external or array.is_virtual:
            raise DataError(f"{self.path}: group {name!r:.60} has no single {self.layout.subset}")
        value = array.asstr()[()]
        return str(value if isinstance(value, str) else value.reshape(-1)[0])[:200]

    def frame(self, name: str, row: int) -> Atoms:
        """Make one frame, in eV and Å."""
        with _told(self.path):
            return self._frame(name, row)

    def _frame(self, name: str, row: int) -> Atoms:
        if self.name != name:
            self.arrays = [self._array(name, field)[()] for field in self.layout[:4]]
            self.name = name
        numbers, positions, energy, forces = self.arrays
        atoms = Atoms(numbers=numbers, positions=positions[row].astype(float) * self.layout.length_unit)
        atoms.info["group"] = name
        if (subset := self.subset(name)) is not None:
            atoms.info["subset"] = subset
        atoms.info["energy"] = float(energy[row]) * self.layout.energy_unit
        atoms.new_array("forces", forces[row].astype(float) * self.layout.force_unit)
        return atoms

    def _group(self, name: str) -> Any:
        return self._member(self.file, name, "Group")

    def _array(self, name: str, field: str) -> Any:
        """Return an array, unread, that is made of numbers in this file and of a size that fits into memory."""
        array = self._member(self._group(name), field, "Dataset")
        plan = array.id.get_create_plist()
        filters = {plan.get_filter(k)[0] for k in range(plan.get_nfilters())}
        size = math.prod(array.shape) * array.dtype.itemsize
        if array.external or array.is_virtual or not filters <= FILTERS or array.dtype.kind not in "iuf":
            raise DataError(f"{self.path}: {name!r:.60}/{field} is not an array of plain numbers in this file")
        if size > MOST_BYTES or (size > 1 << 20 and size > 2000 * max(array.id.get_storage_size(), 1)):
            raise DataError(
                f"{self.path}: {name!r:.60}/{field} announces the shape {array.shape}, for which it is short"
            )
        return array

    def _member(self, group: Any, name: str, kind: str) -> Any:
        """Return what a group holds under a name, followed by no link to another name or file."""
        import h5py

        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError(
                f"{self.path}: {name!r:.60} is missing or a link to another place; nothing is read from there"
            )
        found = group[name]
        if not isinstance(found, getattr(h5py, kind)):
            raise DataError(f"{self.path}: {name!r:.60} is no {kind.lower()}")
        return found
