"""The whole network on the CPU in one native call: no operator overhead, nothing of edges × features stored."""

from __future__ import annotations

import ctypes
import threading

import torch
from torch import Tensor

from asecalc_mlip.engine.base import EngineName
from asecalc_mlip.engine.edges import assemble
from asecalc_mlip.engine.estimate import EDGE_BYTES_NATIVE
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels.library import Graph
from asecalc_mlip.models.potential import Potential, Prediction
from asecalc_mlip.units import threads_text

__all__ = ["NativeEngine"]

# Numbers by which a buffer exceeds what is needed at most.
_MARGIN = 2**20


class NativeEngine:
    """Energies, forces and stress by the kernel of an architecture, with the weights as they are now.

    Parameters
    ----------
    potential : Potential
        One for which `serves` is true.
    """

    name: EngineName = "native"
    holds_edges = False
    keeps_buffer = True

    def __init__(self, potential: Potential):
        self.potential = potential
        self._dtype = potential.dtype
        kernel = potential.network.traits.native
        assert kernel is not None
        # Kept here, because the addresses in it do not keep the tensors alive.
        self._packed = potential.network.packed()
        self._weights = ctypes.byref(self._packed.weights)
        self._buffer = torch.empty(0, dtype=self._dtype)
        # ctypes lets other threads run, and there is one buffer.
        self._lock = threading.Lock()
        self._workspace, self._evaluate = kernel.functions(self._dtype)
        self._alone = self._energies_of_lone_atoms()

    @staticmethod
    def serves(potential: Potential) -> bool:
        """Whether this engine can run a potential."""
        return NativeEngine.why_not(potential) is None

    @staticmethod
    def why_not(potential: Potential) -> str | None:
        """Reason why this engine cannot run a potential, or None where it can."""
        device, kernel = potential.e0.device, potential.network.traits.native
        if device.type != "cpu":
            return f"it runs on the CPU, and the model is on {device}"
        if kernel is None or potential.dtype not in kernel.multiples or potential.direct_forces:
            return f"it has no kernel for {_kind(potential)}"
        multiple = kernel.multiples[potential.dtype]
        if potential.network.n_features % multiple:
            return f"it needs a number of features that is a multiple of {multiple}"
        return kernel.missing()

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        vectors = graph.fixed_vectors()
        raw, gradient = self._run(graph, vectors, forces or stress)
        return assemble(self.potential, self._alone, graph, vectors, raw, gradient, forces=forces, stress=stress)

    def __reduce__(self) -> tuple:
        # Addresses mean nothing elsewhere; a copy packs the weights anew.
        return NativeEngine, (self.potential,)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself, most of it the buffer, which is kept for the next."""
        sizes = Graph(atoms=n_atoms, edges=n_edges, threads=torch.get_num_threads())
        buffer = self._workspace(self._weights, ctypes.byref(sizes)) * self._dtype.itemsize
        return float(buffer) + EDGE_BYTES_NATIVE * n_edges

    def describe(self) -> str:
        """Name the engine in a few words."""
        return f"native {self.potential.architecture}, {threads_text(torch.get_num_threads())}"

    def _run(self, graph: AtomGraph, vectors: Tensor, derivative: bool) -> tuple[Tensor, Tensor | None]:
        rows = torch.searchsorted(graph.centers, torch.arange(graph.n_atoms + 1))
        energies = torch.empty(graph.n_atoms, dtype=torch.float64)
        gradient = torch.empty(graph.n_edges, 3, dtype=torch.float64) if derivative else None
        vectors = vectors.contiguous()
        given = Graph(
            atoms=graph.n_atoms,
            edges=graph.n_edges,
            threads=torch.get_num_threads(),
            rows=rows.data_ptr(),
            neighbors=graph.neighbors.data_ptr(),
            numbers=graph.numbers.data_ptr(),
            vectors=vectors.data_ptr(),
        )
        with self._lock:
            needed = self._workspace(self._weights, ctypes.byref(given))
            if self._buffer.numel() < needed:
                # The old one goes first. A little more than needed, so that the changing edges of a dynamics do not
                # make a new one every few steps; those of many atoms change by a smaller share.
                self._buffer = torch.empty(0, dtype=self._dtype)
                self._buffer = torch.empty(needed + min(needed // 8, _MARGIN), dtype=self._dtype)
            outputs = (t if t is None else t.data_ptr() for t in (self._buffer, energies, gradient))
            self._evaluate(self._weights, ctypes.byref(given), *outputs)
        return energies, gradient

    def _energies_of_lone_atoms(self) -> Tensor:
        lone = self.potential.lone_graph()
        # A clear error for a reference energy of an element without parameters.
        self.potential.network.check_numbers(lone.numbers)
        return self.potential.by_number(lone, self._run(lone, lone.vectors(), False)[0])


def _kind(potential: Potential) -> str:
    forces = " with a force head" if potential.direct_forces else ""
    return f"{potential.architecture} in {str(potential.dtype).removeprefix('torch.')}{forces}"
