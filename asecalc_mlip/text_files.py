"""Text in other encodings and in packed files: what is read, and what a file is that cannot be read.

UTF-8 is read with and without a byte order mark, UTF-16 and UTF-32 with one, as editors and shells on Windows write
them; also in files that are packed by gzip, bzip2 or xz and named so.
"""

from __future__ import annotations

import codecs
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["opened_text", "what_it_is", "without_mark"]

PACKED = (".gz", ".bz2", ".xz")
# That of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_READ = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_OTHERS = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstandard", b"7z\xbc\xaf": "7-Zip", b"\x5d\x00\x00": "lzma"}


def opened_text(path: str | PathLike) -> io.TextIOWrapper:
    """Open a text file, which may be packed and may have a byte order mark; OSError or ValueError where it cannot."""
    encoding = _marked_encoding(path) or "utf-8"
    return io.TextIOWrapper(_unpacked(path), encoding=encoding)


@contextmanager
def without_mark(path: str | PathLike) -> Iterator[str | PathLike]:
    """Hand out a text file, or where it has a byte order mark a copy in UTF-8 without one, which ASE's readers need.

    The copy has the same name, by which ASE knows the format, but is not packed.
    """
    encoding = _marked_encoding(path)
    if encoding is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, _unpacked(path) as file:
        name = Path(path)
        copy = Path(folder) / (name.stem if name.suffix in PACKED else name.name)
        copy.write_bytes(file.read().decode(encoding).encode())
        yield copy


def what_it_is(path: str | PathLike) -> str:
    """Tell what a file is that could not be read, and what to do: the end of a message, empty where nothing is seen."""
    beginning = b""
    with suppress(OSError), open(path, "rb") as file:
        beginning = file.read(6)
    for mark, name in {**_READ, **_OTHERS}.items():
        if beginning.startswith(mark) and (mark in _OTHERS or Path(path).suffix not in PACKED):
            what = "unpack it" if mark in _OTHERS else "unpack it, or give its name the ending"
            return f". It is packed by {name}: {what}; text in {', '.join(PACKED)} is read"
    if Path(path).suffix in PACKED and beginning and not beginning.startswith(tuple(_READ)):
        return f". It is not packed, though its name ends in {Path(path).suffix}: give it another name"
    if b"\0" in beginning[:2]:
        return ". If it is text, it is none in UTF-8: save it so, or with a byte order mark"
    return ""


def _marked_encoding(path: str | PathLike) -> str | None:
    beginning = b""
    with suppress(Exception), _unpacked(path) as file:  # the reader will tell
        beginning = file.read(4)
    return next((name for mark, name in _MARKS.items() if beginning.startswith(mark)), None)


def _unpacked(path: str | PathLike) -> Any:
    from ase.io.formats import open_with_compression

    return open_with_compression(str(path), "rb")
