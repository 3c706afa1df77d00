"""Attacks by data files that are damaged or made to harm: frames are read, or a DataError says why not."""

from __future__ import annotations

import gzip
import lzma
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from ase.db import connect
from ase.io import write

from asecalc_mlip.data.census import census
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError
from tests.attack.harness import Arena, Attack, family
from tests.teacher import as_reference, crystal_frames, molecule_frames

LABELS = {"energy": 1.0, "forces": 1.0}
FRAME = "2\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1.0 {}\nH 0 0 0 0 0 0.1\nH 0 0 {} 0 0 -0.1\n"


def _xyz(comment: str = "", z: str = "0.74") -> bytes:
    return FRAME.format(comment, z).encode()


def _npz(shape: str, *, size: int = 64) -> bytes:
    """An archive whose first array announces a shape that it does not have."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(size)
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("R.npy", array)
    return content.getvalue()


# What each file is: its name, and its content.
CRAFTED = {
    "xz that is none": ("a.xyz.xz", lambda: b"this is no xz at all"),
    "gz that is none": ("a.xyz.gz", lambda: b"this is no gz at all"),
    "bz2 that is none": ("a.xyz.bz2", lambda: b"this is no bz2 at all"),
    "xz cut off": ("a.xyz.xz", lambda: lzma.compress(_xyz() * 50)[:-20]),
    "gz of newlines": ("a.xyz.gz", lambda: gzip.compress(b"\n" * 20_000_000)),
    "gz of one line": ("a.xyz.gz", lambda: gzip.compress(b"1" * 200_000_000, 1)),
    "gz of one comment": ("a.xyz.gz", lambda: gzip.compress(b"1\n" + b" " * 200_000_000, 1)),
    "digits without end": ("a.xyz", lambda: b"1" * 100_000_000 + b"\n"),
    "as many atoms as digits": ("a.xyz", lambda: b"9" * 30 + b"\nx\nH 0 0 0\n"),
    "deep _JSON": ("a.xyz", lambda: _xyz(f'note="_JSON {"[" * 100_000}"')),
    "columns without end": ("a.xyz", lambda: b"1\nProperties=species:S:1:pos:R:3:x:R:1000000000\nH 0 0 0\n"),
    "columns of many digits": ("a.xyz", lambda: b"1\nProperties=species:S:1:pos:R:" + b"9" * 40 + b"\nH 0 0 0\n"),
    "element 110": ("a.xyz", lambda: b"2\nProperties=species:S:1:pos:R:3 energy=1\nDs 0 0 0\nDs 0 0 2\n"),
    "element 0": ("a.xyz", lambda: b"2\nProperties=species:S:1:pos:R:3 energy=1\nX 0 0 0\nX 0 0 2\n"),
    "cell without volume": ("a.xyz", lambda: _xyz('Lattice="3 0 0 6 0 0 0 0 3" pbc="T T T"')),
    "cell that is flat": ("a.xyz", lambda: _xyz('Lattice="3 0 0 3 1e-7 0 0 0 3" pbc="T T T"')),
    "cell far too small": ("a.xyz", lambda: _xyz('Lattice="3 0 0 0 1e-3 0 0 0 3" pbc="T T T"')),
    "periodic without a cell": ("a.xyz", lambda: _xyz('pbc="T T T"')),
    "positions beyond numbers": ("a.xyz", lambda: _xyz(z="1e400")),
    "npz that is none": ("a.npz", lambda: b"PK\x03\x04 and then nothing"),
    "npz of 10^18 numbers": ("a.npz", lambda: _npz("(1000000000, 1000000000)")),
    "npz of 10^9 numbers": ("a.npz", lambda: _npz("(1000000000,)")),
    "npz of negative shape": ("a.npz", lambda: _npz("(-1, 3)")),
    "npz without a header": ("a.npz", lambda: _npz("[[[", size=0)),
    "db that is none": ("a.db", lambda: b"SQLite format 3\x00" + bytes(200)),
}


def warm() -> None:
    """Judge a good set, which imports what cases need."""
    census(as_reference(molecule_frames(6)))


@family("crafted data files", small=len(CRAFTED), large=len(CRAFTED), warm=warm, together=5)
def crafted(arena: Arena) -> Attack:
    """Take the files of the table one after another: the case is the place in it."""
    name = list(CRAFTED)[arena.case % len(CRAFTED)]
    return name, _refused(_written(arena.folder, name))


@family("damaged data files", small=40, large=3000, warm=warm, together=25)
def damaged(arena: Arena) -> Attack:
    """Change bytes of a good file, cut it, or repeat a part of it."""
    frames = as_reference(molecule_frames(6) if arena.rng.random() < 0.5 else crystal_frames(6))
    path = arena.folder / arena.choice(["a.xyz", "a.xyz.gz", "a.db", "a.npz"])
    _write(path, frames)
    content = bytearray(path.read_bytes())
    place, kind = int(arena.rng.integers(len(content))), arena.choice(["bit", "bytes", "cut", "again"])
    if kind == "bit":
        content[place] ^= 1 << int(arena.rng.integers(8))
    elif kind == "bytes":
        content[place : place + 20] = arena.rng.bytes(20)
    elif kind == "cut":
        del content[place:]
    else:
        content[place:place] = content[place // 2 : place]
    path.write_bytes(bytes(content))
    return f"{path.name}, {kind} at {place}", lambda: _read(path)


def _read(path: Path) -> bool:
    """Read and judge; numbers of text files may have changed, which nobody can know."""
    found = census(read_frames(path))
    found.require({label: 1.0 for label in LABELS if found.counts[label]})
    return True


def _refused(path: Path):
    def attempt() -> str:
        frames = read_frames(path)
        census(frames).require({"energy": 1.0})
        return f"{len(frames)} frames were read"

    return attempt


def _written(folder: Path, name: str) -> Path:
    file, content = CRAFTED[name]
    (folder / file).write_bytes(content())
    return folder / file


def _write(path: Path, frames: list) -> None:
    if path.suffix == ".db":
        with connect(path) as database:
            for atoms in frames:
                data = {"REF_energy": atoms.info["REF_energy"], "REF_forces": atoms.arrays["REF_forces"]}
                database.write(atoms, data=data)
    elif path.suffix == ".npz":
        arrays = {
            "z": frames[0].numbers,
            "R": np.array([atoms.positions for atoms in frames]),
            "E": np.array([atoms.info["REF_energy"] for atoms in frames]),
            "F": np.array([atoms.arrays["REF_forces"] for atoms in frames]),
        }
        np.savez(path, **arrays)
    else:
        write(path, frames)


__all__ = ["CRAFTED", "DataError", "crafted", "damaged"]
