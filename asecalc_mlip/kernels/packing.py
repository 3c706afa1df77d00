"""Weights of a network as a struct that a native kernel reads."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from asecalc_mlip.kernels import library
from asecalc_mlip.kernels.library import SUFFIX, Graph

__all__ = ["LANES", "NativeKernel", "Packed", "Packer", "by_registers", "panels", "readout_fields", "with_bias"]

# Numbers of a dtype in the 64 bytes that the kernels treat at once.
LANES = {torch.float32: 16, torch.float64: 8}


@dataclass(frozen=True)
class NativeKernel:
    """The kernel of an architecture.

    Attributes
    ----------
    name : str
        First part of the names of its functions in the library.
    multiples : mapping
        The dtypes that it exists for, each with the number that the width of the features must be a multiple of.
    weights : type
        The ctypes.Structure that `Network` in its source is.
    """

    name: str
    multiples: Mapping[torch.dtype, int]
    weights: type[ctypes.Structure]

    def missing(self) -> str | None:
        """Reason why the library does not have the kernel, or None where it has."""
        opened = library.native_library()
        if opened is None:
            return "the native library was not built; with a C++ compiler, install the package again"
        size = getattr(opened, f"{self.name}_network_bytes", None)
        if size is None or int(size()) != ctypes.sizeof(self.weights):
            return f"the native library has no kernel {self.name} of this version; install the package again"
        return None

    def functions(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """Return the functions `workspace` and `evaluate` of the library for a dtype."""
        opened = library.native_library()
        workspace = getattr(opened, f"{self.name}_workspace")
        workspace.restype = ctypes.c_int64
        workspace.argtypes = [ctypes.POINTER(self.weights), ctypes.POINTER(Graph)]
        evaluate = getattr(opened, f"{self.name}_evaluate_{SUFFIX[dtype]}")
        evaluate.restype = None
        evaluate.argtypes = [*workspace.argtypes, *[ctypes.c_void_p] * 3]
        return workspace, evaluate


@dataclass(frozen=True)
class Packed:
    """A network for its kernel.

    Attributes
    ----------
    weights : ctypes.Structure
        Sizes, and addresses of the tensors.
    tensors : list of Tensor
        Contiguous copies, which live as long as this does; addresses alone would not keep them.
    """

    weights: ctypes.Structure
    tensors: list[Tensor]


class Packer:
    """Makes structs of tensors and keeps the tensors alive."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def struct(self, cls: type[ctypes.Structure], **values: Any) -> ctypes.Structure:
        """Make a struct from a value for each of its fields: a number, a tensor, or for the last a list of structs."""
        names = [field[0] for field in cls._fields_]
        if set(names) != set(values):
            raise TypeError(f"{cls.__name__} has the fields {names}, and got {sorted(values)}")
        return cls(**{name: self._field(value) for name, value in values.items()})

    def packed(self, cls: type[ctypes.Structure], **values: Any) -> Packed:
        """Return the struct of the whole network; see `struct`."""
        return Packed(self.struct(cls, **values), self.tensors)

    def _field(self, value: Any) -> Any:
        if isinstance(value, list):
            return (type(value[0]) * len(value))(*value)
        if not isinstance(value, Tensor):
            return value
        self.tensors.append(value.detach().contiguous().clone())
        return self.tensors[-1].data_ptr()


def by_registers(rows: Tensor, n_features: int, lanes: int) -> Tensor:
    """(n, P F) as (F / lanes, n, P, lanes), so that numbers that are used together lie together."""
    return rows.reshape(len(rows), -1, n_features // lanes, lanes).permute(2, 0, 1, 3)


def with_bias(name: str, layer: nn.Module) -> dict[str, Tensor]:
    """Fields of a dense layer: as (in, out), its transpose (t) and its bias (b)."""
    assert isinstance(layer, nn.Linear)
    return {name: layer.weight.t(), f"{name}t": layer.weight, f"{name}b": layer.bias}


def panels(weights: Tensor, lanes: int) -> Tensor:
    """Weights (in, out) as panels.h reads them: columns in panels of two registers, one panel after another."""
    return torch.cat([panel.flatten() for panel in weights.split(2 * lanes, dim=1)])


def readout_fields(readout: nn.Sequential) -> dict[str, Any]:
    """Fields of two dense layers that end in one number, the hidden ones padded to whole registers."""
    first, last = readout[0], readout[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    missing = -first.out_features % LANES[first.weight.dtype]
    r1 = pad(first.weight, (0, 0, 0, missing))
    return {
        "hidden": first.out_features + missing,
        "r1": r1.t(),
        "r1t": r1,
        "r1b": pad(first.bias, (0, missing)),
        "r2": pad(last.weight[0], (0, missing)),
        "r2b": float(last.bias[0].detach()),
    }
