"""How a model is run. Every engine turns an AtomGraph into a `Prediction`."""

from __future__ import annotations

from typing import Protocol

from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Prediction

__all__ = ["EagerEngine", "Engine"]


class Engine(Protocol):
    """One way to run one model."""

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """Energy, and forces and stress where asked for, without a graph for further derivatives."""

    def describe(self) -> str:
        """What runs, in a few words."""
