"""How a model is run. `make_engine` picks; every engine turns an AtomGraph into a `Prediction`."""

from __future__ import annotations

from typing import Protocol

from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.native import NativeEngine
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Potential, Prediction

__all__ = ["EagerEngine", "Engine", "NativeEngine", "make_engine"]


class Engine(Protocol):
    """One way to run one model."""

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """Energy, and forces and stress where asked for, without a graph for further derivatives."""

    def describe(self) -> str:
        """What runs, in a few words."""


def make_engine(potential: Potential) -> Engine:
    """The fastest engine that can run a potential where it is; its weights must not change afterwards."""
    return NativeEngine(potential) if NativeEngine.serves(potential) else EagerEngine(potential)
