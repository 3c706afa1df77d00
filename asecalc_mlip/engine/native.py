"""PaiNN on the CPU in one native call: no operator overhead, nothing of size edges × features stored."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import PaiNN, Potential, Prediction
from asecalc_mlip.models.radial import BesselBasis

__all__ = ["NativePaiNNEngine"]

_LANES = {torch.float32: 16, torch.float64: 8}
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


class NativePaiNNEngine:
    """Energies, forces and stress of a PaiNN by kernels/painn.cpp, with the weights as they are now.

    Parameters
    ----------
    potential : Potential
        Its network is a PaiNN on the CPU; see `serves`.
    """

    def __init__(self, potential: Potential):
        network = potential.network
        assert isinstance(network, PaiNN)
        self.potential = potential
        self._dtype = potential.dtype
        self._sizes = _network_sizes(network, _LANES[self._dtype])
        self._reals = (ctypes.c_double * 2)(network.cutoff, float(network.readout[2].bias[0]))
        # Kept here, because the pointers do not keep them alive.
        self._weights = _packed(network, _LANES[self._dtype])
        self._pointers = (ctypes.c_void_p * len(self._weights))(*(w.data_ptr() for w in self._weights))
        self._buffer = torch.empty(0, dtype=self._dtype)
        library = native_library()
        assert library is not None
        self._evaluate = getattr(library, f"painn_evaluate_{_SUFFIX[self._dtype]}")
        self._workspace = library.painn_workspace
        self._workspace.restype = ctypes.c_int64
        self._alone = torch.zeros_like(potential.e0)
        self._alone = self._energies_of_lone_atoms()

    @staticmethod
    def serves(potential: Potential) -> bool:
        """Whether this engine can run a potential: PaiNN, on the CPU, with features that fill whole registers."""
        network, library = potential.network, native_library()
        return (
            isinstance(network, PaiNN)
            and next(network.parameters()).device.type == "cpu"
            and potential.dtype in _LANES
            and network.n_features % _LANES[potential.dtype] == 0
            and library is not None
            and hasattr(library, "painn_workspace")
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
        return NativePaiNNEngine, (self.potential,)

    def describe(self) -> str:
        """What runs, in a few words."""
        return f"native PaiNN, {torch.get_num_threads()} threads"

    def _run(self, graph: AtomGraph, vectors: Tensor, derivative: bool) -> tuple[Tensor, Tensor | None]:
        sizes = (ctypes.c_int64 * 8)(*self._sizes, graph.n_atoms, graph.n_edges, torch.get_num_threads())
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
        return torch.zeros_like(self._alone).index_copy(0, numbers, self._run(lone, lone.vectors(), False)[0])


def _network_sizes(network: PaiNN, lanes: int) -> tuple[int, int, int, int, int]:
    basis = network.radial.basis
    hidden = -(-network.readout[0].out_features // lanes) * lanes
    return network.n_features, len(network.mixings), basis.n_rbf + 1, int(isinstance(basis, BesselBasis)), hidden


def _packed(network: PaiNN, lanes: int) -> list[Tensor]:
    """Weights in the order of kernels/painn.cpp: each (in, out), with its transpose where the backward pass needs it."""
    width = _network_sizes(network, lanes)[4]
    first, last = network.readout[0], network.readout[2]
    pad = width - first.out_features
    r1 = torch.nn.functional.pad(first.weight, (0, 0, 0, pad))
    tensors = [
        network.embedding.weight,
        r1.t(),
        r1,
        torch.nn.functional.pad(first.bias, (0, pad)),
        torch.nn.functional.pad(last.weight[0], (0, pad)),
    ]
    filters = torch.cat([network.filters.weight, network.filters.bias[:, None]], dim=1)
    for k, (message, mixing) in enumerate(zip(network.messages, network.mixings)):
        # The vectors are zero before the first block, so their third of filters and messages is not there.
        rows = (3 if k else 2) * network.n_features
        start = 3 * network.n_features * k
        a1, a2 = message[0], message[2]
        m1, m2 = mixing.context[0], mixing.context[2]
        tensors += [filters[start : start + rows].t()]
        tensors += [a1.weight.t(), a1.weight, a1.bias, a2.weight[:rows].t(), a2.weight[:rows], a2.bias[:rows]]
        tensors += [mixing.channels.weight.t(), mixing.channels.weight]
        tensors += [m1.weight.t(), m1.weight, m1.bias, m2.weight.t(), m2.weight, m2.bias]
    return [tensor.detach().contiguous().clone() for tensor in tensors]


def _forces(graph: AtomGraph, gradient: Tensor) -> Tensor:
    forces = torch.zeros_like(graph.positions)
    # The edge vector grows with the neighbour's position and shrinks with the centre's.
    return forces.index_add_(0, graph.centers, gradient).index_add_(0, graph.neighbors, gradient, alpha=-1.0)


def _stress(graph: AtomGraph, vectors: Tensor, gradient: Tensor) -> Tensor:
    structure = graph.batch.index_select(0, graph.centers)
    virial = torch.zeros_like(graph.cell).index_add_(0, structure, vectors[:, :, None] * gradient[:, None, :])
    volume = torch.linalg.det(graph.cell).abs()
    return 0.5 * (virial + virial.transpose(1, 2)) / torch.where(volume > 0, volume, torch.nan)[:, None, None]
