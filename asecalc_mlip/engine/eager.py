"""The model as it is, operation by operation, with automatic differentiation."""

from __future__ import annotations

from asecalc_mlip.engine.precision import Precision, arithmetic
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import Potential, Prediction, predict

__all__ = ["EagerEngine"]


class EagerEngine:
    """Runs a potential through autograd; message passing is native on the CPU where the library was built.

    Parameters
    ----------
    potential : Potential
    precision : {"float32", "tf32", "bf16"}
        Of matrix products on a GPU.
    """

    def __init__(self, potential: Potential, *, precision: Precision = "float32"):
        self.potential = potential
        self.precision: Precision = precision

    @staticmethod
    def why_not(potential: Potential) -> str | None:
        """None: it runs every potential on every device."""
        return None

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.Engine`."""
        with arithmetic(self.precision, graph.positions.device):
            return predict(self.potential, graph, forces=forces, stress=stress)

    def describe(self) -> str:
        """What runs, in a few words."""
        on_cpu = self.potential.e0.device.type == "cpu"
        native = on_cpu and native_library() is not None
        digits = "" if self.precision == "float32" else f", {self.precision}"
        return f"eager, {'native' if native else 'plain torch'} message passing{digits}"
