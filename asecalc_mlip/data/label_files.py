"""Files of labelled frames that grow, and know the recipe they were made by: extended XYZ and ASE databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import ase.db
import numpy as np
from ase import Atoms

from asecalc_mlip.data.readers import iter_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import append_text

__all__ = ["LabelFile", "is_begun", "open_label_file", "whole_frames"]

_PROPERTIES = "Properties=species:S:1:pos:R:3:REF_forces:R:3"
_TABLES = {"systems", "species", "keys", "text_key_values", "number_key_values", "information", "sqlite_sequence"}


class LabelFile(Protocol):
    """A file that grows by whole frames."""

    def count(self) -> int:
        """Count the whole frames in it; one that was cut off is removed."""

    def append(self, frames: Sequence[Atoms]) -> None:
        """Write frames and see them to the disk."""


def open_label_file(path: Path, recipe: Mapping[str, Any]) -> LabelFile:
    """Open the file at a path, new or old.

    Parameters
    ----------
    path : Path
        ``.xyz``, ``.extxyz`` or ``.db``.
    recipe : mapping
        Plain values; what an old file was made by must be the same.

    Raises
    ------
    InputError
        For another kind of file, a folder that is not there, and a file of another recipe.
    """
    kinds: dict[str, Any] = {".xyz": _XyzFile, ".extxyz": _XyzFile, ".db": _Database}
    if path.suffix not in kinds:
        raise InputError(f"{path}: labelled structures are written as {', '.join(kinds)}, not {path.suffix!r}")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist")
    return kinds[path.suffix](path, recipe)


class _XyzFile:
    def __init__(self, path: Path, recipe: Mapping[str, Any]):
        self.path, self.recipe = path, dict(recipe)

    def count(self) -> int:
        if not self.path.exists():
            return 0
        number, end = whole_frames(self.path)
        if number:
            self._same_recipe()
        elif not is_begun(self.path, _PROPERTIES):
            raise InputError(f"{self.path} is no file of labelled structures; choose another output")
        if end < self.path.stat().st_size:
            with open(self.path, "r+b") as file:
                file.truncate(end)
        return number

    def append(self, frames: Sequence[Atoms]) -> None:
        append_text(self.path, "".join(_text(atoms, self.recipe) for atoms in frames))

    def _same_recipe(self) -> None:
        try:
            first = next(iter_frames(self.path))
        except (DataError, InputError) as error:
            raise InputError(
                f"{self.path} is no file of labelled structures ({error}); choose another output"
            ) from None
        _compare(self.path, first.info, self.recipe)


class _Database:
    def __init__(self, path: Path, recipe: Mapping[str, Any]):
        self.path, self.recipe = path, dict(recipe)

    def count(self) -> int:
        if not self.path.exists():
            return 0
        if _has_no_rows(self.path):
            self.path.unlink()
            return 0
        database = self._connected()
        try:
            found, number = database.metadata.get("recipe", {}), database.count()
        except Exception as error:  # sqlite, json and ASE each raise their own kinds
            raise InputError(f"{self.path} is no ASE database ({error}); choose another output") from None
        if number:
            _compare(self.path, found, self.recipe)
        return number

    def _connected(self) -> Any:
        # Without ASE's lock file: one that a killed process has left makes all later ones wait for ever. Callers let
        # one process write at a time, and SQLite locks its file.
        return ase.db.connect(self.path, use_lock_file=False)

    def append(self, frames: Sequence[Atoms]) -> None:
        try:
            with self._connected() as database:
                if not database.metadata:
                    database.metadata = {"recipe": self.recipe}
                for atoms in frames:
                    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
                    labels = {k: np.asarray(v) for k, v in {**atoms.info, **atoms.arrays}.items() if k[:4] == "REF_"}
                    names = {k: v for k, v in atoms.info.items() if k[:4] != "REF_"}
                    database.write(plain, data=labels, key_value_pairs=names)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path} cannot be written ({error}); make room and run the same again") from error


def _has_no_rows(path: Path) -> bool:
    """Whether a database of ASE holds nothing, perhaps not even all its tables: a process was killed while it began."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as base:
            tables = {row[0] for row in base.execute("select name from sqlite_master where type = 'table'")}
            if not tables <= _TABLES:
                return False
            return "systems" not in tables or base.execute("select count(*) from systems").fetchone()[0] == 0
    except sqlite3.Error:
        return False


def _compare(path: Path, found: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    unlike = [f"{k} {found.get(k)} there, {v} now" for k, v in recipe.items() if str(found.get(k)) != str(v)]
    if unlike:
        raise InputError(f"{path} was made by another recipe ({'; '.join(unlike)}); choose another output")


def is_begun(path: Path, properties: str) -> bool:
    """Whether a file without a whole frame is empty, or its first frame begins so: a process was killed meanwhile."""
    with open(path, "rb") as file:
        header, comment = file.readline(32), file.readline(len(properties))
    return not header or (header.strip().isdigit() and properties.encode().startswith(comment))


def whole_frames(path: Path) -> tuple[int, int]:
    """Return the number of whole frames, and where the last one ends; read by lines, as only the end can be cut off."""
    number = end = 0
    with open(path, "rb") as file:
        while len(header := file.readline()) < 20 and header.strip().isdigit():
            lines = list(islice(file, int(header) + 1))
            if len(lines) <= int(header) or not lines[-1].endswith(b"\n"):
                break
            number, end = number + 1, file.tell()
    return number, end


def _text(atoms: Atoms, recipe: Mapping[str, Any]) -> str:
    """Return a frame as extended XYZ; 1e-10 Å and eV/Å are beyond what the labels mean."""
    entries = {k: v for k, v in atoms.info.items() if k != "REF_stress"} | dict(recipe)
    comment = f"{_PROPERTIES} "
    comment += " ".join(f"{key}={float(value)!r}" if isinstance(value, float) else f"{key}={_quoted(value)}"
                        for key, value in entries.items())  # fmt: skip
    matrices = {"REF_stress": atoms.info.get("REF_stress"), "Lattice": atoms.cell.array if atoms.cell.rank else None}
    for key, matrix in matrices.items():
        if matrix is not None:
            comment += f' {key}="{" ".join(map(repr, np.asarray(matrix).reshape(-1).tolist()))}"'
    comment += f' pbc="{" ".join("FT"[int(p)] for p in atoms.pbc)}"'
    table = np.hstack([atoms.positions, atoms.arrays["REF_forces"]]).tolist()
    rows = [
        f"{s} {x:.10f} {y:.10f} {z:.10f} {fx:.10f} {fy:.10f} {fz:.10f}"
        for s, (x, y, z, fx, fy, fz) in zip(atoms.get_chemical_symbols(), table, strict=True)
    ]
    return "\n".join([str(len(atoms)), comment, *rows]) + "\n"


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if isinstance(value, str) else text
