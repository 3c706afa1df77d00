r"""A model as a plain binary file that the pair style of LAMMPS reads without Python.

The networks stand in it as their kernels want them: the struct `Network` byte by byte, the tensors that its addresses
point to one after another, and a list that says which address belongs to which tensor. So the reader, lammps/pair/
exported.h, knows no architecture, and a new kernel needs no change in it.

    ASECALC\n · version · ABI of the kernels · bytes of the payload · FNV-1a of the payload · payload

For a .pt the pair style asks `asecalc lammps export silica.pt` for the name of the file, and that makes it if need be.
"""

from __future__ import annotations

import copy
import ctypes
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asecalc_mlip._version import __version__
from asecalc_mlip.digests import sha256_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import cache_folder, check_owner, write_bytes
from asecalc_mlip.units import DTYPES, Dtype

if TYPE_CHECKING:
    from asecalc_mlip.kernels.packing import Packed
    from asecalc_mlip.models import Potential

__all__ = ["EXPORT_VERSION", "MAGIC", "SUFFIX", "exported", "plain_bytes", "write_plain"]

MAGIC = b"ASECALC\n"
EXPORT_VERSION = 2
SUFFIX = ".asecalc"
_ALIGNED = 64
_HEADER = struct.Struct("<8sqqqQ")


def exported(model: str | Path, dtype: Dtype = "float32") -> Path:
    """Return the plain file of a model in the cache, made if it is not there.

    Parameters
    ----------
    model : path
        A .pt file, or the name of a shipped one.
    dtype : {"float32", "float64"}
        Of the arithmetic.

    Raises
    ------
    InputError
        As `write_plain`.
    """
    from asecalc_mlip import zoo
    from asecalc_mlip.kernels.library import ABI

    _check_dtype(dtype)
    path, folder = zoo.find(model), cache_folder()
    if not path.is_file():
        raise InputError(f"{model}: no such file, and no shipped model of this name")
    # By content, so that a file that was replaced is exported again.
    digest = sha256_of(path)[:24]
    target = folder / f"lammps-{digest}-{dtype}-{EXPORT_VERSION}.{ABI}-{__version__}{SUFFIX}"
    if folder.is_dir():
        check_owner(folder)
    if not target.is_file():
        write_plain(model, target, dtype=dtype)
    return target


def write_plain(model: str | Path, output: str | Path, *, dtype: Dtype = "float32") -> str:
    """Write a model for the pair style; returns what it is, in a line.

    Raises
    ------
    InputError
        For a model that the pair style cannot run, and a file that cannot be written.
    """
    import torch

    from asecalc_mlip.analysis.references import reference_from_dict
    from asecalc_mlip.checkpoint import load
    from asecalc_mlip.models import architecture_text

    _check_dtype(dtype)
    loaded = load(model)
    closest = reference_from_dict(loaded.reference).closest if loaded.reference else {}
    potential = copy.deepcopy(loaded.potential).to(dtype=getattr(torch, dtype))
    write_bytes(output, plain_bytes(potential, name=loaded.path.name, digest=sha256_of(loaded.path), closest=closest))
    return f"{output}: {architecture_text(potential)}, {dtype}, cutoff {potential.cutoff:g} Å"


def plain_bytes(
    potential: Potential, *, name: str, digest: str = "", closest: Mapping[str, float] | None = None
) -> bytes:
    """Return the content of the plain file of a potential, in the dtype that it has.

    Parameters
    ----------
    potential : Potential
    name, digest : str
        Of the model file, for messages.
    closest : mapping of str to float, optional
        Closest approach of each pair of elements in the training data, Å: {"O-Si": 1.46}.

    Raises
    ------
    InputError
        For a part without a native kernel, which LAMMPS can run through the bridge only.
    """
    from ase.data import chemical_symbols, covalent_radii

    from asecalc_mlip.analysis.limits import pair_name
    from asecalc_mlip.engine.native import NativeEngine
    from asecalc_mlip.kernels.library import ABI
    from asecalc_mlip.models import architecture_text, parts_of

    parts = parts_of(potential)
    for part in parts:
        reason = NativeEngine.why_not(part) or _without_steps(part)
        if reason is not None:
            raise InputError(
                f"{name}: pair_style asecalc cannot run {part.architecture}: {reason}. On one process, any model runs "
                f"by a fix external: asecalc lammps {name} SCRIPT"
            )
    out = _Writer()
    for text in (name, digest, str(potential.dtype).removeprefix("torch."), architecture_text(potential), __version__):
        out.text(text)
    out.integers(len(potential.elements), *potential.elements)
    for number in potential.elements:
        out.text(chemical_symbols[number])
        out.reals(covalent_radii[number])
    known = dict(closest or {})
    for one in potential.elements:
        out.reals(*(known.get(pair_name(one, other), 0.0) for other in potential.elements))
    out.integers(len(parts))
    for part in parts:
        kernel = part.network.traits.native
        assert kernel is not None
        out.text(kernel.name)
        out.integers(int(part.network.traits.trims_edges))
        out.reals(part.cutoff, part.scale, *(part.reference_energies[z] for z in potential.elements))
        out.network(part.network.packed())
    payload = bytes(out.content)
    return _HEADER.pack(MAGIC, EXPORT_VERSION, ABI, len(payload), _fnv1a(payload)) + payload


def _without_steps(part: Potential) -> str | None:
    from asecalc_mlip.kernels.library import native_library

    kernel = part.network.traits.native
    assert kernel is not None
    return None if hasattr(native_library(), f"{kernel.name}_steps") else "its kernel does not run layer by layer"


class _Writer:
    """The payload: little-endian, everything on a multiple of eight bytes, tensors on a multiple of 64."""

    def __init__(self) -> None:
        self.content = bytearray()

    def text(self, value: str) -> None:
        encoded = value.encode()
        self.integers(len(encoded))
        self.raw(encoded, 8)

    def integers(self, *values: int) -> None:
        self.content += struct.pack(f"<{len(values)}q", *values)

    def reals(self, *values: float) -> None:
        self.content += struct.pack(f"<{len(values)}d", *values)

    def raw(self, data: bytes, alignment: int) -> None:
        self.content += data
        self.content += bytes(-len(self.content) % alignment)

    def network(self, packed: Packed) -> None:
        """Tensors, then the struct with the list of its addresses, then likewise the structs of its blocks."""
        self.integers(len(packed.tensors))
        index = {}
        for k, tensor in enumerate(packed.tensors):
            values = tensor.detach().numpy().reshape(-1)
            index[tensor.data_ptr()] = k
            self.integers(values.nbytes)
            self.content += bytes(-len(self.content) % _ALIGNED)
            self.raw(values.tobytes(), _ALIGNED)
        images = [_image([packed.weights], index)]
        for block, count in _nested(packed.weights):
            images.append(_image([block[k] for k in range(count)], index))
        self.integers(len(images))
        for image, addresses in images:
            self.integers(len(image))
            self.raw(image, 8)
            self.integers(len(addresses), *(number for pair in addresses for number in pair))


def _image(structs: list[ctypes.Structure], index: dict[int, int]) -> tuple[bytes, list[tuple[int, int]]]:
    """Bytes of structs without their addresses, and pairs: where one stands, and the tensor, or −1 for the blocks."""
    content, addresses = bytearray(), []
    for one in structs:
        start = len(content)
        content += bytes(one)
        for name, kind in ((field[0], field[1]) for field in one._fields_):
            at = start + getattr(type(one), name).offset
            if kind is ctypes.c_void_p:
                value = getattr(one, name)
                content[at : at + 8] = bytes(8)
                # An array of no numbers has no address.
                if value is not None and value in index:
                    addresses.append((at, index[value]))
            elif not issubclass(kind, ctypes.c_int64 | ctypes.c_double):
                content[at : at + 8] = bytes(8)
                addresses.append((at, -1))
    return bytes(content), addresses


def _nested(weights: ctypes.Structure) -> Iterator[tuple[Any, int]]:
    """Array of the structs of the blocks, of which a network has `blocks`."""
    for name in (field[0] for field in weights._fields_):
        if name == "block":
            yield weights.block, weights.blocks


def _fnv1a(data: bytes) -> int:
    """64 bits that change with every flipped one; over words of eight bytes, as Python would take a second by bytes."""
    value, mask = 0xCBF29CE484222325, (1 << 64) - 1
    data += bytes(-len(data) % 8)
    for (word,) in struct.iter_unpack("<Q", data):
        value = ((value ^ word) * 0x100000001B3) & mask
    return value


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; allowed: 'float32', 'float64'")
