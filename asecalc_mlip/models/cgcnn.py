r"""CGCNN, crystal graph convolutions (Xie, Grossman, PRL 120 (2018) 145301, eq. 5).

    x_i ← x_i + Σ_j f_c(d_ij) · sigmoid(z_ij W_f + b_f) ⊙ softplus(z_ij W_s + b_s),    z_ij = [x̂_i, x̂_j, Φ(d_ij)]

    symbol          variable   symbol   variable
    W_f, W_s and b  terms      Φ        basis
    x̂               norm(x)    f_c      envelope

Differences from the paper, whose network predicts a number per crystal and needs no derivative of it:
- f_c, the cosine cutoff, on each message. Without it a neighbour that leaves changes the energy by a step.
- All neighbours within the cutoff instead of the nearest 12, which change places in steps too.
- A layer norm of the features of each atom before each convolution, x̂, in place of the batch norms of messages and
  sums. Under a batch norm the energy of a structure depends on the others of its batch. Under none the sums, which are
  positive, grow with the number of neighbours: in silica to 300 over the four blocks of a new network, against 20. The
  norm is of x and not of the sum: where atoms leave, the sum vanishes, and a norm would blow up the rest of it.
- An energy per atom instead of a mean over atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, edge_geometry, mlp
from asecalc_mlip.models.radial import RadialBasisName, cosine_cutoff, make_radial_basis
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["CGCNN"]


class CGCNN(Network):
    """Gated convolutions on a crystal graph; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width of the atom features.
    n_hidden : int
        Width of the hidden layer between features and energy.
    n_interactions : int
        Number of convolutions.
    n_rbf : int
        Number of radial functions; 25 over 5 Å are as dense as in the paper.
    radial_basis : {"gaussian", "bessel"}
    """

    traits = Traits(
        native=None,
        native_messages=False,
        memory=Memory(native=(11.0, 9.0), plain=(11.0, 9.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=True,
        halo=1.0,
        train_instead=None,
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 100,
        *,
        n_hidden: int = 150,
        n_interactions: int = 4,
        n_rbf: int = 25,
        radial_basis: RadialBasisName = "gaussian",
    ):
        super().__init__()
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions
        self.radial_basis = make_radial_basis(radial_basis, n_rbf, cutoff)
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.norms = nn.ModuleList(nn.LayerNorm(n_features) for _ in range(n_interactions))
        self.convolutions = nn.ModuleList(GatedConvolution(n_features, n_rbf) for _ in range(n_interactions))
        self.readout = mlp(n_features, n_hidden, 1)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        distances, _ = edge_geometry(graph, self.embedding.weight.dtype)
        envelope = cosine_cutoff(distances, self.cutoff)[:, None]
        edges = (self.radial_basis(distances), envelope, graph.centers, graph.neighbors)
        x = self.embedding(graph.numbers)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = x + convolution(norm(x), edges, self.over_edges)
        return self.readout(x).squeeze(-1)


class GatedConvolution(nn.Module):
    """Σ_j f_c sigmoid(z W_f + b_f) ⊙ softplus(z W_s + b_s), with the columns of both W side by side."""

    def __init__(self, n_features: int, n_rbf: int):
        super().__init__()
        self.n_features = n_features
        self.terms = nn.Linear(2 * n_features + n_rbf, 2 * n_features)
        nn.init.xavier_uniform_(self.terms.weight)
        nn.init.zeros_(self.terms.bias)

    def forward(self, x: Tensor, edges: tuple[Tensor, Tensor, Tensor, Tensor], over_edges: Callable) -> Tensor:
        """Sum over neighbours (N, F) from features (N, F) and edges: Φ (E, n_rbf), f_c (E, 1), centres, neighbours."""
        # z W is a sum over the three parts of z. Those of the atoms are products on atoms, of which there are fewer
        # than edges, and no z of three parts is ever formed.
        widths = [self.n_features, self.n_features, edges[0].shape[1]]
        of_center, of_neighbor, of_basis = self.terms.weight.split(widths, dim=1)
        atoms = nn.functional.linear(x, of_center, self.terms.bias), nn.functional.linear(x, of_neighbor)
        return over_edges(partial(_messages, of_basis), edges, atoms)


def _messages(
    weights: Tensor,
    basis: Tensor,
    envelope: Tensor,
    centers: Tensor,
    neighbors: Tensor,
    center_terms: Tensor,
    neighbor_terms: Tensor,
) -> Tensor:
    z = nn.functional.linear(basis, weights)
    z = z + center_terms.index_select(0, centers) + neighbor_terms.index_select(0, neighbors)
    gate, value = z.chunk(2, dim=-1)
    messages = torch.sigmoid(gate) * nn.functional.softplus(value) * envelope
    # Not len(), which would make the number of atoms a constant where this is traced.
    return messages.new_zeros(center_terms.shape[0], messages.shape[1]).index_add(0, centers, messages)
