"""Bring a data set of any known format to extended XYZ with REF_energy, REF_forces and REF_stress in eV and Å."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

from asecalc_mlip.data.census import Census, census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError

BOOKKEEPING = ("frame_file", "frame_index", "label_keys")


def convert(source: str | Path, target: str | Path, *, overwrite: bool = False, **options: Any) -> Census:
    """Convert a file.

    Parameters
    ----------
    source
        Anything `asecalc_mlip.data.readers.iter_frames` reads; ``options`` go there.
    target
        A name that ends in ``.xyz`` or ``.extxyz``.
    overwrite
        Replace an existing file.

    Returns
    -------
    Census
        What was found; problems are reported there and do not stop the conversion.

    Raises
    ------
    InputError
        The target exists or has another suffix, or the source cannot be read.
    """
    target = Path(target)
    if target.suffix not in (".xyz", ".extxyz"):
        raise InputError(f"{target}: data sets are written as extended XYZ; give a name that ends in .xyz.")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already. Choose another name, or allow it to be replaced (--overwrite).")
    frames = read_frames(source, **options)
    result = census(frames)
    write_reference(target, frames)
    return result


def write_reference(path: str | Path, frames: Iterable[Atoms]) -> None:
    """Write frames with canonical labels as extended XYZ with REF_ names, whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial, [_with_reference_names(atoms) for atoms in frames], format="extxyz")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error}).") from error


def _with_reference_names(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    for key in BOOKKEEPING:
        copy.info.pop(key, None)
    for label in ("energy", "stress"):
        if label in copy.info:
            copy.info[f"REF_{label}"] = copy.info.pop(label)
    if "forces" in copy.arrays:
        copy.set_array("REF_forces", copy.arrays.pop("forces"))
    return copy
