"""The native library: found, checked, opened; the other side of asecalc_kernels.h."""

from __future__ import annotations

import ctypes
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["ABI", "SUFFIX", "Graph", "integers", "native_library", "pointers", "reals"]

# Of asecalc_kernels.h; a library with another number is not used.
ABI = 6
# Of the names of functions that exist for both dtypes.
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
# Each with a forward, a first and a second derivative: those of message.cpp, tensor_message.cpp, tensor_knots.cpp and
# tensor_atoms.cpp.
_OPERATIONS = [
    *("painn", "painn_first", "schnet"),
    *("tensor", "spread", "knots", "spread_knots", "squares"),
    *("scale", "scale_bound", "combine", "combine_turned", "update", "update_bound"),
]

# Those of tensor_mix.cpp, and how many integers each takes.
_MIXING = {"tensor_mix": 5, "tensor_outer": 4}


def integers(*names: str) -> list[tuple[str, Any]]:
    """Fields of a ctypes.Structure that hold an index_t each."""
    return [(name, ctypes.c_int64) for name in names]


def reals(*names: str) -> list[tuple[str, Any]]:
    """Fields of a ctypes.Structure that hold a double each."""
    return [(name, ctypes.c_double) for name in names]


def pointers(*names: str) -> list[tuple[str, Any]]:
    """Fields of a ctypes.Structure that hold the address of an array each, of whatever dtype."""
    return [(name, ctypes.c_void_p) for name in names]


class Graph(ctypes.Structure):
    """`Graph` of asecalc_kernels.h."""

    _fields_ = [
        *integers("atoms", "edges", "threads"),
        *pointers("rows", "neighbors", "numbers", "vectors"),
        # Last and zero unless given, so that it did not need a new ABI.
        *integers("ghosts"),
    ]


@lru_cache(maxsize=1)
def native_library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where they were not built, do not load, or are of another version.

    Warns
    -----
    UserWarning
        Once, for a library of another version, as one is after an update of the sources alone.
    """
    return _find(Path(__file__).parent)


def _find(folder: Path) -> ctypes.CDLL | None:
    stale = []
    # The second name is that of libraries from before they had a number.
    for path in [*sorted(folder.glob("_native*.*")), *sorted(folder.glob("_message*.*"))]:
        if path.suffix not in (".so", ".pyd", ".dylib"):
            continue
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        found = _abi(library)
        if found == ABI:
            return _declared(library)
        stale.append(f"{path.name} has {'no version' if found is None else f'version {found}'}")
    if stale:
        warnings.warn(
            f"the compiled kernels are not of this version of asecalc-mlip: {', '.join(stale)}, the package needs "
            f"version {ABI}. Models run on plain torch, several times slower. Build the kernels again: make, or in the "
            "folder of setup.py: pip install -e .",
            stacklevel=2,
        )
    return None


def _abi(library: ctypes.CDLL) -> int | None:
    if not hasattr(library, "asecalc_abi"):
        return None
    library.asecalc_abi.restype = ctypes.c_int64
    library.asecalc_abi.argtypes = []
    return int(library.asecalc_abi())


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """With the types of the arguments of the operations, without which ctypes would guess them."""
    for name in _OPERATIONS:
        for order in ("forward", "backward", "second"):
            for suffix in SUFFIX.values():
                function = getattr(library, f"{name}_{order}_{suffix}")
                function.restype = None
                function.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_void_p] * 5
    for suffix in SUFFIX.values():
        for name, counts in _MIXING.items():
            function = getattr(library, f"{name}_{suffix}")
            function.restype = None
            function.argtypes = [ctypes.c_int64] * counts + [ctypes.c_void_p] * 3
    return library
