"""Every file that is written or read by name: one atomic write, one JSON, one structure reader.

Every file is written whole: a crash or a full disk leaves the file that was there before. JSON has no NaN, so
NaN and infinite numbers become null.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asecalc_mlip.digests import digest_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.text_files import what_it_is, without_mark

_LOG = logging.getLogger("asecalc_mlip")

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

__all__ = [
    "append_json",
    "append_text",
    "cache_folder",
    "check_figure",
    "check_owner",
    "check_other",
    "check_structure",
    "check_writable",
    "lacks_vectors",
    "read_json",
    "read_json_lines",
    "read_structure",
    "read_structures",
    "replacing",
    "save_figure",
    "to_json",
    "unused",
    "with_index",
    "write_bytes",
    "write_json",
    "write_structure",
    "write_text",
]

PathName = str | PathLike
FIGURES = (".png", ".pdf", ".svg", ".eps", ".ps", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
ADVICE = "make room, or name another place, and run the same command again"


@contextmanager
def replacing(path: PathName, *, advice: str = ADVICE) -> Iterator[Path]:
    """Hand out a temporary name beside `path`; what was written there takes the place of `path` at the end, or never.

    Parameters
    ----------
    path : path
        Its folder is made if it is not there.
    advice : str
        What to do when it cannot be written, for the message.

    Raises
    ------
    InputError
        Where the file cannot be written.
    """
    path = Path(path)
    # The ending stays, because many writers choose a format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{_machine()}.writing{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.resolve())
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # where some file systems notice that there is no room
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}; {advice}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@lru_cache(maxsize=1000)
def _sweep(folder: Path) -> None:
    """Remove, once in each folder, what processes that were killed had begun to write."""
    for name in os.listdir(folder):
        found = re.fullmatch(r"\..*\.(\d+)(-[0-9a-f]{8})?\.writing(\..*)?", name, flags=re.DOTALL)
        # Another machine that has this folder, as on a cluster, has processes of its own.
        if found and found[2] in (None, f"-{_machine()}") and not _is_alive(int(found[1])):
            (folder / name).unlink(missing_ok=True)


def _machine() -> str:
    """Return a short name of this machine, for the names of files."""
    return digest_of([socket.gethostname()])[:8]


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def write_bytes(path: PathName, content: bytes, *, advice: str = ADVICE) -> None:
    """Write a file in one piece; InputError where it cannot be."""
    with replacing(path, advice=advice) as temporary:
        temporary.write_bytes(content)


def write_text(path: PathName, text: str, *, advice: str = ADVICE) -> None:
    """Write a text file in one piece, as UTF-8; InputError where it cannot be."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), advice=advice)


def write_json(path: PathName, value: Any, *, advice: str = ADVICE, indent: int | None = 1) -> None:
    """Write plain values, NumPy's, or anything that has `to_dict()`, in one piece."""
    write_text(path, to_json(value, indent=indent) + "\n", advice=advice)


def to_json(value: Any, *, indent: int | None = 1) -> str:
    """Return JSON of plain values, NumPy's, or anything that has `to_dict()`; NaN and infinite numbers become null."""
    to_dict = getattr(value, "to_dict", None)
    return json.dumps(_plain(to_dict() if callable(to_dict) else value), indent=indent, allow_nan=False)


def append_text(path: PathName, text: str) -> None:
    """Add to a text file, UTF-8, and see it to the disk; InputError where it cannot be written."""
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; {ADVICE}") from error


def append_json(path: PathName, entry: Any) -> None:
    """Add a JSON object to a file of one a line; what a kill cut off before it stays a line of its own."""
    append_text(path, f"\n{json.dumps(entry)}\n")


def read_json_lines(path: PathName) -> list[Any]:
    """Read what `append_json` wrote, without lines that were cut off; nothing where there is no file."""
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []:
        with suppress(ValueError):  # cut off, or between two
            found.append(json.loads(line))
    return found


def read_json(path: PathName, what: str = "file") -> Any:
    """Read a JSON file; InputError for one that is missing or damaged, which `what` names in the message."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {path} cannot be read (JSON): {error}") from None


def read_structure(path: PathName, *, what: str = "structure", tell: bool = False) -> Atoms:
    """Read one structure from any file that ASE reads, without its calculator.

    Parameters
    ----------
    path : path
        FILE takes the last structure, FILE@N the one of this number, from 0 or, if negative, from the end.
    what : str
        What the messages of errors begin with.
    tell : bool
        Warn where a file without a number has several structures.

    Raises
    ------
    InputError
        For a file that is missing or unreadable, and a structure without atoms, with positions or a cell that are not
        finite, or periodic without lattice vectors there.
    """
    from ase import Atoms

    file, index = with_index(path)
    if index is not None and not file.is_file():
        raise InputError(f"{what} {path}: no such file")
    try:
        atoms = _read(file, -1 if index is None else index, what)
    except InputError as error:
        if index is None:
            raise
        raise InputError(f"{error}. Is there a structure {index}? The first is 0") from None
    if tell and index is None and _has_several(file):
        _LOG.warning("%s has several structures: the last one is taken; give %s@0 to take the first", path, path)
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise InputError(f"{what} {path} has no atoms")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise InputError(f"{what} {path} has positions or a cell that are not finite")
    if lacks_vectors(atoms):
        raise InputError(f"{what} {path} is periodic where its cell has no vector of its own: complete the cell")
    atoms.calc = None
    return atoms


def lacks_vectors(atoms: Atoms) -> bool:
    """Tell whether a structure is periodic in more directions than its lattice vectors there span."""
    vectors = atoms.cell.array[atoms.pbc]
    return len(vectors) > 0 and int(np.linalg.matrix_rank(vectors)) < len(vectors)


def with_index(path: PathName) -> tuple[Path, int | None]:
    """Part FILE@N; a file of the whole name goes first."""
    name, _, number = str(path).rpartition("@")
    if name and re.fullmatch(r"-?\d{1,9}", number) and not Path(path).exists():
        return Path(name), int(number)
    return Path(path), None


def _has_several(file: Path) -> bool:
    import ase.io

    with suppress(Exception), without_mark(file) as plain:  # formats of one structure, and files of one
        ase.io.read(str(plain), index=1)
        return True
    return False


def read_structures(*paths: PathName, index: str = ":", what: str = "structures") -> list[Atoms]:
    """Read all structures of files that ASE reads, in order, with the labels that they have.

    Raises
    ------
    InputError
        For a file that is missing, unreadable or empty.
    """
    frames: list[Atoms] = []
    for path in paths:
        found = _read(path, index, what)
        if not found:
            raise InputError(f"{what} {path} has no structures")
        frames += found if isinstance(found, list) else [found]
    return frames


def _read(path: PathName, index: int | str, what: str) -> Any:
    import ase.io

    if not Path(path).exists():
        raise InputError(f"{what} {path}: no such file")
    try:
        with without_mark(path) as plain:
            return ase.io.read(str(plain), index=index)
    except Exception as error:  # ASE's readers raise anything
        why = str(error) or type(error).__name__
        raise InputError(f"{what} {path} cannot be read: {why}{what_it_is(path)}") from None


def write_structure(path: PathName, atoms: Atoms) -> None:
    """Write a structure in one piece, in the format that the name says; InputError where it cannot be."""
    import ase.io
    from ase.io.formats import filetype

    check_structure(path)
    with replacing(path) as temporary:
        try:
            ase.io.write(temporary, atoms, format=filetype(str(path), read=False))
        except Exception as error:  # ASE's writers raise anything
            raise InputError(f"{path} cannot be written: {str(error) or type(error).__name__}") from None


def unused(path: PathName) -> Path:
    """Return the path itself, or the next name that no file has: run.xyz, run-2.xyz, run-3.xyz."""
    path = Path(path)
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return path if not path.exists() else next(name for name in names if not name.exists())


def cache_folder() -> Path:
    """Return the folder for files that can be made again: $ASECALC_CACHE, else the platform's folder for caches."""
    if os.environ.get("ASECALC_CACHE"):
        return Path(os.environ["ASECALC_CACHE"]).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "asecalc_mlip"


def check_owner(folder: PathName) -> None:
    """Raise InputError for a cache folder that others may write to: files from there are run."""
    if os.name == "posix":
        status = os.stat(folder)
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise InputError(f"the cache folder {folder} belongs to or can be written by others; set ASECALC_CACHE")


def check_writable(*paths: PathName | None) -> None:
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


def check_other(source: PathName, *paths: PathName | None) -> None:
    """Raise InputError where a file to write is the one that is read, maybe as FILE@N; None is no file."""
    read = with_index(source)[0].resolve()
    for path in paths:
        if path and Path(path).resolve() == read:
            raise InputError(f"{path} is the file that is read, and would be lost: name another one to write")


def check_figure(path: PathName | None) -> None:
    """Check as `check_writable`, for a figure, whose name says what it is."""
    check_writable(path)
    if path and Path(path).suffix.lower() not in FIGURES:
        raise InputError(f"{path}: figures end with {', '.join(FIGURES)}")


def check_structure(path: PathName | None) -> None:
    """Check as `check_writable`, for a structure that ASE writes."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    check_writable(path)
    if not path:
        return
    try:
        known = ioformats[filetype(str(path), read=False)].can_write
    except (UnknownFileTypeError, KeyError):
        known = False
    if not known:
        raise InputError(f"{path}: ASE writes no such format; end it with .xyz, .cif, .traj or .vasp, for example")


def save_figure(figure: Figure, path: PathName) -> None:
    """Write a figure in one piece; InputError where it cannot be."""
    check_figure(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _plain(value: Any) -> Any:
    """Plain types only; text of what is none."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
