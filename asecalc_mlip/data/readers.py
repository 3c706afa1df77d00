"""Read labelled structures: extended XYZ, ASE databases, and the MD17 and rMD17 archives.

Labels come out in one form whatever the source: ``atoms.info["energy"]`` in eV, ``atoms.arrays["forces"]`` in eV/Å
and ``atoms.info["stress"]`` as a 3×3 array in eV/Å³ (sign as in ASE: compression is negative), each only where the
source has it. No calculator stays attached, so that nothing is ever computed or looked up behind one's back.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import ase.db
import numpy as np
from ase import Atoms, units
from ase.db.core import Database
from ase.io import iread
from ase.io.formats import string2index

from asecalc_mlip.data.deepmd_files import folder_text, is_deepmd, read_deepmd_frames
from asecalc_mlip.data.labels import canonical, check_frame
from asecalc_mlip.data.md17_files import read_npz_frames, stated_units
from asecalc_mlip.data.xyz_files import read_xyz_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.text_files import what_it_is, without_mark

ENERGY_UNITS = {
    "ev": 1.0,
    "mev": 1e-3,
    "kcal/mol": units.kcal / units.mol,
    "kj/mol": units.kJ / units.mol,
    "hartree": units.Hartree,
    "ha": units.Hartree,
    "rydberg": units.Rydberg,
    "ry": units.Rydberg,
    "au": units.Hartree,
}
PRESSURE_UNITS = {"gpa": units.GPa, "kbar": 0.1 * units.GPa, "bar": units.bar}
_FORMATS = "Data files are extended XYZ, ASE .db, MD17/rMD17 .npz, or any other file of frames that ASE reads"
# What our teachers say once of all labels of a database; in extended XYZ every frame has it.
MADE_BY = ("teacher", "pyscf")
STRESS_FORMS = (r"(.+)/(\w+)/\2/\2", r"(.+)/(\w+)(?:\^|\*\*)3")
LENGTH_UNITS = {
    **dict.fromkeys(("ang", "angstrom", "å"), 1.0),
    **dict.fromkeys(("bohr", "a0", "au"), units.Bohr),
    "nm": units.nm,
}


class _Units(NamedTuple):
    """Units that belong to a format; forces and stress None: made of the first two."""

    energy: str = "eV"
    length: str = "Ang"
    force: str | None = None
    stress: str | None = None


def read_frames(path: str | Path, **options: Any) -> list[Atoms]:
    """Read all frames of a file into memory; see `iter_frames` for the options."""
    return list(iter_frames(path, **options))


def iter_frames(
    path: str | Path,
    *,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    force_unit: str | None = None,
    stress_unit: str | None = None,
    index: str | int = ":",
    folders: bool = False,
) -> Iterator[Atoms]:
    """Read a file frame by frame.

    Parameters
    ----------
    path : path
        ``.xyz``/``.extxyz`` (also packed: ``.gz``, ``.bz2``, ``.xz``), ``.db`` (ASE or SchNetPack), ``.npz`` (MD17,
        rMD17), or any other file ASE reads.
    energy_key, forces_key, stress_key : str, optional
        Where the labels are. By default the usual names are tried (``REF_energy``, ``energy``, …; see
        `asecalc_mlip.data.labels`), first in ``info``/``arrays``, then in stored calculator results.
        ``info["label_keys"]`` of every frame says which was used.
    energy_unit, length_unit : str, optional
        Units of the file, e.g. ``"Hartree"`` and ``"Bohr"``. None means the units that belong to the format: those
        that an MD17 archive states (e_unit, r_unit), else kcal/mol and Å for it; those stored in a SchNetPack database;
        else eV and Å.
    force_unit : str, optional
        Unit of the forces, e.g. ``"Hartree/Bohr"``. None means that of the format where neither of the other units is
        given (those stored in a SchNetPack database), else ``energy_unit/length_unit``.
    stress_unit : str, optional
        Unit of the stresses, e.g. ``"GPa"`` or ``"kbar"``, with ASE's sign (compression is negative); a virial has the
        unit of the energies. None means that of the format, else ``energy_unit/length_unit^3``.
    index : str or int
        Frames to read, as in ASE: ``":"``, ``"::10"``, ``":500"``, ``-1``.
    folders : bool
        Read the folder of a system of DeePMD too; other folders are refused in any case.

    Yields
    ------
    ase.Atoms
        With ``info["frame_file"]`` and ``info["frame_index"]``, its place in the file.

    Raises
    ------
    InputError
        The file is missing, of a wrong format, or an option is unknown.
    DataError
        The file is empty, cut off or damaged. The message names the frame.
    """
    path = Path(path)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    if path.is_dir() and not (folders and is_deepmd(path)):
        raise InputError(f"{folder_text(path)}. {_FORMATS}")
    frames, own = (read_deepmd_frames(path), _Units()) if path.is_dir() else _open(path)
    energy = parse_unit(energy_unit or own.energy, ENERGY_UNITS)
    length = parse_unit(length_unit or own.length, LENGTH_UNITS)
    if energy_unit or length_unit:
        own = _Units()
    named = force_unit or own.force
    force = parse_force_unit(named) if named else energy / length
    named = stress_unit or own.stress
    stress = parse_stress_unit(named) if named else energy / length**3
    empty = True
    for number, atoms in _select(frames, index):
        empty = False
        atoms.info.update(frame_file=path.name, frame_index=number)
        canonical(atoms, keys, energy=energy, length=length, force=force, stress=stress)
        if (energy, force) != (1.0, 1.0):
            atoms.info["label_factors"] = {"energy": energy, "forces": force}
        check_frame(atoms)  # in Å
        yield atoms
    if empty:
        raise DataError(f"{path}: no frames{'' if index == ':' else f' at index {index!r}'}. Is the file complete?")


def parse_unit(name: str, table: dict[str, float]) -> float:
    """Return the size of a unit in eV or Å."""
    try:
        return table[name.lower()]
    except KeyError:
        raise InputError(f"unknown unit {name!r}; known are {', '.join(table)}") from None


def parse_force_unit(name: str) -> float:
    """Return the size of a force unit such as ``"Hartree/Bohr"`` or ``"kcal/mol/Ang"`` in eV/Å."""
    energy, slash, length = name.rpartition("/")
    if not slash:
        raise InputError(f"force unit {name!r} is not of the form energy/length, e.g. 'Hartree/Bohr'")
    return parse_unit(energy, ENERGY_UNITS) / parse_unit(length, LENGTH_UNITS)


def parse_stress_unit(name: str) -> float:
    """Return the size of a stress unit such as ``"eV/Ang/Ang/Ang"``, ``"eV/Ang^3"`` or ``"GPa"`` in eV/Å³."""
    if name.lower() in PRESSURE_UNITS:
        return PRESSURE_UNITS[name.lower()]
    for form in STRESS_FORMS:
        if match := re.fullmatch(form, name):
            return parse_unit(match[1], ENERGY_UNITS) / parse_unit(match[2], LENGTH_UNITS) ** 3
    raise InputError(f"stress unit {name!r} is not of the form eV/Ang^3; {', '.join(PRESSURE_UNITS)} are known too")


def _open(path: Path) -> tuple[Iterator[Atoms], _Units]:
    """Return the raw frames of a file and the units that go with its format."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. {_FORMATS}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    if path.suffix == ".npz":
        energy, length = stated_units(path)
        return read_npz_frames(path), _Units(energy or "kcal/mol", length or "Ang")
    if path.suffix == ".db":
        return _read_db(path)
    if re.search(r"\.(ext)?xyz(\.\w+)?$", path.name):
        return read_xyz_frames(path), _Units()
    return _read_other(path), _Units()


def _select(frames: Iterator[Atoms], index: str | int) -> Iterator[tuple[int, Atoms]]:
    """Count the frames and pick those asked for, reading no further than needed."""
    try:
        wanted = string2index(index) if isinstance(index, str) else index
    except ValueError:
        raise InputError(f"index {index!r} is not a number or a slice such as ':100'") from None
    if isinstance(wanted, str):
        raise InputError(f"index {index!r} is not a number or a slice such as ':100'")
    parts = (wanted,) if isinstance(wanted, int) else (wanted.start, wanted.stop, wanted.step)
    if any(part is not None and abs(part) > sys.maxsize for part in parts) or parts[2:] == (0,):
        raise InputError(
            f"index {index!r:.80} has a step of 0 or a number beyond all frames; expected ':100' or '::10'"
        )
    numbered = enumerate(frames)
    if isinstance(wanted, int):
        if wanted >= 0:
            return islice(numbered, wanted, wanted + 1)
        return iter(list(numbered)[wanted : wanted + 1 or None])
    if any(part is not None and part < 0 for part in parts):
        return iter(list(numbered)[wanted])
    return islice(numbered, *parts)


def _read_db(path: Path) -> tuple[Iterator[Atoms], _Units]:
    """Read an ASE database; SchNetPack keeps labels in ``row.data`` and their units in the metadata."""
    try:
        database = ase.db.connect(path)
        metadata = database.metadata
        database.count()
        dictionary = metadata.get("_property_unit_dict", {})
        stored = {name.lower().removeprefix("ref_"): str(unit) for name, unit in dictionary.items() if unit}
        energy, length = stored.get("energy") or "eV", str(metadata.get("_distance_unit") or "Ang")
    except Exception as error:  # sqlite, json and ASE each raise their own kinds
        raise DataError(f"{path}: not an ASE database that can be read ({error})") from error
    recipe = metadata.get("recipe")
    made_by = {name: recipe[name] for name in MADE_BY if name in recipe} if isinstance(recipe, dict) else {}
    return _db_rows(path, database, made_by), _Units(energy, length, stored.get("forces"), stored.get("stress"))


def _db_rows(path: Path, database: Database, made_by: dict[str, Any]) -> Iterator[Atoms]:
    rows, good = database.select(), 0
    while True:
        try:
            row = next(rows, None)
        except Exception as error:
            raise DataError(f"{path}: frame {good} cannot be read ({error!r:.300}): the database is damaged") from error
        if row is None:
            return
        try:
            atoms = row.toatoms()
            atoms.info = {**made_by, **atoms.info}
            # Not what ASE gives for the name: of `charge` that is the sum of the initial charges.
            atoms.info.update({name: vars(row).get(name, value) for name, value in row.key_value_pairs.items()})
            for name, value in dict(row.data).items():
                value = np.asarray(value)
                if value.ndim == 2 and len(value) == len(atoms) and value.shape[1] == 3 and "stress" not in name:
                    atoms.set_array(name, value)
                else:
                    atoms.info[name] = value.reshape(-1)[0] if value.size == 1 else np.squeeze(value)
        except Exception as error:
            text = f"{path}: frame {good} (row {row.id}) cannot be read: {error!s:.300}"
            raise DataError(f"{text}. {good} rows before it are good") from error
        yield atoms
        good += 1


def _read_other(path: Path) -> Iterator[Atoms]:
    """Anything else that ASE reads, e.g. a trajectory."""
    good = 0
    try:
        with without_mark(path) as plain:
            for atoms in iread(str(plain), index=":"):
                yield atoms
                good += 1
    except Exception as error:  # each of ASE's formats raises its own kinds
        raise DataError(
            f"{path}: frame {good} cannot be read as {path.suffix or 'any format ASE knows'} "
            f"({str(error) or type(error).__name__}){what_it_is(path)}. {_FORMATS}"
        ) from error
