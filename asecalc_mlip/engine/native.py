"""PaiNN and SchNet on the CPU in one native call: no operator overhead, nothing of size edges × features stored."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from asecalc_mlip.engine.packing import LANES, PACKERS
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import Potential, Prediction

__all__ = ["NativeEngine"]

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


class NativeEngine:
    """Energies, forces and stress by kernels/painn.cpp or schnet.cpp, with the weights as they are now.

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
        library = native_library()
        self._evaluate = getattr(library, f"{self._packed.kernel}_evaluate_{_SUFFIX[self._dtype]}")
        self._workspace = getattr(library, f"{self._packed.kernel}_workspace")
        self._workspace.restype = ctypes.c_int64
        self._alone = self._energies_of_lone_atoms()

    @staticmethod
    def serves(potential: Potential) -> bool:
        """Whether this engine can run a potential: its network, on the CPU, with features that fill whole registers."""
        weights = next(potential.network.parameters())
        return (
            (type(potential.network), weights.dtype) in PACKERS
            and not potential.direct_forces
            and weights.device.type == "cpu"
            and potential.hyperparameters.get("n_features", 128) % LANES[weights.dtype] == 0
            and hasattr(native_library(), f"{potential.architecture}_workspace")
        )

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.Engine`."""
        vectors = graph.vectors()
        raw, gradient = self._run(graph, vectors, forces or stress)
        alone = self._alone.index_select(0, graph.numbers)
        energies = (raw - alone) * self.potential.scale + self.potential.e0.index_select(0, graph.numbers)
        if gradient is None:
            return Prediction(graph.sum_over_atoms(energies), energies)
        gradient *= self.potential.scale
        return Prediction(
            energy=graph.sum_over_atoms(energies),
            energies=energies,
            forces=_forces(graph, gradient) if forces else None,
            stress=_stress(graph, vectors, gradient) if stress else None,
        )

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
        if self._buffer.numel() < needed:
            # A little more than needed, so that the changing edges of a dynamics do not make a new one every few steps.
            self._buffer = torch.empty(needed + needed // 8, dtype=self._dtype)
        rows = torch.searchsorted(graph.centers, torch.arange(graph.n_atoms + 1))
        energies = torch.empty(graph.n_atoms, dtype=torch.float64)
        gradient = torch.empty(graph.n_edges, 3, dtype=torch.float64) if derivative else None
        tensors = (rows, graph.neighbors, graph.numbers, vectors.contiguous(), self._buffer, energies, gradient)
        pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors]
        self._evaluate(sizes, self._reals, self._pointers, *pointers)
        return energies, gradient

    def _energies_of_lone_atoms(self) -> Tensor:
        numbers = torch.tensor(self.potential.elements)
        none = torch.zeros(0, dtype=torch.int64)
        positions, cell = torch.zeros(len(numbers), 3).double(), torch.zeros(len(numbers), 3, 3).double()
        lone = AtomGraph(numbers, positions, torch.arange(len(numbers)), none, none, cell)
        energies, _ = self._run(lone, lone.vectors(), False)
        return torch.zeros_like(self.potential.e0).index_copy(0, numbers, energies)


def _forces(graph: AtomGraph, gradient: Tensor) -> Tensor:
    forces = torch.zeros_like(graph.positions)
    # The edge vector grows with the neighbour's position and shrinks with the centre's.
    return forces.index_add_(0, graph.centers, gradient).index_add_(0, graph.neighbors, gradient, alpha=-1.0)


def _stress(graph: AtomGraph, vectors: Tensor, gradient: Tensor) -> Tensor:
    structure = graph.batch.index_select(0, graph.centers)
    virial = torch.zeros_like(graph.cell).index_add_(0, structure, vectors[:, :, None] * gradient[:, None, :])
    volume = torch.linalg.det(graph.cell).abs()
    return 0.5 * (virial + virial.transpose(1, 2)) / torch.where(volume > 0, volume, torch.nan)[:, None, None]
