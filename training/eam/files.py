"""From files to files: what `asecalc eam fit`, `label` and `export` do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.calculators.eam import EAMCalculator
from asecalc_mlip.data.census import census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_other, check_writable
from asecalc_mlip.lammps.eam_table import TableCheck, check_eam_fs, export_eam_fs
from asecalc_mlip.locks import locked_file
from asecalc_mlip.logs import LOGGER
from training.eam.fit import FitSettings, fit_eam
from training.eam.labelling import label
from training.eam.report import EAMFit

__all__ = ["export_file", "fit_file", "label_file"]

# eV/atom; how well a table must agree with the model.
AGREEMENT = 1e-4
# Structures that a table is checked on.
CHECKED = 3


def fit_file(
    data: str,
    output: str,
    *,
    settings: FitSettings | None = None,
    n_train: int | None = None,
    test: str | None = None,
    isolated: str | None = None,
    compare: bool = False,
    progress: bool = True,
    trust: bool = False,
) -> EAMFit:
    """Fit an EAM to a data file; leaves the model, its pair curves as figure and JSON, and a checkpoint beside it.

    Parameters
    ----------
    data : str
        Labelled structures.
    output : str
        Model file to write.
    settings : FitSettings, optional
    n_train : int, optional
        So many frames, drawn by the seed; errors are reported on up to 400 of the others too, unless `test` is given.
    test : str, optional
        File of other frames.
    isolated : str, optional
        File of isolated atoms; without, the E0 are fitted.
    compare : bool
        Fit a Morse potential to the same frames too, and report its errors.
    trust : bool
        As for `fit_eam`.

    Raises
    ------
    InputError, DataError
        As `fit_eam`; the command line exits with 130 after Ctrl-C, and goes on from there when it is called again.
    """
    settings, path = settings or FitSettings(), Path(output)
    if path.suffix != ".pt" or not path.parent.is_dir():
        raise InputError(f"output {output!r}: expected a file that ends with .pt, in a folder that exists")
    check_writable(path)
    frames, held = _drawn(read_frames(data), n_train, settings.seed)
    others = read_frames(test) if test else held
    LOGGER.info(f"{data}: {census(frames)} of the fit, {len(others)} to test on")
    options: dict[str, Any] = {"test": others, "progress": progress, "data_name": Path(data).name, "trust": trust}
    options |= {"test_name": Path(test).name if test else None}
    options |= {"e0": "isolated" if isolated else "fit", "isolated": isolated}
    try:
        with locked_file(path):
            fit = fit_eam(frames, settings, checkpoint=path.with_suffix(".ckpt"), **options)
            if compare and settings.density:
                LOGGER.info("the same with a Morse potential, to compare")
                plain = replace(settings, density=False)
                fit.compare(fit_eam(frames, plain, checkpoint=path.with_suffix(".morse.ckpt"), **options))
            fit.save(path)
    except KeyboardInterrupt:
        LOGGER.warning(f"interrupted; give the same command again to continue from {path.with_suffix('.ckpt')}")
        sys.exit(130)
    return fit


def label_file(data: str, model: str, output: str, **options: Any) -> Path:
    """Label perturbed copies of the structures of a file; options as for `label`."""
    check_writable(output)
    check_other(data, output)
    with locked_file(output):
        return label(read_frames(data), EAMCalculator.load(model, device="cpu"), output, **options)


def export_file(model: str, output: str, *, check: str | None = None) -> TableCheck | None:
    """Write a model file as a table for LAMMPS; with `check` compare it on some structures of that file.

    Raises
    ------
    InputError
        For a table that differs from the model by more than 1e-4 eV/atom.
    """
    check_writable(output)
    calculator = EAMCalculator.load(model, device="cpu", dtype="float64")
    path = export_eam_fs(calculator, output)
    if check is None:
        return None
    frames = read_frames(check)
    found = check_eam_fs(path, calculator, [frames[i] for i in evenly(len(frames), CHECKED)])
    if not found.energy < AGREEMENT:
        raise InputError(f"{path} does not agree with {model}: {found!r}. Were atoms closer than 0.05 Å?")
    return found


def _drawn(frames: Sequence[Atoms], n: int | None, seed: int) -> tuple[list[Atoms], list[Atoms]]:
    """Return `n` frames in the order of the file, and some of the others."""
    if n is None or n == len(frames):
        return list(frames), []
    if not 1 <= n < len(frames):
        raise InputError(f"n-train is {n}; the file has {len(frames)} frames")
    order = np.random.default_rng(seed).permutation(len(frames))
    held = sorted(order[n:])
    return [frames[i] for i in sorted(order[:n])], [frames[held[k]] for k in evenly(len(held), 400)]
