"""A sum of potentials, each part in the engine that is best for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asecalc_mlip.engine.base import Engine
from asecalc_mlip.engine.native import NativeEngine
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.combine import parts_of
from asecalc_mlip.models.potential import Potential, Prediction

__all__ = ["SumEngine"]


class SumEngine:
    """Adds the predictions of the engines of the parts, each with the edges within its own cutoff.

    Parameters
    ----------
    potential : Potential
        One for which `pays` is true.
    make : callable
        Potential → engine.
    """

    def __init__(self, potential: Potential, make: Callable[[Potential], Engine]):
        self.potential = potential
        parts = parts_of(potential)
        self.engines = [make(part) for part in parts]
        self._cutoffs = [part.cutoff for part in parts]
        self._trims = [part.network.traits.trims_edges for part in parts]

    @staticmethod
    def pays(potential: Potential) -> bool:
        """Whether a potential is a sum of which a part runs natively, so that one engine for all would be slower."""
        parts = parts_of(potential)
        return len(parts) > 1 and any(map(NativeEngine.serves, parts))

    @property
    def holds_edges(self) -> bool:
        """Whether a part does."""
        return any(engine.holds_edges for engine in self.engines)

    @property
    def keeps_buffer(self) -> bool:
        """Whether all parts do."""
        return all(engine.keeps_buffer for engine in self.engines)

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        longest = max(self._cutoffs)
        trims = zip(self._cutoffs, self._trims, strict=True)
        near = [graph.within(cutoff) if trim and cutoff < longest else graph for cutoff, trim in trims]
        found = [engine(part, forces=forces, stress=stress) for engine, part in zip(self.engines, near, strict=True)]
        return Prediction(
            energy=_sum([one.energy for one in found]),
            energies=_sum([one.energies for one in found]),
            forces=_sum([one.forces for one in found if one.forces is not None]) if forces else None,
            stress=_sum([one.stress for one in found if one.stress is not None]) if stress else None,
        )

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself, about, as if atoms were spread evenly."""
        longest = max(self._cutoffs)
        pairs = zip(self.engines, self._cutoffs, strict=True)
        return sum(engine.bytes_needed(n_atoms, int((cutoff / longest) ** 3 * n_edges)) for engine, cutoff in pairs)

    def describe(self) -> str:
        """Name the engine in a few words."""
        return " + ".join(engine.describe() for engine in self.engines)


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(0)
