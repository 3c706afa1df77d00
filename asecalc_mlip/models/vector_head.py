r"""One vector per atom from scalar and vector features, by gated equivariant blocks (PaiNN, arXiv 2102.03150, fig. 3).

    (v, u) = μ C;   (a, g) = M(q, |v|);   q' = silu(a);   μ' = g u

A gate g is a number, so μ' turns with μ, and it is zero where μ is: an atom without neighbours gets exactly no vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asecalc_mlip.models.layers import mlp

__all__ = ["VectorHead", "norms"]


def norms(vectors: Tensor) -> Tensor:
    """Lengths (N, F) of vectors (N, 3, F)."""
    # 1e-8 keeps the norm differentiable where a vector vanishes, by symmetry or on an isolated atom.
    return torch.sqrt(vectors.square().sum(dim=1) + 1e-8)


class VectorHead(nn.Module):
    """Two gated equivariant blocks: (N, F) scalars and (N, 3, F) vectors to one vector per atom, (N, 3)."""

    def __init__(self, n_features: int):
        super().__init__()
        n_hidden = max(1, n_features // 2)
        self.first = _GatedBlock(n_features, n_hidden)
        self.last = _GatedBlock(n_hidden, 1)

    def forward(self, q: Tensor, mu: Tensor) -> Tensor:
        """(N, F) scalars q and (N, 3, F) vectors μ → (N, 3)."""
        _, vectors = self.last(*self.first(q, mu))
        return vectors.squeeze(-1)


class _GatedBlock(nn.Module):
    """See the head of this file; symbols v, u: channels, M: context."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.channels = nn.Linear(n_in, n_in + n_out, bias=False)
        self.context = mlp(2 * n_in, n_in, 2 * n_out)
        self.sizes = (n_in, n_out)

    def forward(self, q: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        v, u = self.channels(mu).split(self.sizes, dim=-1)
        a, gate = self.context(torch.cat([q, norms(v)], dim=-1)).chunk(2, dim=-1)
        return nn.functional.silu(a), gate[:, None, :] * u
