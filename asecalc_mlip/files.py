"""Files that a user names: refused before anything is computed where that can be told, with a clear error else."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from asecalc_mlip.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_figure", "check_structure", "check_writable", "save_figure", "write_text"]

FIGURES = (".png", ".pdf", ".svg", ".eps", ".ps", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")


def check_writable(*paths: str | PathLike | None) -> None:
    """Raise InputError for files that cannot be written; None is no file."""
    for path in paths:
        if not path:
            continue
        folder = Path(path).resolve().parent
        if not folder.is_dir():
            raise InputError(f"{path}: there is no folder {folder}; make it first")
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder; name a file in it")
        if not os.access(Path(path) if Path(path).exists() else folder, os.W_OK):
            raise InputError(f"{path} cannot be written: no permission in {folder}; name a file elsewhere")


def check_figure(path: str | PathLike | None) -> None:
    """As `check_writable`, for a figure, whose name says what it is."""
    check_writable(path)
    if path and Path(path).suffix.lower() not in FIGURES:
        raise InputError(f"{path}: figures end with {', '.join(FIGURES)}")


def check_structure(path: str | PathLike | None) -> None:
    """As `check_writable`, for a structure that ASE writes."""
    check_writable(path)
    if not path:
        return
    try:
        known = ioformats[filetype(str(path), read=False)].can_write
    except (UnknownFileTypeError, KeyError):
        known = False
    if not known:
        raise InputError(f"{path}: ASE writes no such format; end it with .xyz, .cif, .traj or .vasp, for example")


def save_figure(figure: Figure, path: str | PathLike, *, dpi: int = 150) -> None:
    """Write a figure; InputError where it cannot be."""
    check_figure(path)
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from None


def write_text(path: str | PathLike, text: str) -> None:
    """Write a text file; InputError where it cannot be."""
    check_writable(path)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}") from None
