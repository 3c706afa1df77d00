"""PaiNN, SchNet, EAM, ZBL on the CPU in one native call: no operator overhead, nothing of edges × features stored."""

from __future__ import annotations

import ctypes
import threading

import torch
from torch import Tensor

from asecalc_mlip.engine.edges import assemble, energies_by_number, lone_atoms
from asecalc_mlip.engine.packing import LANES, PACKERS
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import EAM, Potential, Prediction

__all__ = ["NativeEngine"]

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


class NativeEngine:
    """Energies, forces and stress by kernels/painn.cpp, schnet.cpp or eam.cpp, with the weights as they are now.

    Parameters
    ----------
    potential : Potential
        One for which `serves` is true.
    """

    def __init__(self, potential: Potential):
        self.potential = potential
        self._dtype = potential.dtype
        # Kept here, because the pointers do not keep the tensors alive.
        self._packed = PACKERS[type(potential.network), self._dtype](potential.network)
        self._reals = (ctypes.c_double * 2)(*self._packed.reals)
        weights = self._packed.weights
        self._pointers = (ctypes.c_void_p * len(weights))(*(tensor.data_ptr() for tensor in weights))
        self._buffer = torch.empty(0, dtype=self._dtype)
        # ctypes lets other threads run, and there is one buffer.
        self._lock = threading.Lock()
        library = native_library()
        self._evaluate = getattr(library, f"{self._packed.kernel}_evaluate_{_SUFFIX[self._dtype]}")
        self._workspace = getattr(library, f"{self._packed.kernel}_workspace")
        self._workspace.restype = ctypes.c_int64
        self._alone = self._energies_of_lone_atoms()

    @staticmethod
    def serves(potential: Potential) -> bool:
        """Whether this engine can run a potential."""
        return NativeEngine.why_not(potential) is None

    @staticmethod
    def why_not(potential: Potential) -> str | None:
        """What keeps this engine from running a potential, or None where it can."""
        device, lanes = potential.e0.device, LANES.get(potential.dtype, 1)
        if device.type != "cpu":
            return f"it runs on the CPU, and the model is on {device}"
        if (type(potential.network), potential.dtype) not in PACKERS or potential.direct_forces:
            return f"it has no kernel for {_kind(potential)}"
        if potential.hyperparameters.get("n_features", 128) % lanes:
            return f"it needs a number of features that is a multiple of {lanes}"
        kernel = {"zbl": "eam"}.get(potential.architecture, potential.architecture)
        if not hasattr(native_library(), f"{kernel}_workspace"):
            return "the native library was not built; with a C++ compiler, install the package again"
        return None

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.Engine`."""
        vectors = graph.vectors()
        raw, gradient = self._run(graph, vectors, forces or stress)
        return assemble(self.potential, self._alone, graph, vectors, raw, gradient, forces=forces, stress=stress)

    def __reduce__(self) -> tuple:
        # Pointers mean nothing elsewhere; a copy packs the weights anew.
        return NativeEngine, (self.potential,)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> int:
        """Size of the buffer that a graph takes, which is kept for the next."""
        sizes = (ctypes.c_int64 * 8)(*self._packed.sizes, n_atoms, n_edges, torch.get_num_threads())
        return int(self._workspace(sizes)) * self._dtype.itemsize

    def describe(self) -> str:
        """What runs, in a few words."""
        return f"native {self.potential.architecture}, {torch.get_num_threads()} threads"

    def _run(self, graph: AtomGraph, vectors: Tensor, derivative: bool) -> tuple[Tensor, Tensor | None]:
        sizes = (ctypes.c_int64 * 8)(*self._packed.sizes, graph.n_atoms, graph.n_edges, torch.get_num_threads())
        needed = self._workspace(sizes)
        rows = torch.searchsorted(graph.centers, torch.arange(graph.n_atoms + 1))
        energies = torch.empty(graph.n_atoms, dtype=torch.float64)
        gradient = torch.empty(graph.n_edges, 3, dtype=torch.float64) if derivative else None
        vectors = vectors.contiguous()
        with self._lock:
            if self._buffer.numel() < needed:
                # A little more, so that the changing edges of a dynamics do not make a new one every few steps.
                self._buffer = torch.empty(needed + needed // 8, dtype=self._dtype)
            tensors = (rows, graph.neighbors, graph.numbers, vectors, self._buffer, energies, gradient)
            pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors]
            self._evaluate(sizes, self._reals, self._pointers, *pointers)
        return energies, gradient

    def _energies_of_lone_atoms(self) -> Tensor:
        lone, network = lone_atoms(self.potential), self.potential.network
        if isinstance(network, EAM):
            network.species_of(lone.numbers)  # a clear error for a reference energy without parameters
        return energies_by_number(self.potential, lone, self._run(lone, lone.vectors(), False)[0])


def _kind(potential: Potential) -> str:
    forces = " with direct forces" if potential.direct_forces else ""
    return f"{potential.architecture} in {str(potential.dtype).removeprefix('torch.')}{forces}"
