"""Pieces of a report that are kept: computed once, found again as long as what they depend on is the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asecalc_mlip.errors import InputError
from asecalc_mlip.report.subject import digest

__all__ = ["Pieces", "key_of", "write_bytes", "write_json"]


def key_of(value: Any) -> str:
    """Short name of plain values; the same values have the same one on every machine."""
    return digest(json.dumps(value, sort_keys=True, default=_plain).encode())[:12]


class Pieces:
    """Results by name in one folder, each a JSON file that says what it was made from.

    Parameters
    ----------
    folder : made if it does not exist
    tell : gets a line when a piece begins, ends or is found
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror}. Give another folder with -o DIR.") from None

    def get(self, name: str, depends: Any, make: Callable[[], dict], what: str, *, files: Sequence[str] = ()) -> dict:
        """The stored piece, if it was made from the same `depends`, else a new one.

        Parameters
        ----------
        name : of the piece, and of its file
        depends : plain values that decide the result
        make : makes it
        what : what is done, for people
        files : that `make` leaves in the folder besides
        """
        path, key = self.folder / f"{name}.json", key_of(depends)
        found = self._read(path)
        complete = all((self.folder / file).is_file() for file in files)
        if found is not None and found.get("key") == key and complete:
            self.tell(f"{what}: found in {path}")
            return found["piece"]
        self.tell(what)
        piece = make()
        write_json(path, {"key": key, "piece": piece})
        return json.loads(path.read_text(encoding="utf-8"))["piece"]  # the same types as when it is found again

    def quiet(self) -> Pieces:
        """The same pieces, told to nobody."""
        return Pieces(self.folder, lambda line: None)

    @staticmethod
    def _read(path: Path) -> dict | None:
        """None for a file that is missing or damaged: it is made anew."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and isinstance(found.get("piece"), dict) else None


def write_json(path: Path, value: Any) -> None:
    """Write plain values and NumPy numbers; NaN and infinite numbers become null."""
    write_bytes(path, json.dumps(_finite(value), default=_plain).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one piece: a crash or a full disk leaves the old one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written: {error.strerror}. Make room, or give another folder with -o DIR; the same "
            "command goes on where it was."
        ) from None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
