"""A network through the fused kernels, under CUDA graphs where sizes allow."""

from __future__ import annotations

import importlib.util
import itertools
import os
import warnings

import numpy as np
import torch
from ase import Atoms

from asecalc_mlip.engine.base import Engine, EngineName
from asecalc_mlip.engine.cuda_graph import CudaGraphEngine
from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.edges import assemble, energies_and_gradient
from asecalc_mlip.engine.precision import Precision, arithmetic
from asecalc_mlip.graph import AtomGraph, graph_from_atoms
from asecalc_mlip.kernels.triton.blocks import Blocks
from asecalc_mlip.models.painn import PaiNN
from asecalc_mlip.models.potential import Potential, Prediction
from asecalc_mlip.models.schnet import SchNet
from asecalc_mlip.models.tensornet import TensorNet

__all__ = ["FusedEngine", "TritonEngine"]

# Whose messages the kernels pass.
_SERVED = (PaiNN, SchNet, TensorNet)
# Per edge: vectors and their gradient in float64, places, and the sums of four blocks of channels.
_EDGE_BYTES = 300


class TritonEngine:
    """Energies, forces and stress by fused message passing; one warning, and the other engines, where that fails.

    No part of this has run on a GPU yet: the kernels are tested on the CPU by Triton's interpreter, and compiled for a
    GPU there. When it is made it is therefore compared with plain torch, for a few atoms.

    Parameters
    ----------
    potential : Potential
        One for which `why_not` is None.
    precision : {"float32", "tf32", "bf16"}
        Of matrix products; messages are summed in the dtype of the model.
    """

    name: EngineName = "triton"
    keeps_buffer = False

    def __init__(self, potential: Potential, *, precision: Precision = "float32"):
        self.potential = potential
        self.precision: Precision = precision
        self._failed = False
        self._engine: Engine
        try:
            fused = FusedEngine(potential, precision=precision)
            self._engine = fused
            if potential.e0.device.type == "cuda":
                _compare(fused)
                self._engine = CudaGraphEngine(potential, precision=precision, network=fused.network, plain=fused)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler and a driver have many ways to fail
            self._give_up(error)

    @staticmethod
    def why_not(potential: Potential) -> str | None:
        """Reason why this engine cannot run a potential, or None where it can."""
        device = potential.e0.device
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it runs on a GPU, and the model is on {device}"
        if not any(type(network) in _SERVED for network in potential.network.networks) or potential.direct_forces:
            forces = " with a force head" if potential.direct_forces else ""
            return f"it has no kernel for {potential.architecture}{forces}"
        if potential.dtype not in (torch.float32, torch.float64):
            return f"it has no kernel for {potential.dtype}"
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed"
        return None

    @property
    def holds_edges(self) -> bool:
        """Whether numbers are kept per edge and feature: only by another engine in its place."""
        return self._failed

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        try:
            return self._engine(graph, forces=forces, stress=stress)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self._failed:
                raise
            self._give_up(error)
        return self._engine(graph, forces=forces, stress=stress)

    def __reduce__(self) -> tuple:
        # Captured graphs cannot be copied; a copy makes its own.
        return _remake, (self.potential, self.precision)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself."""
        if self._failed:
            return self._engine.bytes_needed(n_atoms, n_edges)
        return _bytes_needed(self.potential, n_atoms, n_edges)

    def describe(self) -> str:
        """Name the engine in a few words."""
        if self._failed:
            return self._engine.describe()
        digits = "" if self.precision == "float32" else f", {self.precision}"
        return f"fused {self.potential.architecture} (Triton){digits}"

    def _give_up(self, error: Exception) -> None:
        other = EagerEngine if CudaGraphEngine.why_not(self.potential) else CudaGraphEngine
        self._engine, self._failed = other(self.potential, precision=self.precision), True
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        text = f"the fused kernels cannot be used ({reason}). Runs instead: {self._engine.describe()}"
        warnings.warn(text, stacklevel=4)


class FusedEngine:
    """Runs the fused network as it is, without CUDA graphs.

    Parameters
    ----------
    potential : Potential
        One for which `TritonEngine.why_not` is None.
    precision : {"float32", "tf32", "bf16"}
    blocks : Blocks, optional
        Size of a program.
    """

    holds_edges = False
    keeps_buffer = False

    def __init__(self, potential: Potential, *, precision: Precision = "float32", blocks: Blocks | None = None):
        # It imports triton.
        from asecalc_mlip.engine.triton.network import fuse

        self.potential = potential
        self.precision: Precision = precision
        self.network = fuse(potential.network, blocks)
        lone = potential.lone_graph()
        with torch.no_grad(), arithmetic(precision, potential.e0.device):
            self._alone = potential.by_number(lone, self.network(lone))

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        vectors = graph.vectors().detach()
        with arithmetic(self.precision, graph.positions.device):
            if forces or stress:
                ends = (graph.centers, graph.neighbors)
                raw, gradient = energies_and_gradient(self.network, graph.numbers, vectors, *ends)
            else:
                with torch.no_grad():
                    raw, gradient = self.network(graph).double(), None
        return assemble(self.potential, self._alone, graph, vectors, raw, gradient, forces=forces, stress=stress)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself."""
        return _bytes_needed(self.potential, n_atoms, n_edges)

    def describe(self) -> str:
        """Name the engine in a few words."""
        return f"fused {self.potential.architecture}"


def _bytes_needed(potential: Potential, n_atoms: int, n_edges: int) -> float:
    kept = potential.network.numbers_kept(n_atoms, 0, native=False)
    return potential.dtype.itemsize * kept + _EDGE_BYTES * n_edges


def _compare(fused: FusedEngine) -> None:
    """Compare with plain torch for a small cluster and an atom alone.

    Raises
    ------
    RuntimeError
        Where they differ by more than rounding.
    """
    potential, rng = fused.potential, np.random.default_rng(0)
    places = 1.7 * np.array(list(itertools.product(range(2), repeat=3)), dtype=float)
    places = np.concatenate([places + rng.uniform(-0.2, 0.2, places.shape), [[30.0, 0.0, 0.0]]])
    atoms = Atoms(rng.choice(potential.elements, len(places)), places)
    graph = graph_from_atoms(atoms, potential.cutoff).to(potential.e0.device)
    ours, plain = fused(graph), EagerEngine(potential, precision=fused.precision)(graph)
    assert ours.forces is not None and plain.forces is not None
    tolerance = 0.05 if fused.precision == "bf16" else 2e-3
    error = (ours.forces - plain.forces).abs().max() / plain.forces.abs().max().clamp(min=1e-3)
    if not error < tolerance or not torch.allclose(ours.energies, plain.energies, rtol=0.0, atol=tolerance):
        raise RuntimeError(f"forces differ from those of plain torch by {float(error):.1e} of the largest")


def _remake(potential: Potential, precision: Precision) -> TritonEngine:
    return TritonEngine(potential, precision=precision)
