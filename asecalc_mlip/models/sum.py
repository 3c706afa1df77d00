r"""A sum of potentials, for delta-learning and for priors: a network learns what another potential leaves.

    E_i = Σ_p s_p · network_p(i)        the first part is what learns, the others are what it adds to

Each part has its own cutoff and its own weights. One neighbour list, of the longest cutoff, serves all of them; a part
of a shorter one goes over the edges within its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph, EdgeGraph
from asecalc_mlip.models.layers import at_once

__all__ = ["Sum"]

_KEYS = {"architecture", "hyperparameters", "scale"}


class Sum(nn.Module):
    """Several networks whose energies add up; returns one energy per atom.

    Parameters
    ----------
    parts : sequence of mapping
        Of each part `architecture`, `hyperparameters` and `scale` (eV, 1 if not given), as `build_network` takes them;
        "zbl" is allowed too, for any but the first.

    Raises
    ------
    InputError
        For fewer than two parts, and parts that cannot be summed.
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]]):
        super().__init__()
        _check(parts)
        # Late, because the table of architectures has this one in it.
        from asecalc_mlip.models import build_network

        self.parts = nn.ModuleList(build_network(p["architecture"], p.get("hyperparameters", {})) for p in parts)
        self.scales = [float(p.get("scale", 1.0)) for p in parts]
        self.cutoffs: list[float] = [float(getattr(part, "cutoff")) for part in self.parts]  # noqa: B009
        if any(getattr(part, "direct_forces", False) for part in self.parts):
            raise InputError(
                "a part of a sum has direct forces, to which the gradient of another part's energy cannot be added; "
                "use conservative parts (direct_forces: false)"
            )
        self.over_edges = at_once

    @property
    def cutoff(self) -> float:
        """Å; the longest of the parts."""
        return max(self.cutoffs)

    @property
    def over_edges(self) -> Callable:
        """How the parts pass their messages; see `asecalc_mlip.models.layers.at_once`."""
        return self._over_edges

    @over_edges.setter
    def over_edges(self, function: Callable) -> None:
        self._over_edges = function
        for part in self.parts:
            part.over_edges = function  # type: ignore[assignment]

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom, (N,) in eV, in the dtype of the weights."""
        energies = []
        for scale, part, near in zip(self.scales, self.parts, self._near(graph), strict=True):
            fixed = self.training and not any(p.requires_grad for p in part.parameters())
            energies.append(scale * (_linearised(part, near) if fixed else part(near)))
        return torch.stack(energies).sum(0)

    def _near(self, graph: AtomGraph) -> list[AtomGraph]:
        """The graph for each part. Every part is zero beyond its cutoff: to drop those edges saves time only.

        It is not done for graphs of tracers and captured programs, whose sizes may not depend on values.
        """
        if type(graph) is not AtomGraph:
            return [graph] * len(self.cutoffs)
        return [graph.within(c) if c < self.cutoff else graph for c in self.cutoffs]


def _linearised(part: nn.Module, graph: AtomGraph) -> Tensor:
    """Energies of a part that is not trained, to first order in the edge vectors v about where they are, v0.

    E = E(v0) + Σ ∂E/∂v · (v − v0) has the energies, forces and stress of the part. Those are constants to the weights
    of the other parts, so no second derivative of this one is ever needed, nor then computed, in training.
    """
    vectors = graph.vectors()
    with torch.enable_grad():
        at = vectors.detach().requires_grad_()
        nothing: Any = None
        edges = EdgeGraph(
            graph.numbers,
            nothing,
            graph.batch,
            centers=graph.centers,
            neighbors=graph.neighbors,
            cell=nothing,
            edge_vectors=at,
        )
        energies = part(edges)
        (slope,) = torch.autograd.grad(energies.sum(), at, allow_unused=True, materialize_grads=True)
    change = (slope * (vectors - at.detach())).sum(-1).to(energies.dtype)
    return energies.detach().index_add(0, graph.centers, change)


def _check(parts: Any) -> None:
    if not isinstance(parts, (list, tuple)) or len(parts) < 2:
        raise InputError(f"a sum needs a list of two parts or more; there is {parts!r:.80}")
    for number, part in enumerate(parts):
        if not isinstance(part, Mapping) or "architecture" not in part or set(part) - _KEYS:
            raise InputError(f"part {number} of a sum is {part!r:.80}; expected {', '.join(sorted(_KEYS))}")
        if part["architecture"] == "sum":
            raise InputError(f"part {number} of a sum is a sum itself; list its parts instead")
    if parts[0]["architecture"] == "zbl":
        raise InputError("the first part of a sum is zbl, which has no weights; put the part that learns first")
