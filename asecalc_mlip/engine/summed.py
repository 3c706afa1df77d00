"""A sum of potentials, each part in the engine that is best for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asecalc_mlip.engine.native import NativeEngine
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Potential, Prediction, parts_of
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.zbl import ZBL

__all__ = ["SumEngine"]


class SumEngine:
    """Adds what the engines of the parts say, each with the edges within its own cutoff.

    Parameters
    ----------
    potential : Potential
        One for which `pays` is true.
    make : callable
        Potential → engine.
    """

    def __init__(self, potential: Potential, make: Callable):
        self.potential = potential
        parts = parts_of(potential)
        self.engines = [make(part) for part in parts]
        self._cutoffs = [part.cutoff for part in parts]
        # To pass over the far edges costs ZBL less than to drop them does.
        self._trims = [not isinstance(part.network, ZBL) for part in parts]

    @staticmethod
    def pays(potential: Potential) -> bool:
        """Whether a potential is a sum of which a part runs natively, so that one engine for all would be slower."""
        return isinstance(potential.network, Sum) and any(map(NativeEngine.serves, parts_of(potential)))

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.Engine`."""
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

    def shares(self) -> list[float]:
        """Of the edges of the longest cutoff, those that each part has; about, for atoms spread evenly."""
        longest = max(self._cutoffs)
        return [(cutoff / longest) ** 3 for cutoff in self._cutoffs]

    def describe(self) -> str:
        """What runs, in a few words."""
        return " + ".join(engine.describe() for engine in self.engines)


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum(0)
