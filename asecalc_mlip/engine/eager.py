"""The model as it is, operation by operation, with automatic differentiation."""

from __future__ import annotations

from asecalc_mlip.engine.base import EngineName
from asecalc_mlip.engine.estimate import autograd_bytes, native_messages
from asecalc_mlip.engine.precision import Precision, arithmetic
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.potential import Potential, Prediction, predict

__all__ = ["EagerEngine"]


class EagerEngine:
    """Runs a potential through autograd; message passing is native on the CPU where the library was built.

    Parameters
    ----------
    potential : Potential
    precision : {"float32", "tf32", "bf16"}
        Of matrix products on a GPU.
    """

    name: EngineName = "eager"
    holds_edges = True
    keeps_buffer = False

    def __init__(self, potential: Potential, *, precision: Precision = "float32"):
        self.potential = potential
        self.precision: Precision = precision

    @staticmethod
    def why_not(potential: Potential) -> str | None:
        """None: it runs every potential on every device."""
        return None

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        with arithmetic(self.precision, graph.positions.device):
            return predict(self.potential, graph, forces=forces, stress=stress)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself."""
        return autograd_bytes(self.potential, n_atoms, n_edges, native=native_messages(self.potential))

    def describe(self) -> str:
        """Name the engine in a few words."""
        native = native_messages(self.potential)
        digits = "" if self.precision == "float32" else f", {self.precision}"
        return f"eager, {'native' if native else 'plain torch'} message passing{digits}"
