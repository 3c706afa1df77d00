"""Pieces of a report that are kept: computed once, found again as long as what they depend on is the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asecalc_mlip.digests import digest_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_json, write_json

__all__ = ["ADVICE", "Pieces", "key_of"]

ADVICE = "make room, or give another folder with -o DIR; the same command then continues"


def key_of(value: Any) -> str:
    """Return a short name of plain values; the same values have the same one on every machine."""
    return digest_of([json.dumps(value, sort_keys=True, default=_plain)])[:12]


class Pieces:
    """Results by name in one folder, each a JSON file that says what it was made from.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    tell : callable
        Gets a line when a piece begins, ends or is found.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror}; give another folder with -o DIR") from None

    def get(self, name: str, depends: Any, make: Callable[[], dict], what: str, *, files: Sequence[str] = ()) -> dict:
        """Return the stored piece, if it was made from the same `depends`, else a new one.

        Parameters
        ----------
        name : str
            Of the piece, and of its file.
        depends : object
            Plain values that decide the result.
        make : callable
            Makes it.
        what : str
            Name of the work, for people.
        files : sequence of str
            Files that `make` leaves in the folder too.
        """
        path, key = self.folder / f"{name}.json", key_of(depends)
        found = self._read(path)
        complete = all((self.folder / file).is_file() for file in files)
        if found is not None and found.get("key") == key and complete:
            self.tell(f"{what}: found in {path}")
            return found["piece"]
        self.tell(what)
        piece = make()
        write_json(path, {"key": key, "piece": piece}, advice=ADVICE, indent=None)
        return read_json(path)["piece"]  # the same types as when it is found again

    def quiet(self) -> Pieces:
        """Return the same pieces, told to nobody."""
        return Pieces(self.folder, lambda line: None)

    @staticmethod
    def _read(path: Path) -> dict | None:
        """Read a piece; None for a file that is missing or damaged: it is made anew."""
        try:
            found = read_json(path)
        except InputError:
            return None
        return found if isinstance(found, dict) and isinstance(found.get("piece"), dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
