"""The protocol of engines: every way to run a model offers the same, so no caller asks which one it has."""

from __future__ import annotations

from typing import Literal, Protocol

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.potential import Potential, Prediction

__all__ = ["Compile", "Engine", "EngineName"]

EngineName = Literal["eager", "native", "compiled", "cuda-graph", "triton"]
Compile = bool | Literal["auto"] | EngineName


class Engine(Protocol):
    """One way to run one model.

    Attributes
    ----------
    potential : Potential
        The model; of several models the first.
    holds_edges : bool
        Whether it keeps numbers per edge and feature, so that large structures need much less memory in pieces.
    keeps_buffer : bool
        Whether it keeps its memory for the next call, where that then counts as free.
    """

    @property
    def potential(self) -> Potential:
        """Return the model; of several the first."""

    @property
    def holds_edges(self) -> bool:
        """Return whether numbers are kept per edge and feature."""

    @property
    def keeps_buffer(self) -> bool:
        """Return whether the memory is kept for the next call."""

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """Energy, and forces and stress where asked for, without a graph for further derivatives."""

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself."""

    def describe(self) -> str:
        """Name the engine in a few words, for people."""
