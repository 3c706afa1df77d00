r"""M3GNet, message passing with three-body terms (Chen, Ong, Nat. Comput. Sci. 2 (2022) 718, arXiv 2202.02450).

Atoms carry features v, directed pairs p = (a → b) features e. With radial functions β(r), σ the logistic function, φ
gated networks, and at first v = E(z), e = silu(W β + w), each block does, for q = (a → k) another pair of atom a:

    T_p = Σ_q c(r_p) c(r_q) Φ(r_q, cos θ_pq) σ(A v_k + α);      e_p ← e_p + silu(G T_p) σ(H T_p)
    e_p ← e_p + φ_e(v_a, v_b, e_p) R_e β(r_p);                  v_b ← v_b + Σ_p φ_v(v_a, v_b, e_p) R_v β(r_p)

Φ are products of a radial function and a Legendre polynomial of the angle at a; c ends at `three_body_cutoff`. Energies
are read from v. No list of angles is made: P_l(cos θ_pq) = Σ_m H_lm(û_p) H_lm(û_q) with harmonic polynomials H, so that
the sum over q is one over the pairs of atom a, taken once for all its p, less the term q = p.

β and its slope and curvature end at the cutoff with `radial_basis="smooth_bessel"`; with "spherical_bessel", as the
first published weights have it, the slope does not: forces jump there.

    symbol   variable            symbol   variable             symbol     variable
    E        embedding           A, α     three_body.atoms     φ_e, R_e   pairs, pair_weights
    W, w     pair_embedding      G, H     three_body.value,    φ_v, R_v   atoms, atom_weights
    β        beta                         three_body.gate      Φ          angular
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels.packing import LANES, NativeKernel, Packed
from asecalc_mlip.models.constants import Table
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, GatedMLP, GatedReadout
from asecalc_mlip.models.m3gnet_native import M3GNetWeights, packed
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
        native=NativeKernel("m3gnet", LANES, M3GNetWeights),
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
        # The functions swing on beyond the cutoff; with none of them no message is passed.
        beta = self.angular.radial(distances) * (distances < self.cutoff)[:, None]
        ends = (graph.centers, graph.neighbors)
        near = self._near(vectors, distances, graph)
        v, e = self.embedding(graph.numbers), silu(self.pair_embedding(beta))
        for block in self.blocks:
            v, e = block(v, e, beta, ends, near)
        return self.readout(v)

    def packed(self) -> Packed:
        """Return the weights for kernels/m3gnet.cpp."""
        return packed(self)

    def _near(self, vectors: Tensor, distances: Tensor, graph: AtomGraph) -> Near:
        with torch.no_grad():
            index = (distances <= self.three_body_cutoff).nonzero().squeeze(-1)
        r = distances.index_select(0, index)
        directions = vectors.index_select(0, index) / r[:, None]
        envelope = polynomial_cutoff(r, self.three_body_cutoff)[:, None]
        return Near(
            index,
            graph.centers.index_select(0, index),
            graph.neighbors.index_select(0, index),
            self.angular.all(r) * envelope,
            envelope,
            self.angular.harmonics(directions),
            self.angular.owners(r),
        )


@dataclass(frozen=True)
class Near:
    """The n pairs that form angles: which they are, and their ends (n,), c R(r) (n, K), c (n, 1), H and its owners."""

    index: Tensor
    centers: Tensor
    neighbors: Tensor
    radial: Tensor
    envelope: Tensor
    harmonics: Tensor
    owners: Tensor


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
        self, v: Tensor, e: Tensor, beta: Tensor, ends: tuple[Tensor, Tensor], near: Near
    ) -> tuple[Tensor, Tensor]:
        """Features of atoms (N, F) and pairs (E, F) after this block; β (E, n_radial), both ends, pairs with angles."""
        e = self.three_body(v, e, near)
        e = e + _gated(self.pairs, v, e, ends) * self.pair_weights(beta)
        # To their dtype, as products under bf16 have another.
        change = (_gated(self.atoms, v, e, ends) * self.atom_weights(beta)).to(v.dtype)
        return v.index_add(0, ends[1], change), e


def _gated(network: GatedMLP, v: Tensor, e: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """φ(v_a, v_b, e_p), (E, F): the part of the first layers that the atoms decide is computed once for each atom."""
    value, gate = cast("tuple[nn.Sequential, nn.Sequential]", (network.value, network.gate))
    first = cast("list[nn.Linear]", [value[0], gate[0]])
    weights, bias = torch.cat([layer.weight for layer in first]), torch.cat([layer.bias for layer in first])
    of_first, of_second, of_pair = weights.split(v.shape[1], dim=1)
    h = nn.functional.linear(e, of_pair, bias)
    h = h + (v @ of_first.T).index_select(0, ends[0]) + (v @ of_second.T).index_select(0, ends[1])
    for_value, for_gate = silu(h).chunk(2, dim=-1)
    return value[2:](for_value) * gate[2:](for_gate)


class ThreeBody(nn.Module):
    """Change of the pair features by the angles at the first atom of each pair."""

    def __init__(self, n_features: int, n_angular: int):
        super().__init__()
        self.atoms = nn.Linear(n_features, n_angular)
        self.value = nn.Linear(n_angular, n_features, bias=False)
        self.gate = nn.Linear(n_angular, n_features, bias=False)

    def forward(self, v: Tensor, e: Tensor, near: Near) -> Tensor:
        """Features of pairs (E, F)."""
        amounts = near.radial * torch.sigmoid(self.atoms(v)).index_select(0, near.neighbors)
        terms = (amounts @ near.owners) * near.harmonics
        sums = terms.new_zeros(v.shape[0], terms.shape[1]).index_add(0, near.centers, terms)
        # Of all pairs of the atom but this one
        others = sums.index_select(0, near.centers) - terms
        t = near.envelope * ((others * near.harmonics) @ near.owners.T)
        return e.index_add(0, near.index, (silu(self.value(t)) * torch.sigmoid(self.gate(t))).to(e.dtype))


class AngularBasis(nn.Module):
    """β(r); and the two factors of Φ, functions of the distance and Y_l(cos θ) = √((2l + 1)/4π) P_l(cos θ).

    With "smooth_bessel" β are the first `n_rbf` functions and Φ takes `n_rbf` more of them for every further l.
    """

    def __init__(self, radial_basis: str, n_rbf: int, n_angular: int, cutoff: float):
        super().__init__()
        known = {"smooth_bessel": SmoothBesselBasis, "spherical_bessel": SphericalBesselBasis}
        if radial_basis not in known:
            raise ValueError(f"radial_basis {radial_basis!r} is unknown here; choose one of {sorted(known)}")
        smooth = radial_basis == "smooth_bessel"
        total = n_rbf * n_angular
        self.n_radial = n_rbf if smooth else total
        self.all: nn.Module = (
            SmoothBesselBasis(total, cutoff) if smooth else SphericalBesselBasis(n_rbf, n_angular, cutoff)
        )
        self.radial: nn.Module = SmoothBesselBasis(n_rbf, cutoff) if smooth else self.all
        # l of each of the functions of the distance; it has 2l + 1 harmonics.
        orders = [n for n in range(n_angular) for _ in range(n_rbf)]
        self.owner = torch.repeat_interleave(torch.arange(total), torch.tensor([2 * n + 1 for n in orders]))
        self._owners = Table(torch.arange(total)[:, None] == self.owner)
        self._harmonics = [Table(_harmonics(n).repeat(1, n_rbf)) for n in range(n_angular)]

    def owners(self, like: Tensor) -> Tensor:
        """Return which function of the distance each harmonic belongs to: ones and zeros (K, Σ_k (2l_k + 1))."""
        return self._owners.like(like)

    def harmonics(self, directions: Tensor) -> Tensor:
        """H of unit vectors (n, 3), those of each function of the distance side by side: (n, Σ_k (2l_k + 1))."""
        x, found = directions.unbind(1), []
        powers: dict[tuple[int, ...], Tensor] = {(0, 0, 0): torch.ones_like(x[0])}
        for n, coefficients in enumerate(self._harmonics):
            for exponents in _exponents(n) if n else []:
                axis = next(k for k in range(3) if exponents[k])
                below = tuple(m - (k == axis) for k, m in enumerate(exponents))
                powers[exponents] = powers[below] * x[axis]
            rows = torch.stack([powers[exponents] for exponents in _exponents(n)], dim=1)
            found.append(rows @ coefficients.like(directions))
        return torch.cat(found, dim=1)

    def monomials(self) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients of all monomials in the harmonics, (monomials, Σ_k (2l_k + 1)), and how each monomial is made.

        It is another one, the second tensor, times a coordinate, the third; the first monomial is one.
        """
        found: list[tuple[int, ...]] = [exponents for n in range(len(self._harmonics)) for exponents in _exponents(n)]
        axis = [next((k for k in range(3) if exponents[k]), 0) for exponents in found]
        below = [
            found.index(tuple(m - (k == a) for k, m in enumerate(exponents))) if any(exponents) else 0
            for a, exponents in zip(axis, found, strict=True)
        ]
        return torch.block_diag(*(table.values for table in self._harmonics)), torch.tensor(below), torch.tensor(axis)


def _exponents(n: int) -> list[tuple[int, int, int]]:
    """Those of x, y and z in the monomials of degree n."""
    return [(a, b, n - a - b) for a in range(n, -1, -1) for b in range(n - a, -1, -1)]


@cache
def _harmonics(n: int) -> Tensor:
    """Coefficients of 2n + 1 polynomials of unit vectors, (monomials, 2n + 1), with Σ_m H_m(û) H_m(ŵ) = Y_n(û · ŵ)."""
    points = np.random.default_rng(0).normal(size=(6 * (n + 1) ** 2, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    inverse = np.linalg.pinv(np.stack([np.prod(points**exponents, axis=1) for exponents in _exponents(n)], axis=1))
    values = np.sqrt((2 * n + 1) / (4 * np.pi)) * np.polynomial.legendre.Legendre.basis(n)(points @ points.T)
    sizes, vectors = np.linalg.eigh(inverse @ values @ inverse.T)
    last = slice(-2 * n - 1, None)
    return torch.from_numpy(vectors[:, last] * np.sqrt(sizes[last]))
