"""Attacks by files of public data sets, damaged or made to harm: frames are written, or an error says why not."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from asecalc_mlip.data.published_files import fetch
from tests.attack.harness import Arena, Attack, family
from tests.data.published_samples import SAMPLES, write_ani, write_mptrj, xsf_text
from tests.teacher import crystal_frames

Write = Callable[[Path], Path]


def warm() -> None:
    """Import what cases need."""
    crystal_frames(1)


def _hdf5(spoil: Callable[[h5py.File], None]) -> Write:
    """ANI-1x whose group "a" is spoiled."""

    def write(folder: Path) -> Path:
        path, _ = write_ani(folder)
        with h5py.File(path, "a") as file:
            spoil(file)
        return path

    return write


def _soft(file: h5py.File) -> None:
    del file["a/coordinates"]
    file["a/coordinates"] = h5py.SoftLink("/b/coordinates")


def _external_link(file: h5py.File) -> None:
    file["c"] = h5py.ExternalLink("/etc/passwd", "/")


def _external_storage(file: h5py.File) -> None:
    del file["a/coordinates"]
    shape = (3, len(file["a/atomic_numbers"]), 3)
    file["a"].create_dataset("coordinates", shape, "<f8", external=[("/etc/passwd", 0, 8 * int(np.prod(shape)))])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(file["a/coordinates"].shape, "<f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", layout.shape)
    del file["a/coordinates"]
    file["a"].create_virtual_dataset("coordinates", layout)


def _vast(file: h5py.File) -> None:
    atoms = len(file["a/atomic_numbers"])
    for name, shape in (("coordinates", (10**6, atoms, 3)), ("wb97x_dz.forces", (10**6, atoms, 3))):
        del file[f"a/{name}"]
        file["a"].create_dataset(name, shape, "<f8", chunks=(1000, atoms, 3), compression="gzip")
    del file["a/wb97x_dz.energy"]
    file["a"].create_dataset("wb97x_dz.energy", (10**6,), "<f8", chunks=(1000,))


def _objects(file: h5py.File) -> None:
    del file["a/wb97x_dz.energy"]
    file["a"].create_dataset("wb97x_dz.energy", (3,), dtype=h5py.vlen_dtype(np.float64))


def _loop(file: h5py.File) -> None:
    file["loop"] = file["/"]


def _json(old: str, new: str, times: int = 1) -> Write:
    def write(folder: Path) -> Path:
        path, _ = write_mptrj(folder)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, times))
        return path

    return write


def _text(content: bytes) -> Write:
    def write(folder: Path) -> Path:
        (folder / "x.json").write_bytes(content)
        return folder / "x.json"

    return write


def _tar(*entries: tuple[str, dict, bytes]) -> Write:
    """Archive of entries: name, attributes of its header, content."""

    def write(folder: Path) -> Path:
        with tarfile.open(folder / "x.tar.gz", "w:gz") as archive:
            for name, attributes, content in entries:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                for key, value in attributes.items():
                    setattr(entry, key, value)
                archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
        return folder / "x.tar.gz"

    return write


def _announced(folder: Path) -> Path:
    """A header that announces 10^12 bytes, and nothing behind it."""
    entry = tarfile.TarInfo("a.xsf")
    entry.size = 10**12
    (folder / "x.tar").write_bytes(entry.tobuf(format=tarfile.GNU_FORMAT) + bytes(2048))
    return folder / "x.tar"


def _zip(*entries: tuple[str, bytes, int]) -> Write:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content, mode in entries:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = mode << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content)
        return folder / "x.zip"

    return write


def _xsf(old: str, new: str) -> Write:
    return _tar(("a.xsf", {}, xsf_text(crystal_frames(1)[0]).replace(old, new).encode()))


def _words(folder: Path) -> Path:
    path, _ = SAMPLES["zeo22"](folder)
    arrays = dict(np.load(path))
    arrays["forces"] = arrays["forces"].astype("U8")
    np.savez(path, **arrays)
    return path


GOOD = xsf_text(crystal_frames(1)[0]).encode()
# What each file is: of which set, and how it is written. None of them may be read.
CRAFTED: dict[str, tuple[str, Write]] = {
    "hdf5 with a soft link": ("ani1x", _hdf5(_soft)),
    "hdf5 with a link to a file": ("ani1x", _hdf5(_external_link)),
    "hdf5 with its array elsewhere": ("ani1x", _hdf5(_external_storage)),
    "hdf5 with a virtual array": ("ani1x", _hdf5(_virtual)),
    "hdf5 of 10^7 numbers that are not there": ("ani1x", _hdf5(_vast)),
    "hdf5 of lists": ("ani1x", _hdf5(_objects)),
    "hdf5 in a circle": ("ani1x", _hdf5(_loop)),
    "hdf5 that is none": ("spice", _text(b"\x89HDF\r\n\x1a\n" + bytes(500))),
    "json of brackets": ("mptrj", _text(b"[" * 10**6)),
    "json of braces": ("mptrj", _text(b'{"a":' * 10**5)),
    "json of one string": ("mptrj", _text(b'{"' + b"x" * 10**7)),
    "json of one number": ("mptrj", _text(b'{"a": {"b": ' + b"9" * 10**6 + b"}}")),
    "json that is no text": ("mptrj", _text(b"\xff\xfe" * 100)),
    "json with NaN for energies": (
        "mptrj",
        _json('"corrected_total_energy": ', '"corrected_total_energy": NaN, "was": ', -1),
    ),
    "json with a list for a structure": ("mptrj", _json('{"@class"', '[{"@class"')),
    "json with half an atom": ("mptrj", _json('"occu": 1', '"occu": 0.5')),
    "json with no element": ("mptrj", _json('"element": "', '"element": "Q')),
    "json with a cell of words": ("mptrj", _json('"matrix": [[', '"matrix": [["a", "b", "c"], [')),
    "tar with a link": ("tio2", _tar(("a.xsf", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, b""))),
    "tar with a hard link": ("tio2", _tar(("a.xsf", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, b""))),
    "tar with a device": ("tio2", _tar(("a.xsf", {"type": tarfile.CHRTYPE}, b""))),
    "tar that leads out": ("tio2", _tar(("../../a.xsf", {}, GOOD))),
    "tar of an absolute name": ("tio2", _tar(("/tmp/a.xsf", {}, GOOD))),
    "tar with 10^12 bytes": ("tio2", _announced),
    "tar with a large xsf": ("tio2", _tar(("a.xsf", {}, GOOD + b" " * 2_000_000))),
    "zip that leads out": ("tio2", _zip(("a\\..\\..\\b.xsf", GOOD, 0o644))),
    "zip with a link": ("md17-ccsd", _zip(("a.npz", b"/etc/passwd", 0o120777))),
    "zip bomb": ("md17-ccsd", _zip(("a-train.npz", bytes(3 * 10**7), 0o644))),
    "npz of text for forces": ("zeo22", _words),
    "xsf of 10^9 atoms": ("tio2", _xsf(f"\n{len(crystal_frames(1)[0])} 1\n", "\n1000000000 1\n")),
    "xsf without an energy": ("tio2", _xsf("# total energy =", "# energy")),
    "xsf of words": ("tio2", _xsf("PRIMVEC", "PRIMVEC\na b c")),
}


@family("crafted public data sets", small=len(CRAFTED), large=len(CRAFTED), warm=warm, together=8)
def crafted(arena: Arena) -> Attack:
    """Take the files of the table one after another: the case is the place in it."""
    name = list(CRAFTED)[arena.case % len(CRAFTED)]
    data_set, write = CRAFTED[name]
    path = write(arena.folder)

    def attempt() -> str:
        found = fetch(data_set, arena.folder / "out.xyz", source=path, progress=False)
        return f"{found.frames} frames were read"

    return name, attempt


@family("damaged public data sets", small=18, large=2000, warm=warm, together=9)
def damaged(arena: Arena) -> Attack:
    """Change bytes of a good text or archive, or cut it.

    HDF5 is left out: its library is in C, and what it does with random bytes is not ours to promise.
    """
    data_set = arena.choice(sorted(set(SAMPLES) - {"ani1x", "spice"}))
    path, _ = SAMPLES[data_set](arena.folder)
    content = bytearray(path.read_bytes())
    place, kind = int(arena.rng.integers(len(content))), arena.choice(["bit", "bytes", "cut"])
    if kind == "bit":
        content[place] ^= 1 << int(arena.rng.integers(8))
    elif kind == "bytes":
        content[place : place + 20] = arena.rng.bytes(20)
    else:
        del content[place:]
    path.write_bytes(bytes(content))

    def attempt() -> bool:
        fetch(data_set, arena.folder / "out.xyz", source=path, progress=False)
        return True

    return f"{data_set}, {kind} at {place}", attempt
