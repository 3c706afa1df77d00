"""Read archives of XSF files as aenet writes them, and of .npz files, member by member in memory.

Nothing is unpacked to a place that the archive chooses. Links, names that lead elsewhere, and members beyond all
measure are refused.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from ase import Atoms

from asecalc_mlip.data.readers import iter_frames
from asecalc_mlip.data.xyz_files import DAMAGE
from asecalc_mlip.errors import DataError, InputError

__all__ = ["parse_xsf", "read_npz_members", "read_xsf_members"]

# Of one XSF file and of one .npz in bytes, of what an archive unpacks to as a whole, and of members.
LARGEST_XSF, LARGEST_NPZ, LARGEST, MOST_MEMBERS = 10**6, 2**30, 2**33, 10**6
# Unpacked over packed size of a member of a zip, which deflate never exceeds.
MOST_RATIO = 1100
ENERGY = "# total energy ="


def read_xsf_members(path: Path, part: str | None = None) -> Iterator[Callable[[], Atoms]]:
    """Give a function for each XSF file of a .tar.* or .zip archive, or of a folder, that makes its frame.

    Parameters
    ----------
    path : Path
    part : str, optional
        Text in the path of the files that are wanted, such as a folder.

    Raises
    ------
    DataError
        For an archive that is damaged or made to harm.
    """
    for name, content in _members(path, ".xsf", LARGEST_XSF):
        if part is None or part in name:
            yield partial(parse_xsf, content, f"{path}: {name!r:.120}", name)


def read_npz_members(path: Path) -> Iterator[Callable[[], Atoms]]:
    """Give a function for each frame of the .npz files of MD17 in a zip, whose names end with -train and -test."""
    for name, content in _members(path, ".npz", LARGEST_NPZ):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / PurePosixPath(name).name
            file.write_bytes(content)
            split = file.stem.rpartition("-")[2]
            for atoms in iter_frames(file):
                atoms.info["split"] = split
                yield atoms.copy


def parse_xsf(content: bytes, where: str, name: str = "") -> Atoms:
    """Read an XSF file of aenet: energy (eV) in its first line, and forces (eV/Å) behind the positions (Å).

    Raises
    ------
    DataError
        For one that is damaged; the message begins with `where`.
    """
    try:
        lines = [line.split("#")[0].strip() for line in content.decode().splitlines()]
        first = content.decode().splitlines()[0]
        if not first.startswith(ENERGY):
            raise ValueError(f"its first line is not {ENERGY!r} and an energy")
        energy = float(first.removeprefix(ENERGY).split()[0])
        lines = [line for line in lines if line]
        if "CRYSTAL" in lines:
            start = lines.index("PRIMVEC") + 1
            cell = np.array([line.split() for line in lines[start : start + 3]], dtype=float).reshape(3, 3)
            start = lines.index("PRIMCOORD") + 1
            count = int(lines[start].split()[0])
            rows = [line.split() for line in lines[start + 1 : start + 1 + count]]
        else:
            cell, rows = np.zeros((3, 3)), [line.split() for line in lines[lines.index("ATOMS") + 1 :]]
            count = len(rows)
        numbers = np.array([row[1:7] for row in rows], dtype=float).reshape(-1, 6)
        if len(rows) != count or not count:
            raise ValueError(f"it has {len(rows)} of {count} atoms")
        symbols = [int(row[0]) if row[0].isdigit() else row[0] for row in rows]
        atoms = Atoms(symbols, numbers[:, :3], cell=cell, pbc=bool(cell.any()))
    except DAMAGE as error:
        raise DataError(f"{where} cannot be read as XSF ({type(error).__name__}: {str(error)[:200]})") from None
    atoms.new_array("forces", numbers[:, 3:])
    atoms.info["energy"] = energy
    if name:
        atoms.info["group"] = str(PurePosixPath(name).with_suffix(""))
    # Words, because "strained" has "train" in it.
    words = re.split(r"[^a-z]+", str(PurePosixPath(name).parent).lower())
    for split in ("train", "validation", "test"):
        if split in words:
            atoms.info["split"] = split
            break
    return atoms


def _members(path: Path, suffix: str, largest: int) -> Iterator[tuple[str, bytes]]:
    """Give names and contents of files of an archive or folder whose name ends so."""
    if path.is_dir():
        files = sorted(file for file in path.rglob(f"*{suffix}") if file.is_file() and not file.is_symlink())
        yield from ((file.relative_to(path).as_posix(), file.read_bytes()) for file in files)
        return
    read = _zip_members if zipfile.is_zipfile(path) else _tar_members
    try:
        for name, content in read(path, suffix, largest):
            if not PurePosixPath(name).name.startswith("._"):  # what macOS puts beside files
                yield name, content
    except InputError:
        raise
    except DAMAGE as error:
        text = f"{path}: not a complete archive ({str(error)[:300] or type(error).__name__})"
        raise DataError(f"{text}. Remove it and run the same command again") from error
    except (tarfile.TarError, RuntimeError) as error:
        raise DataError(f"{path}: not a complete archive ({str(error)[:300]})") from error


def _tar_members(path: Path, suffix: str, largest: int) -> Iterator[tuple[str, bytes]]:
    total = 0
    with tarfile.open(path) as archive:
        for number, entry in enumerate(archive):
            total += entry.size
            wanted = entry.name.endswith(suffix)
            _check(path, entry.name, number, total, entry.size if wanted else 0, largest)
            if not wanted:
                continue
            if not entry.isfile() or entry.sparse:
                raise DataError(f"{path}: {entry.name!r:.120} is a link or no plain file; nothing is read from there")
            file = archive.extractfile(entry)
            assert file is not None  # it is a regular file
            yield entry.name, file.read()


def _zip_members(path: Path, suffix: str, largest: int) -> Iterator[tuple[str, bytes]]:
    total = 0
    with zipfile.ZipFile(path) as archive:
        for number, entry in enumerate(archive.infolist()):
            total += entry.file_size
            wanted = entry.filename.endswith(suffix)
            _check(path, entry.filename, number, total, entry.file_size if wanted else 0, largest)
            if not wanted:
                continue
            if entry.file_size > MOST_RATIO * max(entry.compress_size, 1) or (entry.external_attr >> 28) == 0xA:
                raise DataError(f"{path}: {entry.filename!r:.120} is a link, or packed more than any file can be")
            yield entry.filename, archive.read(entry)


def _check(path: Path, name: str, number: int, total: int, size: int, largest: int) -> None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[:1]:
        raise DataError(f"{path}: {name!r:.120} leads out of the archive; nothing is read from it")
    if number >= MOST_MEMBERS or total > LARGEST or size > largest:
        raise DataError(f"{path}: at {name!r:.120} it is larger than any such archive ({total} bytes unpacked)")
