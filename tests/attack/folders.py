"""Whether two folders hold the same, apart from times and from where they are."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["compare"]

# What tells of time and of how often a run was begun.
OF_TIME = {"seconds", "wall_s", "restarts", "ms_per_step", "ms_per_replica_step", "ns_per_day", "time_shares"}
OF_TIME |= {"calculator", "TimeBudget", "load"}
OF_LOAD = "The machine was busy"
# What shows measured times, or tells of each start of a command or of a network of the difference.
TIMINGS = {"speed.json", "report.html", "summary.png", "tune.log", "0.log", "1.log"}


def compare(whole: Path, cut: Path) -> str:
    """Return which files of two folders differ in more than times; an empty text if none."""
    roots = whole.parent, cut.parent
    names = [{str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in (whole, cut)]
    unlike = [f"only one has {name}" for name in sorted(names[0] ^ names[1]) if "tfevents" not in name]
    for name in sorted(names[0] & names[1]):
        if (
            Path(name).name not in TIMINGS
            and "tfevents" not in name
            and (told := _differ(whole / name, cut / name, roots))
        ):
            unlike.append(f"{name}: {told}")
    return "; ".join(unlike)


def _differ(first: Path, second: Path, roots: tuple[Path, Path]) -> str:
    if first.read_bytes() == second.read_bytes():
        return ""
    try:
        a, b = (_content(path, root) for path, root in ((first, roots[0]), (second, roots[1])))
    except KeyError:
        return "other bytes"
    return "" if repr(a) == repr(b) else _where(a, b)


def _where(a: Any, b: Any, path: str = "") -> str:
    """Return the first place where two contents differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}, key=str):
            if repr(a.get(key)) != repr(b.get(key)):
                return _where(a.get(key), b.get(key), f"{path}.{key}")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for k, (left, right) in enumerate(zip(a, b, strict=True)):
            if repr(left) != repr(right):
                return _where(left, right, f"{path}[{k}]")
    return f"{path} is {a!r:.120} and {b!r:.120}"


def _content(path: Path, root: Path) -> Any:
    """Return what is in a file, apart from times and folders, as plain values."""
    raw, ending = path.read_bytes(), path.suffix
    if ending in {".json", ".jsonl"}:
        return [_timeless(json.loads(part), root) for part in ([raw] if ending == ".json" else raw.splitlines())]
    if ending == ".csv":
        rows = csv.DictReader(io.StringIO(raw.decode()))
        return [_timeless(dict(row), root) for row in rows]
    if ending == ".npz":
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            return {name: _array(arrays[name], root) for name in arrays.files}
    if ending in {".pt", ".ckpt"} and zipfile.is_zipfile(path):
        import torch

        return _timeless(torch.load(path, map_location="cpu", weights_only=True), root)
    if ending in {".yaml", ".log", ".html"}:
        return _timeless(raw.decode(), root)
    if ending == ".db":
        return _tables(path, root)
    raise KeyError(ending)


def _tables(path: Path, root: Path) -> Any:
    """Return the rows of an SQLite file, without when they were written."""
    with closing(sqlite3.connect(path)) as base:
        names = [row[0] for row in base.execute("select name from sqlite_master where type = 'table' order by name")]
        columns = {n: [row[1] for row in base.execute(f"pragma table_info({n})")] for n in names}
        keep = {
            n: [c for c in columns[n] if "datetime" not in c and c not in {"ctime", "mtime", "unique_id"}]
            for n in names
        }
        rows = {n: base.execute(f"select {','.join(keep[n])} from {n}") for n in names}
        return {n: [_timeless(list(row), root) for row in rows[n]] for n in names}


def _array(value: np.ndarray, root: Path) -> Any:
    if value.dtype.kind in "US" and value.ndim == 0:
        return _timeless(json.loads(str(value)), root)
    if value.dtype == np.uint8:
        try:
            return _timeless(json.loads(value.tobytes()), root)
        except ValueError:
            pass
    return value.tobytes().hex()


def _timeless(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        kept = {str(key): item for key, item in value.items() if str(key) not in OF_TIME}
        return {key: _timeless(item, root) for key, item in kept.items() if not key.endswith("_ms")}
    if isinstance(value, (list, tuple)):
        items = [item for item in value if not (isinstance(item, str) and item.startswith(OF_LOAD))]
        return [_timeless(item, root) for item in items]
    if hasattr(value, "numpy"):
        return value.detach().cpu().numpy().tobytes().hex()
    if isinstance(value, str):
        return value.replace(str(root), "")
    return value
