"""Bring a data set of any known format to extended XYZ with REF_energy, REF_forces and REF_stress in eV and Å."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip.data.census import Census, census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_other, replacing

BOOKKEEPING = ("frame_file", "frame_index", "label_keys", "label_rivals", "label_factors")


def convert(source: str | Path, target: str | Path, *, overwrite: bool = False, **options: Any) -> Census:
    """Convert a file, or a folder of DeePMD.

    Parameters
    ----------
    source : path
        Anything `asecalc_mlip.data.readers.iter_frames` reads; `options` go there.
    target : path
        A name that ends with .xyz or .extxyz.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Census
        What was found; problems are reported there and do not stop the conversion.

    Raises
    ------
    InputError
        The target exists, has another suffix or is the source (a second call would convert it twice), or the source
        cannot be read.
    """
    target = Path(target)
    if target.suffix not in (".xyz", ".extxyz"):
        raise InputError(f"{target}: data sets are written as extended XYZ; give a name that ends with .xyz")
    check_other(source, target)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already: choose another name, or let it be replaced (--overwrite)")
    frames = read_frames(source, folders=True, **options)
    result = census(frames)
    write_reference(target, frames)
    return result


def write_reference(path: str | Path, frames: Iterable[Atoms]) -> None:
    """Write frames with canonical labels as extended XYZ with REF_ names, whole or not at all."""
    _write(path, [with_reference_names(atoms) for atoms in frames])


def write_predictions(path: str | Path, frames: Sequence[Atoms], results: Sequence[Mapping[str, Any]]) -> None:
    """Write frames with their labels (REF_energy, ...) and the results of a model (predicted_energy, ...).

    Parameters
    ----------
    path : path
        Extended XYZ, written whole or not at all.
    frames : sequence of Atoms
        With canonical labels.
    results : sequence of dict
        Of `PIWSLCalculator.evaluate`: energy in eV, forces in eV/Å, stress (6,) in eV/Å³ or None.
    """
    written = []
    for atoms, result in zip(frames, results, strict=True):
        copy = with_reference_names(atoms)
        copy.info["predicted_energy"] = float(result["energy"])
        copy.set_array("predicted_forces", np.asarray(result["forces"], dtype=float))
        if result["stress"] is not None:
            copy.info["predicted_stress"] = voigt_6_to_full_3x3_stress(np.asarray(result["stress"], dtype=float))
        written.append(copy)
    _write(path, written)


def _write(path: str | Path, frames: list[Atoms]) -> None:
    with replacing(path) as temporary:
        write(temporary, frames, format="extxyz")


def with_reference_names(atoms: Atoms) -> Atoms:
    """Return a copy whose canonical labels have REF_ names, without what readers note for themselves."""
    copy = atoms.copy()
    for key in BOOKKEEPING:
        copy.info.pop(key, None)
    for label in ("energy", "stress"):
        if label in copy.info:
            copy.info[f"REF_{label}"] = copy.info.pop(label)
    if "forces" in copy.arrays:
        copy.set_array("REF_forces", copy.arrays.pop("forces"))
    return copy
