r"""SchNet, continuous-filter convolutions (Schütt et al., NeurIPS 2017; JCP 148 (2018) 241722).

x_i ← x_i + f2out( Σ_j (x W_in)_j · f_c(d_ij) · w(Φ(d_ij)) )

symbol   variable            symbol   variable
x        x                   Φ        basis
W_in     in2f                w        filter_network
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import schnet_message
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, ShiftedSoftplus, at_once, edge_geometry, mlp
from asecalc_mlip.models.radial import RadialBasisName, cosine_cutoff, make_radial_basis

__all__ = ["SchNet"]


class SchNet(nn.Module):
    """Invariant message passing; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width of the atom features and of the filters.
    n_interactions : int
        Number of message passing blocks.
    n_rbf : int
        Number of radial functions.
    radial_basis : {"gaussian", "bessel"}
    """

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 128,
        *,
        n_interactions: int = 3,
        n_rbf: int = 20,
        radial_basis: RadialBasisName = "gaussian",
    ):
        super().__init__()
        self.cutoff = cutoff
        self.radial_basis = make_radial_basis(radial_basis, n_rbf, cutoff)
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.interactions = nn.ModuleList(SchNetInteraction(n_features, n_rbf) for _ in range(n_interactions))
        self.readout = mlp(n_features, n_features // 2, 1)
        self.over_edges: Callable = at_once

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        distances, _ = edge_geometry(graph, self.embedding.weight.dtype)
        basis, envelope = self.radial_basis(distances), self.envelope(distances)[:, None]
        x = self.embedding(graph.numbers)
        for interaction in self.interactions:
            x = x + interaction(graph, x, basis, envelope, self.over_edges)
        return self.readout(x).squeeze(-1)

    def envelope(self, distances: Tensor) -> Tensor:
        """Factor that takes the filters to zero at the cutoff, (E,)."""
        return cosine_cutoff(distances, self.cutoff)


class SchNetInteraction(nn.Module):
    """One continuous-filter convolution with its atom-wise layers."""

    def __init__(self, n_features: int, n_rbf: int):
        super().__init__()
        self.in2f = nn.Linear(n_features, n_features, bias=False)
        nn.init.xavier_uniform_(self.in2f.weight)
        self.filter_network = mlp(n_rbf, n_features, n_features, ShiftedSoftplus)
        self.f2out = mlp(n_features, n_features, n_features, ShiftedSoftplus)

    def forward(
        self, graph: AtomGraph, x: Tensor, basis: Tensor, envelope: Tensor, over_edges: Callable = at_once
    ) -> Tensor:
        """Change of the features (N, F) from the neighbours."""
        edges = (basis, envelope, graph.centers, graph.neighbors)
        return self.f2out(over_edges(self._message, edges, (self.in2f(x),)))

    def _message(self, basis: Tensor, envelope: Tensor, centers: Tensor, neighbors: Tensor, x: Tensor) -> Tensor:
        return schnet_message(self.filter_network(basis) * envelope, x, centers, neighbors)
