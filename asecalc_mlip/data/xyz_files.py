"""Extended XYZ: read frame by frame, to say which frame is damaged and how, and written as bytes.

Files that are made to fill the memory (a line, a count or a number of columns without end) are refused before it is
taken.
"""

from __future__ import annotations

import lzma
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io.extxyz import read_xyz, write_xyz

from asecalc_mlip.errors import DataError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.text_files import opened_text, what_it_is

__all__ = ["DAMAGE", "read_xyz_frames", "xyz_bytes"]

# Sizes beyond which a file is taken for damaged; in characters, lines and atoms of a frame.
LONGEST_NUMBER, LONGEST_COMMENT, LONGEST_LINE = 100, 50_000_000, 100_000
MOST_BLANK, MOST_ATOMS = 1000, 1_000_000
# What readers raise for damaged files, those that are compressed and cut off among them.
DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    SyntaxError,
    OSError,
    EOFError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    AssertionError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tokenize.TokenError,
)


def xyz_bytes(frames: Sequence[Atoms]) -> bytes:
    """Return structures as a file has them; nothing of none."""
    text = StringIO()
    write_xyz(text, frames)
    return text.getvalue().encode()


def read_xyz_frames(path: Path) -> Iterator[Atoms]:
    """Split the file into frames here and let ASE parse each.

    ASE's own reader stops without a word at a blank line and cannot say which frame is damaged.
    """
    line_number = good = blank = 0
    last = "\n"
    with _opened(path) as file:
        while True:
            try:
                header = file.readline(LONGEST_NUMBER)
                line_number += 1
                if not header:
                    break
                if not header.strip():
                    blank += 1
                    if blank > MOST_BLANK:
                        raise ValueError(f"more than {MOST_BLANK} blank lines")
                    continue
                lines = [header, *_frame_lines(file, _count(header))]
                atoms = _parse_xyz_frame(lines)
            except UnicodeDecodeError as error:
                what = ValueError(f"it is no text in {error.encoding.upper()} ({error.reason})")
                raise DataError(_damaged(path, good, line_number, what)) from error
            except DAMAGE as error:
                raise DataError(_damaged(path, good, line_number, error)) from error
            yield atoms
            line_number += len(lines) - 1
            good, blank, last = good + 1, 0, lines[-1]
    if not last.endswith("\n"):
        LOGGER.warning(f"{path} ends without a line break: was it cut off? Its last line is {last[:60]!r}")


def _opened(path: Path) -> TextIOWrapper:
    try:
        return opened_text(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened ({error})") from error


def _count(header: str) -> int:
    """Return the number of atoms of a frame."""
    if len(header) >= LONGEST_NUMBER or not header.strip().isascii() or not header.strip().isdigit():
        shown = header.strip()[:20] + ("…" if len(header.strip()) > 20 else "")
        raise ValueError(
            f"expected the number of atoms, not {shown!r}; is this an XYZ file, or is an atom line missing before it?"
        )
    if not 1 <= (number := int(header)) <= MOST_ATOMS:
        raise ValueError(f"a frame of {number} atoms; 1 to {MOST_ATOMS} are possible")
    return number


def _frame_lines(file: Any, atoms: int) -> Iterator[str]:
    """Read the comment and the atoms of a frame, none of them longer than any sensible line."""
    for number in range(atoms + 1):
        longest = LONGEST_LINE if number else LONGEST_COMMENT
        line = file.readline(longest)
        if len(line) >= longest:
            raise ValueError(f"its {'comment' if not number else 'atom'} line is longer than {longest} characters")
        if not line:
            return
        yield line


def _parse_xyz_frame(lines: list[str]) -> Atoms:
    """Parse one frame: count line, comment line and one line per atom."""
    expected = int(lines[0])
    if expected < 1:
        raise ValueError(f"a frame of {expected} atoms")
    if len(lines) < expected + 2:
        raise ValueError(f"it has {max(len(lines) - 2, 0)} of {expected} atoms, the file is cut off")
    # An atom line that was cut in the middle has fewer columns than the one before it.
    columns = {len(line.split()) for line in lines[2:]}
    if len(columns) > 1:
        raise ValueError(f"its atom lines have unequal numbers of columns ({sorted(columns)})")
    # ASE makes room for the columns that are announced before it looks for them.
    announced = sum(int(number[:9]) for number in re.findall(r":[A-Za-z]:(\d+)", _properties(lines[1])))
    if announced > max(columns):
        raise ValueError(f"its Properties announce {announced} columns, and its atom lines have {max(columns)}")
    try:
        return next(read_xyz(StringIO("".join(lines)), 0))
    except KeyError as error:  # of ASE, with the word alone
        raise ValueError(
            f"it has no chemical symbol or no column {error}; symbols are such as H, without a number"
        ) from None


def _properties(comment: str) -> str:
    found = re.search(r"Properties\s*=\s*\"?([^\s\"]*)", comment, re.IGNORECASE)
    return found[1] if found else ""


def _damaged(path: Path, good: int, line_number: int, error: Exception) -> str:
    """Say where a file is damaged and how to read what is good."""
    advice = f" The {good} frames before it are good: read them with index ':{good}'." if good else ""
    what = str(error)[:300]
    if isinstance(error, RecursionError):
        what = "a value in its comment line is nested too deeply"
    elif isinstance(error, MemoryError):
        what = "it needs more memory than there is"
    return f"{path}: frame {good} (line {line_number}) cannot be read: {what}{what_it_is(path)}.{advice}"
