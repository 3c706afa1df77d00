"""Read MPtrj: JSON of 11 GB, one material at a time.

    {"mp-1": {"mp-1-0-0": {"structure": …, "corrected_total_energy": eV, "force": eV/Å, "stress": kbar, …}, …}, …}

The text is cut at the level of materials without reading it as a whole; a material beyond all measure, and one nested
too deeply, is refused before it is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from asecalc_mlip.errors import DataError

__all__ = ["read_materials"]

# Characters of a material, of a string and read at once, and depth of braces and brackets.
LONGEST, LONGEST_STRING, CHUNK, DEEPEST = 1 << 28, 1 << 20, 1 << 22, 30
# A quote alone is the beginning of a string that the text does not end.
TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
KBAR = 0.1 * units.GPa


def read_materials(path: Path) -> Iterator[Callable[[], Atoms]]:
    """Give a function for each frame that makes it.

    Raises
    ------
    DataError
        For a file that is damaged, made to harm, or of another content.
    """
    for text in _members(path):
        try:
            material = json.loads(text)
            frames = [(name, frame) for frames in material.values() for name, frame in frames.items()]
        except (ValueError, RecursionError, AttributeError, MemoryError) as error:
            raise DataError(f"{path}: {text[:40]!r}… is no material of MPtrj ({str(error)[:200]})") from None
        yield from (partial(_frame, path, name, frame) for name, frame in frames)


def _members(path: Path) -> Iterator[str]:
    """Cut the members of the outermost object, each as the text of an object of its own."""
    # The text that is not cut yet, where the next token is looked for in it, and how deep that place is.
    text, place, depth = "", 0, 0
    for chunk in _chunks(path):
        text, start = text + chunk, 0
        for match in TOKEN.finditer(text, place):
            token = match[0]
            if token == '"':  # goes on in the next chunk
                break
            place = match.end()
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token, 0)
            if depth > DEEPEST:
                raise DataError(f"{path} is nested deeper than {DEEPEST}; a material is nested 8 deep")
            if depth == 0 and token in "}]":
                return
            if depth == 1 and token in "{[":
                start = place
            elif depth == 1 and token in "}]":
                yield "{" + text[start:place].lstrip().removeprefix(",") + "}"
                start = place
        if len(text) - start > LONGEST or len(text) - place > LONGEST_STRING + CHUNK:
            raise DataError(f"{path}: text of more than {LONGEST_STRING} characters without an end; it is damaged")
        text, place = text[start:], place - start
    raise DataError(f"{path} is cut off, or no JSON of MPtrj: its outermost brace does not close")


def _chunks(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text ({error.reason})") from None


def _frame(path: Path, name: str, content: Mapping[str, Any]) -> Atoms:
    try:
        structure = content["structure"]
        cell = np.array(structure["lattice"]["matrix"], dtype=float)
        sites = structure["sites"]
        symbols = [_element(site) for site in sites]
        places = np.array([site["abc"] for site in sites], dtype=float)
        # What did not converge is NaN or null, and the frame is left out where it is written.
        forces = np.array(content["force"], dtype=float)
        if cell.shape != (3, 3) or places.shape != (len(sites), 3) or forces.shape != places.shape:
            raise ValueError("the shapes of cell, sites and forces do not fit")
        atoms = Atoms(symbols, scaled_positions=places, cell=cell, pbc=True)
        atoms.info["energy"] = _number(content["corrected_total_energy"])
        atoms.new_array("forces", forces)
        if content.get("stress") is not None:
            # VASP's sign is that of a pressure.
            atoms.info["stress"] = -KBAR * np.array(content["stress"], dtype=float).reshape(3, 3)
        atoms.info["uncorrected_energy"] = _number(content["uncorrected_total_energy"])
        atoms.info |= {"group": str(content["mp_id"]), "mptrj_id": name}
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise DataError(f"{path}: frame {name!r:.60} cannot be read ({type(error).__name__}: {error!s:.200})") from None
    return atoms


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _element(site: Mapping[str, Any]) -> str:
    (species,) = site["species"]
    if species.get("occu", 1) != 1:
        raise ValueError("a site is occupied in part")
    return str(species["element"])
