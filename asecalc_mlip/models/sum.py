r"""A sum of potentials, for delta-learning and for priors: a network learns what another potential leaves.

    E_i = Σ_p s_p · network_p(i)        the first part learns, the others are fixed as a rule

Each part has its own cutoff and its own weights. One neighbour list, of the longest cutoff, serves all of them; a part
of a shorter one goes over the edges within its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph, EdgeGraph
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["Sum"]


class Sum(Network):
    """Several networks whose energies add up; returns one energy per atom.

    Parameters
    ----------
    networks : sequence of Network
        The one that learns first. `asecalc_mlip.models.registry` makes them from their descriptions.
    scales : sequence of float
        eV; factor on the output of each.

    Raises
    ------
    InputError
        For a network with a force head.
    """

    traits = Traits(
        native=None,
        native_messages=False,
        # Of its own; see `numbers_kept` for that of the parts.
        memory=Memory(native=(0.0, 0.0), plain=(0.0, 0.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=True,
        halo=None,
        train_instead="a sum is what a training with a prior or a delta makes: model.prior=zbl, finetune.delta=FILE",
    )

    def __init__(self, networks: Sequence[Network], scales: Sequence[float]):
        super().__init__()
        self.parts = nn.ModuleList(networks)
        self.scales = list(scales)
        self.cutoffs = [float(network.cutoff) for network in networks]
        if any(network.direct_forces for network in networks):
            raise InputError(
                "a part of a sum has a force head, to whose forces the gradient of another part's energy cannot be "
                "added; use conservative parts (direct_forces: false)"
            )

    @property
    def cutoff(self) -> float:  # type: ignore[override]
        """Å; the longest of the parts."""
        return max(self.cutoffs)

    @property
    def over_edges(self) -> Callable:
        """How the parts pass their messages; see `asecalc_mlip.models.layers.at_once`."""
        return self.networks[0].over_edges

    @over_edges.setter
    def over_edges(self, function: Callable) -> None:
        for part in self.networks:
            part.over_edges = function

    @property
    def n_features(self) -> int:  # type: ignore[override]
        """Of the first part."""
        return self.networks[0].n_features

    @property
    def n_blocks(self) -> int:  # type: ignore[override]
        """Of the first part."""
        return self.networks[0].n_blocks

    @property
    def networks(self) -> list[Network]:
        """The parts."""
        return [cast("Network", part) for part in self.parts]

    def numbers_kept(self, n_atoms: int, n_edges: float, *, native: bool, piece: int | None = None) -> float:
        """Of all parts, each with the edges within its cutoff, about, for atoms spread evenly."""
        shares = [(cutoff / self.cutoff) ** 3 for cutoff in self.cutoffs]
        options: dict[str, Any] = {"native": native, "piece": piece}
        return sum(
            part.numbers_kept(n_atoms, share * n_edges, **options)
            for part, share in zip(self.networks, shares, strict=True)
        )

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom, (N,) in eV, in the dtype of the weights."""
        every = zip(self.scales, self.parts, self._near(graph), strict=True)
        return torch.stack([self._energies(*one) for one in every]).sum(0)

    def energies_and_vectors(self, graph: AtomGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Return the energy of each atom, (N,) in eV, with the vectors and scalars of the part that learns.

        Only where that part has vectors; see `PaiNN.energies_and_vectors`.
        """
        near = self._near(graph)
        energies, vectors, scalars = self.parts[0].energies_and_vectors(near[0])  # type: ignore[operator]
        others = zip(self.scales[1:], self.parts[1:], near[1:], strict=True)
        total = [self.scales[0] * energies, *(self._energies(*other) for other in others)]
        return torch.stack(total).sum(0), vectors, scalars

    def _energies(self, scale: float, part: nn.Module, graph: AtomGraph) -> Tensor:
        fixed = self.training and not any(p.requires_grad for p in part.parameters())
        return scale * (_linearised(part, graph) if fixed else part(graph))

    def _near(self, graph: AtomGraph) -> list[AtomGraph]:
        """Return the graph for each part. Every part is zero beyond its cutoff: to drop those edges saves time only.

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
