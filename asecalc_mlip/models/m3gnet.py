r"""M3GNet, message passing with three-body terms (Chen, Ong, Nat. Comput. Sci. 2 (2022) 718, arXiv 2202.02450).

Atoms carry features v, directed pairs p = (a → b) features e. With radial functions β(r), σ the logistic function, φ
gated networks, and at first v = E(z), e = silu(W β + w), each block does, for q = (a → k) another pair of atom a:

    T_p = Σ_q c(r_p) c(r_q) Φ(r_q, cos θ_pq) σ(A v_k + α);      e_p ← e_p + silu(G T_p) σ(H T_p)
    e_p ← e_p + φ_e(v_a, v_b, e_p) R_e β(r_p);                  v_b ← v_b + Σ_p φ_v(v_a, v_b, e_p) R_v β(r_p)

Φ are products of a radial function and a Legendre polynomial of the angle at a; c ends at `three_body_cutoff`. Energies
are read from v. β and its slope and curvature end at the cutoff with `radial_basis="smooth_bessel"`; with
"spherical_bessel", as the first published weights have it, the slope does not: forces jump there.

    symbol   variable            symbol   variable             symbol     variable
    E        embedding           A, α     three_body.atoms     φ_e, R_e   pairs, pair_weights
    W, w     pair_embedding      G, H     three_body.value,    φ_v, R_v   atoms, atom_weights
    β        beta                         three_body.gate      Φ          angular
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, GatedMLP, GatedReadout
from asecalc_mlip.models.radial import SmoothBesselBasis, SphericalBesselBasis, polynomial_cutoff
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["M3GNet"]


class M3GNet(Network):
    """Message passing with pair features and angles; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width of the features of atoms and pairs.
    n_hidden : int
        Width of the hidden layers of the gated networks.
    n_interactions : int
        Number of blocks.
    n_rbf, n_angular : int
        Radial functions for each of the `n_angular` Legendre polynomials.
    three_body_cutoff : float
        Å; pairs longer than this form no angles. At most `cutoff`.
    radial_basis : {"smooth_bessel", "spherical_bessel"}
    """

    traits = Traits(
        native=None,
        native_messages=False,
        memory=Memory(native=(40.0, 30.0), plain=(40.0, 30.0)),
        hessian=None,
        compiling_pays=False,
        # Angles are formed by pairs within their own cutoff, so nothing of what is farther away is passed over twice.
        trims_edges=True,
        # Pairs carry features from block to block.
        halo=None,
        train_instead=None,
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 64,
        *,
        n_hidden: int = 64,
        n_interactions: int = 3,
        n_rbf: int = 3,
        n_angular: int = 3,
        three_body_cutoff: float = 4.0,
        radial_basis: Literal["smooth_bessel", "spherical_bessel"] = "smooth_bessel",
    ):
        super().__init__()
        if not 0 < three_body_cutoff <= cutoff:
            raise ValueError(f"three_body_cutoff is {three_body_cutoff} Å; it must be positive and at most {cutoff} Å")
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions
        self.three_body_cutoff = three_body_cutoff
        self.angular = AngularBasis(radial_basis, n_rbf, n_angular, cutoff)
        self.embedding = nn.Embedding(MAX_ATOMIC_NUMBER + 1, n_features)
        self.pair_embedding = nn.Linear(self.angular.n_radial, n_features)
        widths = (n_features, n_hidden, self.angular.n_radial, n_rbf * n_angular)
        self.blocks = nn.ModuleList(M3GNetBlock(*widths) for _ in range(n_interactions))
        self.readout = GatedReadout([n_features, n_features, n_hidden, n_hidden])

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        vectors = graph.vectors().to(self.embedding.weight.dtype)
        distances = vectors.square().sum(-1).sqrt()
        beta = self.angular.radial(distances)
        ends = (graph.centers, graph.neighbors)
        angles = self._angles(vectors, distances, graph)
        v, e = self.embedding(graph.numbers), silu(self.pair_embedding(beta))
        for block in self.blocks:
            v, e = block(v, e, beta, ends, angles)
        return self.readout(v)

    def _angles(self, vectors: Tensor, distances: Tensor, graph: AtomGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs p and q of each angle, (T,), and c(r_p) c(r_q) Φ(r_q, cos θ), (T, n)."""
        with torch.no_grad():
            near = (distances <= self.three_body_cutoff).nonzero().squeeze(-1)
            first, second = _combinations(graph.centers.index_select(0, near), graph.n_atoms)
            p, q = near.index_select(0, first), near.index_select(0, second)
        r_p, r_q = distances.index_select(0, p), distances.index_select(0, q)
        cosine = (vectors.index_select(0, p) * vectors.index_select(0, q)).sum(-1) / (r_p * r_q)
        ends = [polynomial_cutoff(r, self.three_body_cutoff) for r in (r_p, r_q)]
        return p, q, self.angular(r_q, cosine) * (ends[0] * ends[1])[:, None]


class M3GNetBlock(nn.Module):
    """Angles into pairs, atoms into pairs, pairs into atoms."""

    def __init__(self, n_features: int, n_hidden: int, n_radial: int, n_angular: int):
        super().__init__()
        sizes = [3 * n_features, n_hidden, n_hidden, n_features]
        self.three_body = ThreeBody(n_features, n_angular)
        self.pairs, self.atoms = GatedMLP(sizes), GatedMLP(sizes)
        self.pair_weights = nn.Linear(n_radial, n_features, bias=False)
        self.atom_weights = nn.Linear(n_radial, n_features, bias=False)

    def forward(
        self, v: Tensor, e: Tensor, beta: Tensor, ends: tuple[Tensor, Tensor], angles: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Features of atoms (N, F) and pairs (E, F) after this block; β (E, n_radial), both ends, angles."""
        e = self.three_body(v, e, ends[1], angles)
        both = [v.index_select(0, end) for end in ends]
        e = e + self.pairs(torch.cat([*both, e], dim=-1)) * self.pair_weights(beta)
        messages = self.atoms(torch.cat([*both, e], dim=-1)) * self.atom_weights(beta)
        return v.index_add(0, ends[1], messages), e


class ThreeBody(nn.Module):
    """Change of the pair features by the angles at the first atom of each pair."""

    def __init__(self, n_features: int, n_angular: int):
        super().__init__()
        self.atoms = nn.Linear(n_features, n_angular)
        self.value = nn.Linear(n_angular, n_features, bias=False)
        self.gate = nn.Linear(n_angular, n_features, bias=False)

    def forward(self, v: Tensor, e: Tensor, neighbors: Tensor, angles: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Features of pairs (E, F)."""
        p, q, basis = angles
        third = torch.sigmoid(self.atoms(v)).index_select(0, neighbors.index_select(0, q))
        t = basis.new_zeros(e.shape[0], basis.shape[1]).index_add(0, p, basis * third)
        return e + silu(self.value(t)) * torch.sigmoid(self.gate(t))


class AngularBasis(nn.Module):
    """β(r), and Φ(r, cos θ): functions of the distance times Y_l(cos θ) = √((2l + 1)/4π) P_l(cos θ).

    With "smooth_bessel" β are the first `n_rbf` functions and Φ takes `n_rbf` more of them for every further l.
    """

    def __init__(self, radial_basis: str, n_rbf: int, n_angular: int, cutoff: float):
        super().__init__()
        known = {"smooth_bessel": SmoothBesselBasis, "spherical_bessel": SphericalBesselBasis}
        if radial_basis not in known:
            raise ValueError(f"radial_basis {radial_basis!r} is unknown here; choose one of {sorted(known)}")
        self.smooth = radial_basis == "smooth_bessel"
        self.n_rbf, self.n_angular = n_rbf, n_angular
        total = n_rbf * n_angular
        self.n_radial = n_rbf if self.smooth else total
        self.all: nn.Module = (
            SmoothBesselBasis(total, cutoff) if self.smooth else SphericalBesselBasis(n_rbf, n_angular, cutoff)
        )
        self.radial: nn.Module = SmoothBesselBasis(n_rbf, cutoff) if self.smooth else self.all

    def forward(self, distances: Tensor, cosine: Tensor) -> Tensor:
        """Φ for distances and cosines (T,): (T, n_angular · n_rbf), l the slower index."""
        polynomials = [torch.ones_like(cosine), cosine]
        for n in range(1, self.n_angular - 1):  # Bonnet's recursion
            polynomials.append(((2 * n + 1) * cosine * polynomials[n] - n * polynomials[n - 1]) / (n + 1))
        y = [math.sqrt((2 * n + 1) / (4 * math.pi)) * polynomials[n] for n in range(self.n_angular)]
        return self.all(distances) * torch.stack(y, dim=-1).repeat_interleave(self.n_rbf, dim=-1)


def _combinations(centers: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different entries that have the same centre; `centers` (n,) is sorted."""
    count = torch.bincount(centers, minlength=n_atoms)
    start = count.cumsum(0) - count
    partners = count.index_select(0, centers)
    first = torch.repeat_interleave(torch.arange(len(centers), device=centers.device), partners)
    before = (partners.cumsum(0) - partners).index_select(0, first)
    second = torch.arange(len(first), device=centers.device) - before + start.index_select(0, centers)[first]
    keep = first != second
    return first[keep], second[keep]
