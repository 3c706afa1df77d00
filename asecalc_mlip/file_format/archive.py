"""The zip archive inside a .pt file: plain types and tensors, written by torch, read without trusting it.

`torch.save` writes, and `torch.load(weights_only=True)` could read. But that takes memory as the file tells it to,
makes tensors of every kind, and ignores the checksums of the archive. The reader here is made for files of strangers.
It works on the bytes of the file, whose number bounds all it takes:

- entries of the archive are stored as they are, lie inside the file, and have the CRC-32 that its directory states;
- the pickle `data.pkl` is interpreted by `asecalc_mlip.file_format.unpickling`, which runs nothing;
- a tensor is dense and contiguous, of float32, float64 or int64, with an entry of just its size for it alone.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from asecalc_mlip.errors import CheckpointError
from asecalc_mlip.file_format.unpickling import Call, Name, Stored, interpreted

__all__ = ["ALLOWED", "check", "read", "write"]

# Bytes; models of a hundred million weights fit.
LARGEST_FILE = 1 << 29
LARGEST_STATE = 1 << 33  # of a training: weights, averages, momenta
LARGEST_PICKLE = 1 << 21
LARGEST_DIRECTORY = 1 << 22
# Plain values with their letters, and lists in lists: one value may stand in many places of a small file.
MOST_VALUES = 1 << 20
DEEPEST = 40
REBUILD = "torch._utils._rebuild_tensor_v2"
DTYPES = {"torch.FloatStorage": torch.float32, "torch.DoubleStorage": torch.float64, "torch.LongStorage": torch.int64}
ALLOWED = "a weight is a dense, contiguous tensor of float32 or float64"

# End of the directory; an entry of it; what stands before the bytes of an entry.
_END, _ENTRY, _HEADER = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_CUT = "it may be cut off by a broken copy or download, or come from another program. Nothing was executed"
_AGAIN = "copy or download the file again"
_STRUCTURES = (".xyz", ".extxyz", ".cif", ".traj", ".db", ".vasp", ".pdb")


def write(content: dict[str, Any], file: BinaryIO) -> None:
    """Write plain types and tensors; equal content gives equal bytes."""
    torch.save(content, file)


def read(path: Path) -> Any:
    """Read plain types and tensors; the tensors are views of the bytes of the file.

    Raises
    ------
    CheckpointError
        For a file that is no such archive, is damaged or too large, or holds anything else; it names the entry.
    """
    try:
        content = _bytes(path)
        entries = dict(_entries(content))
        description = _part(content, entries, "data.pkl")
        if len(description) > LARGEST_PICKLE:
            raise CheckpointError(f"its description has {len(description)} bytes; allowed are {LARGEST_PICKLE}")
        if "byteorder" in entries and _part(content, entries, "byteorder") != b"little":
            raise CheckpointError("its numbers are not little-endian; write it again on a machine of the usual kind")
        return _Resolver(content, entries).resolved(interpreted(bytes(description)))
    except CheckpointError as error:
        if path.suffix in _STRUCTURES:
            advice = "give a model (.pt) here; in a command, the model comes before the structures"
            raise CheckpointError(f"{path} is a file of structures by its name, and no model: {advice}") from None
        raise CheckpointError(f"{path} is not a model file of this package, or is damaged: {error}") from None


def check(path: Path) -> None:
    """Look for damage in an archive that `torch.load` reads afterwards, which takes a flipped bit for a number.

    Raises
    ------
    CheckpointError
        For a file that is cut off or too large, and for entries that are packed, overlap or have another CRC-32.
    """
    content = _bytes(path, LARGEST_STATE)
    for name, place in _entries(content):
        if name == "data.pkl" and place.stop - place.start > LARGEST_PICKLE:
            raise CheckpointError(f"its description is longer than {LARGEST_PICKLE} bytes")


def _bytes(path: Path, largest: int = LARGEST_FILE) -> bytearray:
    try:
        size = path.stat().st_size
        if size > largest:
            raise CheckpointError(f"it has {size} bytes; allowed are {largest}")
        content = bytearray(size)
        with open(path, "rb") as file:
            if file.readinto(content) != size:
                raise CheckpointError("it changed while it was read; try again")
    except OSError as error:
        raise CheckpointError(f"it cannot be read ({error.strerror or error})") from None
    return content


def _part(content: bytearray, entries: dict[str, slice], name: str) -> memoryview:
    if name not in entries:
        raise CheckpointError(f"its archive has no entry {name!r:.80}, which torch.save writes")
    return memoryview(content)[entries[name]]


def _entries(content: bytearray) -> Iterator[tuple[str, slice]]:
    """Name of each entry, without that of the archive, and where its bytes stand."""
    if len(content) < _END.size or content[:4] != b"PK\x03\x04":
        raise CheckpointError(f"it is no zip archive ({len(content)} bytes); {_CUT}")
    magic, _, _, _, number, size, start, comment = _END.unpack_from(content, len(content) - _END.size)
    if magic != b"PK\x05\x06" or comment:
        raise CheckpointError(f"its zip archive has no end; {_CUT}")
    if size > LARGEST_DIRECTORY:
        raise CheckpointError(f"the directory of its archive has {size} bytes; allowed are {LARGEST_DIRECTORY}")
    seen: set[str] = set()
    total = 0
    for _ in range(number):
        entry = _entry(content, start)
        start, total, name = entry.end, total + entry.size, entry.name.partition("/")[2]
        # Before anything is read: entries that overlap could make work without end of a small file.
        if total > len(content) or name in seen:
            raise CheckpointError(f"entry {name!r:.80} of its archive is there twice, or has no place in it")
        seen.add(name)
        yield name, _checked(content, entry)


class _Entry(NamedTuple):
    """One line of the directory; `header` is where the entry starts, `end` where the line ends."""

    name: str
    crc: int
    size: int
    header: int
    end: int


def _entry(content: bytearray, position: int) -> _Entry:
    try:
        fields = _ENTRY.unpack_from(content, position)
        magic, _, _, flags, method, _, _, crc, packed, size, length, extra, comment = fields[:13]
        after = position + _ENTRY.size
        name = content[after : after + length].decode("utf-8")
    except (struct.error, UnicodeDecodeError):
        raise CheckpointError(f"the directory of its archive is damaged; {_AGAIN}") from None
    if magic != b"PK\x01\x02" or method != 0 or flags & 1 or packed != size:
        raise CheckpointError(f"entry {name!r:.80} of its archive is packed, or the directory is damaged; {_AGAIN}")
    return _Entry(name, crc, size, fields[-1], after + length + extra + comment)


def _checked(content: bytearray, entry: _Entry) -> slice:
    try:
        magic, *_, length, extra = _HEADER.unpack_from(content, entry.header)
    except struct.error:
        raise CheckpointError(f"entry {entry.name!r:.80} of its archive is outside of it; {_AGAIN}") from None
    start = entry.header + _HEADER.size + length + extra
    place = slice(start, start + entry.size)
    data = memoryview(content)[place]
    if magic != b"PK\x03\x04" or len(data) != entry.size or zlib.crc32(data) != entry.crc:
        raise CheckpointError(f"entry {entry.name!r:.80} of its archive is damaged (CRC-32); {_AGAIN}")
    return place


class _Resolver:
    """Turns the description of tensors into tensors, and knows where in the content each value stands."""

    def __init__(self, content: bytearray, entries: dict[str, slice]):
        self.content, self.entries = content, entries
        self.values = 0
        self.used: set[str] = set()

    def resolved(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """Return the value with tensors in it."""
        self._count(value, depth)
        if isinstance(value, dict):
            return {key: self.resolved(item, f"{name}.{key!s:.80}", depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.resolved(item, name, depth + 1) for item in value)
        if isinstance(value, Call):
            return self._tensor(value, name.removeprefix("."))
        if isinstance(value, (Name, Stored)):
            raise CheckpointError(f"entry {name[1:]!r} is no plain value; nothing was executed")
        return value

    def _count(self, value: Any, depth: int) -> None:
        self.values += 1
        if isinstance(value, str):
            self.values += len(value)
        elif isinstance(value, dict):
            self.values += sum(len(key) for key in value if isinstance(key, str))
        if self.values > MOST_VALUES or depth > DEEPEST:
            raise CheckpointError(
                f"it holds more than {MOST_VALUES} plain values, or lists {DEEPEST} deep in each other"
            )

    def _tensor(self, call: Call, name: str) -> torch.Tensor:
        if call.name != REBUILD:
            raise CheckpointError(
                f"entry {name!r} holds Python objects, made by {call.name!r:.120}; {ALLOWED}. Nothing was executed"
            )
        try:
            stored, offset, shape, strides, _, _, *more = call.arguments
            kind, storage, key, _, number = stored.description
            dtype, whole = DTYPES.get(storage.text), (kind, offset, more) == ("storage", 0, [])
        except (ValueError, TypeError, AttributeError):
            raise CheckpointError(f"entry {name!r} is a tensor without a description; {ALLOWED}") from None
        if dtype is None:
            raise CheckpointError(f"entry {name!r} is a tensor of {storage.text!r:.80}; {ALLOWED}")
        if not whole or not isinstance(key, str) or not _dense(shape, strides, number):
            raise CheckpointError(f"entry {name!r} is a view of a tensor; {ALLOWED}")
        return self._array(name, dtype, shape, f"data/{key}")

    def _array(self, name: str, dtype: torch.dtype, shape: tuple[int, ...], key: str) -> torch.Tensor:
        data = _part(self.content, self.entries, key)
        if key in self.used or len(data) != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(f"entry {name!r} of shape {shape} has {len(data)} bytes, or shares them; {ALLOWED}")
        self.used.add(key)
        if not len(data):
            return torch.empty(shape, dtype=dtype)
        start = self.entries[key].start
        return torch.frombuffer(self.content, dtype=dtype, count=math.prod(shape), offset=start).view(shape)


def _dense(shape: Any, strides: Any, number: Any) -> bool:
    """Whether these strides go through all numbers of this shape, one after the other."""
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= DEEPEST):
        return False
    if any(type(size) is not int or not 0 <= size <= LARGEST_FILE for size in (*shape, number)):
        return False
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= max(size, 1)
    return math.prod(shape) == number
