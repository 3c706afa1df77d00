"""What the scripts of probes share: options, models, structures, files, exit codes."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

import asecalc_mlip
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import write_text
from asecalc_mlip.md.progress import program

ZOO = Path(next(iter(asecalc_mlip.__path__))) / "zoo"
DONE, BAD_INPUT = 0, 2


def parser(description: str, *, structure: bool = True, figure: bool = True) -> argparse.ArgumentParser:
    """Parser with the options that every probe has."""
    made = argparse.ArgumentParser(program(), description=description)
    made.add_argument("model", help="shipped model or path of a .pt file")
    if structure:
        made.add_argument("structure", nargs="?", help="any file ASE reads (default: the model's own)")
    made.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (default auto)")
    made.add_argument("--dtype", default="float64", choices=["float32", "float64"], help="default float64")
    made.add_argument("-o", "--output", metavar="FILE.json", help="write the numbers to this file")
    if figure:
        made.add_argument("--figure", metavar="FILE.png", help="draw them into this file")
    return made


def run(
    probe: Callable[[argparse.Namespace], int | None], options: argparse.ArgumentParser, argv: list[str] | None
) -> int:
    """Run a probe with the arguments; returns the exit code: its own, else 0, or 2 after a message for bad input."""
    # Intermixed, so that a structure may come after options.
    chosen = options.parse_intermixed_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
            return probe(chosen) or DONE
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT


def load_calculator(model: str, *, device: str = "auto", dtype: str = "float64") -> Any:
    """Calculator of a model file; that of an EAM knows its components."""
    from asecalc_mlip import EAMCalculator, PIWSLCalculator
    from asecalc_mlip.checkpoint import load

    loaded = load(model)
    kind = EAMCalculator if loaded.potential.architecture == "eam" else PIWSLCalculator
    return kind(loaded, device=device, dtype=dtype)  # type: ignore[arg-type]


def load_structure(model: str, structure: str | None) -> Atoms:
    """Structure from a file, or the one that lies beside the model."""
    stem = Path(model).stem
    choices = [Path(structure)] if structure else [Path(model).with_suffix(".xyz"), ZOO / f"{stem}.xyz"]
    path = next((path for path in choices if path.is_file()), None)
    if path is None:
        told = f"{structure}: no such file" if structure else f"{model} comes without a structure: give a file after it"
        raise InputError(told)
    try:
        atoms = ase.io.read(path)
    except Exception as error:  # ASE's readers raise anything
        raise InputError(f"{path} cannot be read: {error or type(error).__name__}") from None
    if not isinstance(atoms, Atoms) or len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        raise InputError(f"{path} has no atoms, or positions that are not finite")
    atoms.calc = None
    return atoms


def report(result: Any, output: str | None) -> None:
    """Print a result; write its to_dict() if there is a file for it."""
    print(result)
    if output:
        write_json(output, result.to_dict())


def write_json(path: str, data: Any) -> None:
    """Write plain types."""
    write_text(path, json.dumps(data, indent=1, default=float) + "\n")
    print(path)
