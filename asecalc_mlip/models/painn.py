r"""PaiNN, the polarizable atom interaction network (Schütt, Unke, Gastegger, ICML 2021, arXiv 2102.03150).

Each atom carries F scalars q and F vectors μ. For every interaction, with x = A(q) and filters
W(d) = f_c(d) · (Φ(d) W_f + b_f), all of width 3F and split in three:

    q_i ← q_i + Σ_j (x_j W_ij)_1
    μ_i ← μ_i + Σ_j (x_j W_ij)_2 u_ij + (x_j W_ij)_3 μ_j
    (V, U) = μ C;   (a, b, c) = M(q, |V|);   q ← q + a + c ⟨V, U⟩;   μ ← μ + b U

    symbol   variable            symbol   variable
    q, μ     q, mu               Φ        basis
    x_j W    message             u_ij     directions
    C        mixing.channels     M        mixing.context
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import painn_message
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, edge_geometry, mlp
from asecalc_mlip.models.radial import EnvelopedBasis, RadialBasisName, make_radial_basis

__all__ = ["PaiNN"]


class PaiNN(nn.Module):
    """Equivariant message passing; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width F of scalars and vectors.
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
        self.n_features = n_features
        self.radial = EnvelopedBasis(make_radial_basis(radial_basis, n_rbf, cutoff))
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.filters = nn.Linear(n_rbf, 3 * n_features * n_interactions)
        self.messages = nn.ModuleList(mlp(n_features, n_features, 3 * n_features) for _ in range(n_interactions))
        self.mixings = nn.ModuleList(PaiNNMixing(n_features) for _ in range(n_interactions))
        self.readout = mlp(n_features, n_features // 2, 1)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        distances, directions = edge_geometry(graph, self.filters.weight.dtype)
        q = self.embedding(graph.numbers)
        # The vectors are zero before the first block; None lets that block skip the terms they would enter.
        mu = None
        last = len(self.mixings) - 1
        # With the bias as the weight of one more radial function, filters are one matrix product.
        weights = torch.cat([self.filters.weight, self.filters.bias[:, None]], dim=1)
        basis = self.radial(distances)
        messages: Any = self.messages  # to torch's types a ModuleList holds plain modules, which have no index
        for block, (message, mixing) in enumerate(zip(messages, self.mixings, strict=True)):
            width = (2 if mu is None else 3) * self.n_features
            start = 3 * self.n_features * block
            x = nn.functional.linear(message[1](message[0](q)), message[2].weight[:width], message[2].bias[:width])
            filters = nn.functional.linear(basis, weights[start : start + width])
            dq, dmu = painn_message(filters, directions, x, mu, graph.centers, graph.neighbors)
            q, mu = mixing(q + dq, dmu if mu is None else mu + dmu, scalars_only=block == last)
        return self.readout(q).squeeze(-1)


class PaiNNMixing(nn.Module):
    """Mixing of scalars and vectors on each atom, the update block of PaiNN."""

    def __init__(self, n_features: int):
        super().__init__()
        self.context = mlp(2 * n_features, n_features, 3 * n_features)
        self.channels = nn.Linear(n_features, 2 * n_features, bias=False)

    def forward(self, q: Tensor, mu: Tensor, *, scalars_only: bool = False) -> tuple[Tensor, Tensor]:
        """(N, F) scalars and (N, 3, F) vectors, mixed; with `scalars_only` the vectors come back unchanged."""
        v, u = self.channels(mu).chunk(2, dim=-1)
        # 1e-8 keeps the norm differentiable where a vector vanishes, by symmetry or on an isolated atom.
        norms = torch.sqrt(v.square().sum(dim=1) + 1e-8)
        a, b, c = self.context(torch.cat([q, norms], dim=-1)).chunk(3, dim=-1)
        q = q + a + c * (v * u).sum(dim=1)
        return q, mu if scalars_only else mu + b[:, None, :] * u
