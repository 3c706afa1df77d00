"""Attacks by model files that were made to harm: code, bombs, odd tensors, wild numbers, each with a valid checksum."""

from __future__ import annotations

import copy
import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asecalc_mlip.checkpoint import checksum, describe, load
from tests.attack.harness import Arena, Attack, Trap, family
from tests.attack.model_files import known, numbers_of_model, originals

ENTRIES = ("architecture", "hyperparameters", "elements", "cutoff", "scale", "units", "reference_energies", "dtype")


@cache
def contents() -> dict[str, dict[str, Any]]:
    """Return what the golden files hold."""
    golden = [path for path in originals() if path.parent.name.startswith("v")]
    return {path.stem: torch.load(path, weights_only=True) for path in golden}


def warm() -> None:
    """Read them, and load one as cases do: the first time more is imported."""
    contents()
    numbers_of_model(known(originals()[0]))


@family("model files: code in every slot", small=30, large=1500, warm=warm, together=25)
def code(arena: Arena) -> Attack:
    name, content = _content(arena)
    trap, protocol = Trap(arena.trap), arena.choice([2, 2, 2, 3, 4, 5])
    where = arena.choice([*content, "key", "weight", "deep", "whole", "legacy", "pickle", "module"])
    path = arena.folder / "model.pt"
    if where == "pickle":
        path.write_bytes(pickle.dumps(trap, protocol=protocol))
        return "a pickle", _load(path)
    if where == "key":
        content["card"] = {_HashedTrap(arena.trap): 1}
    elif where == "weight":
        content["state_dict"][arena.choice(content["state_dict"])] = trap
    elif where == "deep":
        content["card"]["a"] = [{"b": [({"c": trap},)]}]
    elif where == "module":
        content = {**content, "state_dict": torch.nn.Linear(2, 2)}  # type: ignore[dict-item]
    else:
        content = trap if where == "whole" else {**content, where: trap}  # type: ignore[assignment]
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=where != "legacy")
    return f"{name}, protocol {protocol}: {where}", _load(path)


@family("model files: weights that are no weights", small=40, large=1500, warm=warm, together=25)
def odd_weights(arena: Arena) -> Attack:
    name, content = _content(arena)
    entry = arena.choice(content["state_dict"])
    kind = arena.choice(ODD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content["state_dict"][entry] = ODD[kind](content["state_dict"][entry].clone(), arena)
        return f"{name}: {entry} {kind}", _signed(arena, content)


@family("model files: wild numbers", small=20, large=1500, warm=warm, together=25)
def wild_weights(arena: Arena) -> Attack:
    name, content = _content(arena)
    entries = list(content["state_dict"]) if arena.rng.random() < 0.2 else [arena.choice(content["state_dict"])]
    factor = arena.choice([np.nan, np.inf, -np.inf, *(10.0**k for k in range(2, 39, 2))])
    for entry in entries:
        value = content["state_dict"][entry]
        if arena.rng.random() < 0.5:
            value.mul_(factor)
        else:
            value.view(-1)[int(arena.rng.integers(value.numel()))] = factor
    return f"{name}: {entries[0]} and {len(entries) - 1} more with {factor:g}", _signed(arena, content)


@family("model files: absurd sizes", small=30, large=1000, warm=warm, together=25)
def absurd_sizes(arena: Arena) -> Attack:
    name, content = _content(arena)
    parts = [content, *content["hyperparameters"].get("parts", [])]
    hyperparameters = arena.choice(parts)["hyperparameters"]
    key = arena.choice(
        [*hyperparameters, "n_interactions", "n_features", "n_rbf", "n_exponentials", "n_angular", "parts"]
    )
    value = arena.choice([int(10 ** arena.rng.uniform(2, 12)), 10**30, -3, 0, 64, 512, 2048, 1e30, 1e-300, junk(arena)])
    hyperparameters[key] = [hyperparameters] * min(int(1e5), value) if key == "parts" and type(value) is int else value
    return f"{name}: {key} {str(value)[:60]}", _signed(arena, content)


@family("model files: odd metadata", small=30, large=1500, warm=warm, together=25)
def metadata(arena: Arena) -> Attack:
    name, content = _content(arena)
    target: Any = content
    key = arena.choice([*ENTRIES, "version", "format", "reference", "card", "state_dict"])
    while isinstance(target[key], (dict, list)) and len(target[key]) and arena.rng.random() < 0.6:
        target = target[key]
        key = int(arena.rng.integers(len(target))) if isinstance(target, list) else arena.choice(target)
    value = junk(arena)
    if arena.rng.random() < 0.15 and isinstance(target, dict):
        del target[key]
    else:
        target[key] = value
    return f"{name}: {str(key)[:40]} {type(value).__name__} {ascii(value)[:60]}", _signed(arena, content)


@family("model files: crafted archives", small=25, large=1500, warm=warm, together=25)
def archives(arena: Arena) -> Attack:
    name, content = _content(arena)
    data, how = bytearray(_saved(content)), arena.choice(["directory", "end", "header", *ARCHIVES])
    if how in ARCHIVES:
        data = bytearray(ARCHIVES[how](bytes(data), arena))
    else:
        for _ in range(arena.choice([1, 2, 5])):
            _field(data, how, arena)
    path = arena.folder / "model.pt"
    path.write_bytes(data)
    return f"{name}: {how}", _load(path)


@family("model files: crafted pickles", small=25, large=2000, warm=warm, together=25)
def pickles(arena: Arena) -> Attack:
    name, content = _content(arena)
    how, path = arena.choice(["bytes", "bytes", *PICKLES]), arena.folder / "model.pt"
    saved = _saved(content)
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        data = bytearray(archive.read("archive/data.pkl"))
    if how == "bytes":
        for _ in range(arena.choice([1, 2, 5, 20])):
            data[int(arena.rng.integers(2, len(data)))] = int(arena.rng.integers(256))
    else:
        data = bytearray(PICKLES[how](arena))
    path.write_bytes(_rezipped(saved, {"archive/data.pkl": bytes(data)}))
    return f"{name}: {how}", _load(path)


class _HashedTrap(Trap):
    def __hash__(self) -> int:
        return 1


def _content(arena: Arena) -> tuple[str, dict[str, Any]]:
    name = arena.choice(contents())
    return name, copy.deepcopy(contents()[name])


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _signed(arena: Arena, content: dict[str, Any]) -> Callable[[], bool | str]:
    """Write content with the checksum that belongs to it, where there is one."""
    try:
        content["checksum"] = checksum(content)
    except Exception:  # noqa: BLE001  tensors without bytes, or no weights at all: the old one stays
        pass
    torch.save(content, arena.folder / "model.pt")
    return _load(arena.folder / "model.pt")


def _load(path: Path) -> Callable[[], bool | str]:
    """Use a file: what loads must be described and give finite numbers; its content is right by definition."""

    def attempt() -> bool | str:
        describe(path)
        numbers = numbers_of_model(load(path))
        return True if bool(torch.isfinite(numbers).all()) else f"loads and gives {numbers[:2].tolist()}"

    return attempt


def junk(arena: Arena) -> Any:
    deep: Any = []
    for _ in range(int(10 ** arena.rng.uniform(0, 2.5))):
        deep = [deep]
    laughs: Any = ["ha"] * 10
    for _ in range(int(arena.rng.integers(1, 6))):  # more, and its checksum could not be had
        laughs = [laughs] * 10
    options = [
        None,
        True,
        0,
        -1,
        1.5,
        float("nan"),
        float("inf"),
        1e308,
        10**30,
        2**70,
        "",
        "x",
        "é\x00\x1b[31m",
        "$x^{",
    ]
    options += [
        "n" * int(10 ** arena.rng.uniform(1, 6)),
        [],
        {},
        (),
        deep,
        laughs,
        [1, "a"],
        {"a": 1},
        {1: 2},
        {"H": "1"},
    ]
    options += [
        torch.ones(2),
        {"values": {}},
        {"format": "x"},
        [None],
        [[]],
        list(range(1000)),
        "float64",
        "eam",
        ["H"],
    ]
    return options[int(arena.rng.integers(len(options)))]


def _expanded(value: torch.Tensor, arena: Arena) -> torch.Tensor:
    return torch.zeros(1).expand(int(10 ** arena.rng.uniform(3, 12)))


def _quantised(value: torch.Tensor, arena: Arena) -> torch.Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


ODD: dict[str, Callable[[torch.Tensor, Arena], Any]] = {
    **{
        str(dtype): lambda value, arena, dtype=dtype: value.to(dtype)
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int8, torch.bool)
    },
    "complex": lambda value, arena: value.to(torch.complex64),
    "float8": lambda value, arena: value.to(torch.float8_e4m3fn),
    "quantised": _quantised,
    "sparse": lambda value, arena: value.to_sparse(),
    "CSR": lambda value, arena: value.reshape(-1, 1).to_sparse_csr(),
    "nested": lambda value, arena: torch.nested.nested_tensor([value.flatten(), value.flatten()[:1]]),
    "meta": lambda value, arena: value.to("meta"),
    "negative": lambda value, arena: torch._neg_view(value),
    "conjugate": lambda value, arena: value.to(torch.complex64).conj(),
    "expanded": _expanded,
    "expanded to its shape": lambda value, arena: torch.zeros(1).expand(value.shape),
    "transposed": lambda value, arena: value.t() if value.ndim == 2 else value.flip(0)[::1],
    "slice": lambda value, arena: torch.cat([value, value])[len(value) :] if value.ndim else value,
    "every other": lambda value, arena: value.repeat_interleave(2, 0)[::2] if value.ndim else value,
    "other shape": lambda value, arena: value.reshape(-1)[:-1].clone(),
    "one more axis": lambda value, arena: value[None],
    "empty": lambda value, arena: torch.empty(0),
    "scalar": lambda value, arena: torch.tensor(1.0),
    "parameter": lambda value, arena: torch.nn.Parameter(value),
    "list": lambda value, arena: value.tolist(),
    "number": lambda value, arena: 1.0,
    "NumPy's": lambda value, arena: value.numpy(),
    "huge": lambda value, arena: torch.zeros(int(10 ** arena.rng.uniform(3, 6.5))),
    "many axes": lambda value, arena: value.reshape(*value.shape, *[1] * 50),
}


def _field(data: bytearray, where: str, arena: Arena) -> None:
    """Change one number of two or four bytes in a part of an archive."""
    magic = {"directory": b"PK\x01\x02", "end": b"PK\x05\x06", "header": b"PK\x03\x04"}[where]
    places = [i for i in range(len(data) - 4) if data[i : i + 4] == magic]
    start = arena.choice(places) + arena.choice(range(4, 46 if where == "directory" else 22, 2))
    form = arena.choice(["<H", "<L"])
    value = arena.choice([0, 1, 8, 255, 65535, 2**31, 2**32 - 1, int(arena.rng.integers(2**16))])
    size = struct.calcsize(form)
    data[start : start + size] = struct.pack(form, value % 2 ** (8 * size))[: len(data[start : start + size])]


def _rezipped(data: bytes, changes: dict[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", **options) as new:
        for entry in old.namelist():
            new.writestr(entry, changes.get(entry, old.read(entry)))
        for entry in changes.keys() - set(old.namelist()):
            new.writestr(entry, changes[entry])
    return file.getvalue()


def _twice(data: bytes, arena: Arena) -> bytes:
    file = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickle.dumps(Trap(arena.trap), protocol=2))
    return file.getvalue()


def _overlapping(data: bytes, arena: Arena) -> bytes:
    """Many entries that all are the same large piece of the file."""
    body = bytes(int(10 ** arena.rng.uniform(4, 7.3)))
    header = struct.pack("<4s5H3L2H", b"PK\x03\x04", 0, 0, 0, 0, 0, 0, len(body), len(body), 0, 0)
    crc, line, number = zlib.crc32(body), bytearray(), int(10 ** arena.rng.uniform(1, 4.8))
    for i in range(number):
        name = f"archive/data/{i}".encode()
        line += struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 6, crc, len(body), len(body), len(name), *[0] * 6)
        line += name
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, number, number, len(line), len(header) + len(body), 0)
    return header + body + line + end


ARCHIVES: dict[str, Callable[[bytes, Arena], bytes]] = {
    "packed": lambda data, arena: _rezipped(data, {}, compression=zipfile.ZIP_DEFLATED),
    "packed bomb": lambda data, arena: _rezipped(
        data, {"archive/data/0": bytes(10**8)}, compression=zipfile.ZIP_DEFLATED
    ),
    "written by another": lambda data, arena: _rezipped(data, {}),
    "more entries": lambda data, arena: _rezipped(data, {f"archive/{i}": b"x" for i in range(3000)}),
    "entry twice": _twice,
    "overlapping": _overlapping,
    "in front": lambda data, arena: arena.rng.bytes(100) + data,
    "behind": lambda data, arena: data + arena.rng.bytes(100),
    "big-endian": lambda data, arena: _rezipped(data, {"archive/byteorder": b"big"}),
    "two archives": lambda data, arena: data + data,
    "no description": lambda data, arena: data.replace(b"data.pkl", b"data.pxl"),
}


def _laughs(arena: Arena) -> bytes:
    value: Any = "ha" * 1000
    for _ in range(int(arena.rng.integers(5, 40))):
        value = [value] * 10
    return pickle.dumps({"format": "asecalc-mlip", "version": 2, "state_dict": {}, "card": value}, protocol=2)


PICKLES: dict[str, Callable[[Arena], bytes]] = {
    "laughs": _laughs,
    "memory": lambda arena: b"\x80\x02}r" + struct.pack("<L", 2**32 - 1) + b".",
    "many lists": lambda arena: b"\x80\x02(" + b"]" * int(10 ** arena.rng.uniform(3, 6.5)) + b"l.",
    "deep": lambda arena: b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "marks": lambda arena: b"\x80\x02" + b"(" * int(10 ** arena.rng.uniform(3, 6.5)) + b".",
    "long text": lambda arena: b"\x80\x02X" + struct.pack("<L", 2**32 - 1) + b"x.",
    "long number": lambda arena: b"\x80\x02\x8b" + struct.pack("<l", 2**31 - 1) + b"x.",
    "random": lambda arena: b"\x80\x02" + arena.rng.bytes(int(10 ** arena.rng.uniform(0, 5))),
    "itself": lambda arena: b"\x80\x02]q\x00h\x00a.",
    "text protocol": lambda arena: pickle.dumps({"format": "asecalc-mlip", "card": [1, "x"]}, protocol=0),
    "persistent": lambda arena: b"\x80\x02(X\x07\x00\x00\x00storagetQ.",
    "call": lambda arena: b"\x80\x02cposix\nmkdir\n" + b"X\x08\x00\x00\x00executed\x85R.",
}
