"""What a model file holds: its entries, what is allowed in them, and the checksum over all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from asecalc_mlip.errors import CheckpointError
from asecalc_mlip.file_format.archive import ALLOWED
from asecalc_mlip.models import ARCHITECTURES
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.units import UNITS

__all__ = ["ENTRIES", "check_entries", "check_plain", "check_weights", "checksum"]

# Of a weight, of the scale and of a reference energy in eV. No trained model comes near; beyond, float32 overflows.
LARGEST = {"weight": 1e6, "scale": 1e9, "energy": 1e9}

ENTRIES: dict[str, type | tuple[type, ...]] = {
    "architecture": str,
    "hyperparameters": dict,
    "state_dict": dict,
    "elements": list,
    "cutoff": (int, float),
    "scale": (int, float),
    "units": dict,
    "reference_energies": dict,
    "dtype": str,
    "card": dict,
}


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of weights and metadata, in hexadecimal digits.

    Over the ASCII form (`ascii`) of the content without `state_dict` and `checksum`; then for each entry of the
    `state_dict`, in the order of the file, over that of (name, dtype, shape) and over its bytes, little-endian.
    """
    rest = {name: value for name, value in content.items() if name not in ("state_dict", "checksum")}
    digest = hashlib.sha256(ascii(rest).encode())
    for name, value in content["state_dict"].items():
        digest.update(ascii((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.numpy())
    return digest.hexdigest()


def check_entries(content: dict[str, Any], path: Path) -> None:
    """Refuse content of the present version that lacks an entry, or has one of another kind or without sense."""
    for name, kind in ENTRIES.items():
        if name not in content:
            raise CheckpointError(f"{path} has no entry {name!r}; a model file has {', '.join(ENTRIES)}")
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise CheckpointError(f"{path}: entry {name!r} is a {type(content[name]).__name__}, expected {kind}")
    if not isinstance(content.get("reference"), (dict, type(None))):  # optional: files before 0.2 have none
        raise CheckpointError(f"{path}: entry 'reference' is a {type(content['reference']).__name__}, expected a dict")
    if content["architecture"] not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise CheckpointError(
            f"{path} has the architecture {content['architecture']!r:.80}; this version has {known}. Upgrade the "
            "package?"
        )
    if content["dtype"] not in ("float32", "float64"):
        raise CheckpointError(f"{path} has the dtype {content['dtype']!r:.80}; expected float32 or float64")
    if content["units"] != UNITS:
        raise CheckpointError(f"{path} is in the units {content['units']!s:.200}; expected {UNITS}")
    _check_energies(content, path)


def _check_energies(content: dict[str, Any], path: Path) -> None:
    scale, e0 = content["scale"], content["reference_energies"].get("values")
    if not isinstance(e0, dict) or not e0 or not _usable(scale, "scale"):
        raise CheckpointError(f"{path}: scale {scale!r:.40} or reference energies are missing or not finite")
    for symbol, energy in e0.items():
        if symbol not in chemical_symbols[1 : MAX_ATOMIC_NUMBER + 1]:
            raise CheckpointError(
                f"{path}: the model does not fit its own description: it has a reference energy of {symbol!r:.40}"
            )
        if not _usable(energy, "energy"):
            raise CheckpointError(f"{path}: the reference energy of {symbol}, {energy!r:.40}, is missing or not finite")
    if content["elements"] != list(e0):
        raise CheckpointError(f"{path}: cutoff or elements do not fit its network and reference energies")


def _usable(value: Any, kind: str) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST[kind]


def check_weights(content: Mapping[str, Any], path: Path) -> None:
    """Refuse weights of another dtype than the file declares, that are not finite, or beyond all measure."""
    for name, value in content["state_dict"].items():
        if not value.is_floating_point():
            if value.dtype != torch.int64:
                raise CheckpointError(f"{path}: weight {name!r:.120} is of {value.dtype}; {ALLOWED}")
            continue
        if str(value.dtype) != f"torch.{content['dtype']}":
            raise CheckpointError(
                f"{path}: weight {name!r:.120} is of {value.dtype}; the file declares {content['dtype']}"
            )
        largest = float(value.abs().max()) if value.numel() else 0.0
        if not math.isfinite(largest):
            raise CheckpointError(f"{path}: weight {name!r:.120} is not finite (NaN or inf); the training has diverged")
        if largest > LARGEST["weight"]:
            raise CheckpointError(
                f"{path}: weight {name!r:.120} reaches {largest:.3g}; energies of weights beyond {LARGEST['weight']:g} "
                "overflow, so the training has diverged or the file is not what it says"
            )


def check_plain(value: Any, name: str) -> None:
    """Refuse other than plain types, naming the entry."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int)):
                raise CheckpointError(f"{name} has the key {key!r}, a {type(key).__name__}; expected text")
            check_plain(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_plain(item, f"{name}[{index}]")
    elif type(value) not in (str, int, float, bool, type(None)):
        raise CheckpointError(f"{name} is a {type(value).__name__}; only plain numbers, text, lists and dicts are kept")
