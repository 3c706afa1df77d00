r"""SpinConv, spin convolutions (Shuaibi et al., 2021, arXiv 2106.09575).

Directed pairs e = (j → i) carry messages x. With φ(d) Gaussians of the distance, scaled and shifted for each pair of
elements, and B an embedding block of the two elements, at first h = W φ(d) and x = B(silu(L silu(L h))). A sphere
stands around the neighbour j with its pole along r_ij; there the messages that come to j give a function

    c_lm(e) = Σ_{f: k → j} f_c(r_f) x_f Y_lm(R_e r̂_f)

and the filter, a dense layer over channels and harmonics, is turned ("spun") about the pole by S angles α:

    s_e = norm( 1/S Σ_α silu(V D(α) c(e) + v) );      x_e ← x_e + B(silu(B(s_e) + L silu(L h_e)))

(in the first block x_e is replaced). Energies are E_i = B(Σ_e f_c x_e / n). A block B makes eight candidates of its
input by dense layers and mixes them by a softmax over the embeddings of the elements.

    symbol   variable             symbol   variable       symbol   variable
    φ        radial               c        function       R_e      frames
    h        h                    V, v     filters, bias  f_c      envelope
    B        ElementMixing        norm     norm           n        NEIGHBORS

Forces are minus the gradient of the energy, or are read by a head from the messages around each atom: a sphere with its
pole along n gives the force along n, F = 3 ⟨n s(n)⟩, the limit of the mean over random rotations of the paper.

Where this differs from the paper:

- The sphere is that of harmonics, not the grid, whose bins have no slope.
- Sums over f and over E are taken once for each atom, which is the same.
- Messages end smoothly at the cutoff, by f_c. The paper has no envelope, and takes the nearest 20 to 40 neighbours, so
  that its energy jumps where an atom comes or goes.
- Scales and offsets of distances are ⟨a, b⟩ of two elements, in place of a table of all pairs.
- The force head of the paper is a mean over five random rotations, so that two calls differ. Here the directions n
  are those of a quadrature in a frame that the neighbours give, so that forces turn exactly with the structure. Where
  two means of the neighbours are parallel or vanish, as at sites of high symmetry, that frame jumps, and forces jump by
  the error of the quadrature.

A spin mean over S angles depends on where they begin, by what the non-linearity puts into the harmonic S. They begin,
as published, at the mean of the neighbours of i, so that energies are exactly invariant; that beginning has no
derivative (as published), so that forces are the gradient up to that part, which falls exponentially with S. Mirror
images may have unlike energies, as published: filters are not symmetric.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.activation import silu
from asecalc_mlip.models.constants import Table
from asecalc_mlip.models.harmonics import by_order, harmonic_tables, real_harmonics
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER, all_digits, edge_geometry
from asecalc_mlip.models.radial import make_radial_basis, polynomial_cutoff
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["SpinConv"]

# Half of the neighbours of the paper, and one: messages are divided by it before energies are read.
NEIGHBORS = 11.0
# Channels of a group of the normalisation, and candidates of an embedding block, as published.
GROUP, CANDIDATES = 8, 8
# Distances are scaled by at most this and at least its inverse.
LARGEST_SCALE = 2.0
# Å; a mean of neighbours nearer to the pole gives no direction.
ON_AXIS = 1e-3
# Of a frame where the neighbours give none.
_POLE = Table(torch.tensor([0.0, 0.0, 1.0]))


class SpinConv(Network):
    """Message passing between pairs by convolutions on spheres; returns one energy per atom.

    Parameters
    ----------
    cutoff : float
        Å.
    n_features : int
        Width of the messages, a multiple of 8.
    n_hidden : int
        Width inside of blocks, a multiple of n_features / 8.
    n_interactions : int
        Number of blocks.
    n_rbf : int
        Number of Gaussians of the distance.
    n_angular : int
        Harmonics have l < n_angular.
    n_spins : int
        Angles S by which a filter is turned. After a short training on ethanol forces differed from the gradient by
        2e-3 eV/Å with 8 angles, 2e-7 with 16 and 5e-9 with 32, for forces to 2.5 eV/Å. Forces of a head do with 12.
    direct_forces : bool
        Add a head that reads the forces from the messages, for `energies_and_forces`.
    n_polar : int
        That head takes 2 n_polar² directions n.
    """

    traits = Traits(
        native=None,
        native_messages=False,
        memory=Memory(native=(250.0, 60.0), plain=(250.0, 60.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=True,
        # Pairs carry messages from block to block.
        halo=None,
        train_instead=None,
    )

    def __init__(
        self,
        cutoff: float = 5.0,
        n_features: int = 32,
        *,
        n_hidden: int = 64,
        n_interactions: int = 2,
        n_rbf: int = 32,
        n_angular: int = 3,
        n_spins: int = 32,
        direct_forces: bool = False,
        n_polar: int = 6,
    ):
        super().__init__()
        if n_features % GROUP or n_hidden % (n_features // GROUP):
            raise ValueError(
                f"n_features is {n_features} and n_hidden {n_hidden}; take multiples of {GROUP} and of n_features / 8"
            )
        self.cutoff, self.n_features, self.n_blocks = cutoff, n_features, n_interactions
        self.n_angular = n_angular
        self.radial = ScaledDistances(n_rbf, cutoff)
        self.distances = nn.Linear(n_rbf, n_hidden)
        self.first = nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden), nn.SiLU())
        self.pairs = ElementMixing(n_hidden, n_hidden, n_features)
        sizes = (n_features, n_hidden, n_angular, n_spins)
        self.blocks = nn.ModuleList(SpinConvBlock(*sizes) for _ in range(n_interactions))
        self.readout = ElementMixing(n_features, n_hidden, 1)
        # Made last, so that a seed gives the other weights the same values with and without it.
        self.force_head = ForceHead(*sizes, n_polar) if direct_forces else None

    def forward(self, graph: AtomGraph) -> Tensor:
        """Interaction energy of each atom, (N,), in the dtype of the weights."""
        return self._energies(graph, *self._messages(graph))

    def energies_and_forces(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Energies (N,) and, by the force head, forces (N, 3), in one pass; InputError where there is no head."""
        x, edges = self._messages(graph)
        around = _around(x, edges, graph.n_atoms, self.n_angular)
        return self._energies(graph, x, edges), self.head(around, graph.numbers, self._axes(graph))

    def _axes(self, graph: AtomGraph) -> Tensor:
        """Axes of a frame (N, 3, 3) at each atom, given by two unlike means of its neighbours; without derivative."""
        with torch.no_grad():
            d, directions = edge_geometry(graph, self.distances.weight.dtype)
            near = directions * polynomial_cutoff(d, self.cutoff)[:, None]
            means = near.new_zeros(2, graph.n_atoms, 3)
            pole, other = means.index_add(1, graph.centers, torch.stack([near, near * d[:, None]]))
            length = pole.square().sum(1, keepdim=True).sqrt()
            pole = torch.where(length > ON_AXIS, pole / length, _POLE.like(pole))
            return _frames(pole, _beside(pole, other))

    def _messages(self, graph: AtomGraph) -> tuple[Tensor, Edges]:
        """Messages (E, F) after the last block, and what belongs to the pairs."""
        d, directions = edge_geometry(graph, self.distances.weight.dtype)
        envelope = polynomial_cutoff(d, self.cutoff)[:, None]
        ends = (graph.numbers.index_select(0, graph.neighbors), graph.numbers.index_select(0, graph.centers))
        with torch.no_grad():
            sums = directions.new_zeros(graph.n_atoms, 3)
            sums = sums.index_add(0, graph.centers, directions * d[:, None] * envelope)
            beside = _beside(directions, sums.index_select(0, graph.centers))
        turned = by_order(_turned(_frames(directions, beside), self.n_angular), 2, self.n_angular)
        harmonics = real_harmonics(directions, self.n_angular)
        edges = Edges(graph.centers, graph.neighbors, *ends, envelope, harmonics, turned)
        h = self.distances(self.radial(d, *ends))
        x = self.pairs(self.first(h), *ends)
        for k, block in enumerate(self.blocks):
            change = block(x, h, edges, graph.n_atoms)
            x = x + change if k else change
        return x, edges

    def _energies(self, graph: AtomGraph, x: Tensor, edges: Edges) -> Tensor:
        terms = x * edges.envelope
        sums = terms.new_zeros(graph.n_atoms, terms.shape[1]).index_add(0, edges.centers, terms)
        return self.readout(sums / NEIGHBORS, graph.numbers, graph.numbers).squeeze(-1)


class Edges(NamedTuple):
    """Pairs: both ends and their elements (E,), f_c (E, 1), Y(r̂) (E, L²), Y(R_e X) of the fixed points (E, K, L²).

    The last are in the order of `by_order`.
    """

    centers: Tensor
    neighbors: Tensor
    source: Tensor
    target: Tensor
    envelope: Tensor
    harmonics: Tensor
    turned: Tensor


class SpinConvBlock(nn.Module):
    """One round of messages."""

    def __init__(self, n_features: int, n_hidden: int, n_angular: int, n_spins: int):
        super().__init__()
        self.n_angular = n_angular
        self.spin = Spin(n_features, n_hidden, n_angular, n_spins)
        self.distances = nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden))
        self.first, self.last = (ElementMixing(n_hidden, n_hidden, n) for n in (n_hidden, n_features))

    def forward(self, x: Tensor, h: Tensor, edges: Edges, n_atoms: int) -> Tensor:
        """Messages (E, F) from those before and from the distances (E, H)."""
        around = _around(x, edges, n_atoms, self.n_angular)
        with all_digits(around):
            function = edges.turned.mT @ around.index_select(0, edges.neighbors)
        s = self.first(self.spin(function), edges.source, edges.target)
        return self.last(silu(s + self.distances(h)), edges.source, edges.target)


class Spin(nn.Module):
    """The spin convolution: (E, L², F) coefficients of functions on spheres → (E, H), the same however they are spun.

    V D(α) c is a Fourier series in α, whose terms are made first: of the order m by the coefficients of m and −m alone.
    These stand side by side, as `by_order` has them.
    """

    def __init__(self, n_features: int, n_hidden: int, n_angular: int, n_spins: int):
        super().__init__()
        self.n_spins, self.n_angular = n_spins, n_angular
        self.degrees = [n_angular - m for m in range(n_angular)]
        size = 1 / math.sqrt(n_features * n_angular**2)
        self.filters = nn.Parameter(torch.empty(n_angular**2, n_features, n_hidden).uniform_(-size, size))
        self.bias = nn.Parameter(torch.empty(n_hidden).uniform_(-size, size))
        self.norm = nn.GroupNorm(n_features // GROUP, n_hidden)

    def forward(self, function: Tensor) -> Tensor:
        """See the class."""
        filters = by_order(self.filters, 0, self.n_angular)
        sizes = [k * (2 if m else 1) for m, k in enumerate(self.degrees)]
        (c, *others), (v, *rest) = function.split(sizes, dim=1), filters.split(sizes)
        terms = [torch.addmm(self.bias, c.flatten(1), v.flatten(0, 1))]
        for both, filters_of_both in zip(others, rest, strict=True):
            v, w = (part.flatten(0, 1) for part in filters_of_both.chunk(2))
            terms += [both.flatten(1) @ torch.cat([v, w]), both.flatten(1) @ torch.cat([w, -v])]
        # Angles first, so that the products and the mean run over long rows.
        with all_digits(function):
            spun = self._waves(function) @ torch.stack(terms).flatten(1).to(function.dtype)
        mean = silu(spun).sum(0).view_as(terms[0]) / self.n_spins
        # Not torch's group_norm: its second derivative takes no batch of directions, which a Hessian gives it.
        groups = mean.unflatten(1, (self.norm.num_groups, -1))
        centred = groups - groups.mean(-1, keepdim=True)
        scaled = centred * (centred.square().mean(-1, keepdim=True) + self.norm.eps).rsqrt()
        return scaled.view_as(mean) * self.norm.weight + self.norm.bias

    def _waves(self, like: Tensor) -> Tensor:
        """1, cos mα and sin mα for each of the angles, (S, 2L − 1)."""
        angles = torch.arange(self.n_spins, dtype=torch.float64, device=like.device) * (2 * math.pi / self.n_spins)
        waves = [torch.ones_like(angles)]
        for m in range(1, self.n_angular):
            waves += [torch.cos(m * angles), torch.sin(m * angles)]
        return torch.stack(waves, dim=1).to(like.dtype)


class ForceHead(nn.Module):
    """Forces from the messages that come to each atom: 3 ⟨n s(n)⟩ over directions n of a quadrature."""

    def __init__(self, n_features: int, n_hidden: int, n_angular: int, n_spins: int, n_polar: int):
        super().__init__()
        self.n_angular = n_angular
        self.directions, self.weights = map(Table, quadrature(n_polar))
        self.spin = Spin(n_features, n_hidden, n_angular, n_spins)
        self.first, self.last = (ElementMixing(n_hidden, n_hidden, n) for n in (n_hidden, 1))

    def forward(self, around: Tensor, numbers: Tensor, axes: Tensor) -> Tensor:
        """Return forces (N, 3), from values (N, K, F) of functions around atoms at the fixed points, and frames."""
        directions, weights = self.directions.like(around), self.weights.like(around)
        weighted = weights[:, None] * directions
        across = _beside(directions, torch.zeros_like(directions))
        turned = by_order(_turned(_frames(directions, across), self.n_angular), 2, self.n_angular).mT
        ours = _turned(axes, self.n_angular).mT
        with all_digits(around):
            found = harmonic_tables(self.n_angular).weights.like(around) @ (ours @ around)
            # One product for each atom, whose rows are those of all directions.
            function = (turned.flatten(0, 1) @ found).unflatten(1, (len(directions), -1)).flatten(0, 1)
        elements = numbers[:, None].expand(-1, len(directions)).flatten()
        s = self.spin(function)
        # A force is in the fifth digit of s, which bf16 does not have.
        with all_digits(s):
            s = self.last(silu(self.first(s, elements, elements)), elements, elements)
            s = s.view(len(numbers), len(directions))
            # Without their mean, which gives no force but by rounding.
            forces = (3.0 * (s - (s @ weights)[:, None]) @ weighted)[:, None] @ axes
        # An atom without neighbours gets exactly no force.
        return forces.squeeze(1) * found.flatten(1).any(1, keepdim=True)


class ElementMixing(nn.Module):
    """Dense layers whose middle is a mixture, by the elements of both ends, of eight candidates."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int):
        super().__init__()
        self.first = nn.Linear(n_in, n_hidden)
        self.candidates = nn.Linear(n_hidden, CANDIDATES * n_hidden)
        self.last = nn.Linear(n_hidden, n_out)
        # The paper makes these eight numbers of each element and end by a dense layer of wider embeddings: the same.
        self.of_source, self.of_target = (nn.Embedding(MAX_ATOMIC_NUMBER + 1, CANDIDATES) for _ in range(2))
        for table in (self.of_source, self.of_target):
            nn.init.uniform_(table.weight, -1e-4, 1e-4)

    def forward(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """(n, n_in) → (n, n_out), with the atomic numbers of both ends (n,)."""
        candidates = silu(self.candidates(silu(self.first(x)))).unflatten(1, (CANDIDATES, -1))
        # Not by a batch of products: of one row each they take ten times as long, with their derivatives.
        return self.last((candidates * self._shares(source, target)[:, :, None]).sum(1))

    def _shares(self, source: Tensor, target: Tensor) -> Tensor:
        """Softmax of the sum of two embeddings, (n, 8), with one exponential for each element instead of each pair."""
        ends = (self.of_source.weight, source), (self.of_target.weight, target)
        of_source, of_target = (
            torch.exp(table - table.detach().amax(1, keepdim=True)).index_select(0, z) for table, z in ends
        )
        products = of_source * of_target
        return products / products.sum(1, keepdim=True)


class ScaledDistances(nn.Module):
    """Gaussians of scale · d + offset, both by the elements of the pair; the scale is ½ to 2."""

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        self.basis = make_radial_basis("gaussian", n_rbf, cutoff)
        self.of_source = nn.Embedding(MAX_ATOMIC_NUMBER + 1, GROUP)
        self.of_target = nn.Embedding(MAX_ATOMIC_NUMBER + 1, 2 * GROUP)
        nn.init.normal_(self.of_source.weight, std=GROUP**-0.5)
        nn.init.zeros_(self.of_target.weight)

    def forward(self, d: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Distances (E,) in Å and atomic numbers of both ends → (E, n_rbf)."""
        of_target = self.of_target.weight.index_select(0, target).unflatten(1, (2, GROUP))
        scale, offset = (self.of_source.weight.index_select(0, source)[:, None] * of_target).sum(-1).unbind(1)
        return self.basis(torch.exp(math.log(LARGEST_SCALE) * torch.tanh(scale / 2)) * d + offset)


def quadrature(n_polar: int) -> tuple[Tensor, Tensor]:
    """Return 2 n² directions (D, 3) and their weights (D,), which sum to 1, float64: exact to the degree 2n − 1."""
    z, weights = np.polynomial.legendre.leggauss(n_polar)
    angles = np.arange(2 * n_polar) * (np.pi / n_polar)
    across = np.sqrt(1 - z**2)[:, None]
    rows = [across * np.cos(angles), across * np.sin(angles), np.broadcast_to(z[:, None], (n_polar, 2 * n_polar))]
    directions = np.stack(rows, axis=-1).reshape(-1, 3)
    return torch.from_numpy(directions), torch.from_numpy(np.repeat(weights / weights.sum() / angles.size, angles.size))


def _around(x: Tensor, edges: Edges, n_atoms: int, n_angular: int) -> Tensor:
    """Functions around atoms made of the messages that come to them, by their values at the fixed points, (N, K, F)."""
    at_neighbors = edges.harmonics * edges.envelope
    with all_digits(at_neighbors):
        at_points = at_neighbors @ harmonic_tables(n_angular).weights.like(at_neighbors).T
    terms = at_points[:, :, None] * x[:, None, :]
    return terms.new_zeros(n_atoms, *terms.shape[1:]).index_add(0, edges.centers, terms)


def _beside(poles: Tensor, means: Tensor) -> Tensor:
    """Return unit vectors across poles (n, 3), where possible in the plane of the pole and a second vector (n, 3)."""
    across = means - (means * poles).sum(1, keepdim=True) * poles
    length = across.square().sum(1, keepdim=True).sqrt()
    # Otherwise the axis that is farthest from the pole.
    axis = torch.nn.functional.one_hot(poles.abs().argmin(1), 3).to(poles)
    other = axis - (axis * poles).sum(1, keepdim=True) * poles
    across = torch.where(length > ON_AXIS, across, other)
    return across / across.square().sum(1, keepdim=True).sqrt()


def _frames(poles: Tensor, beside: Tensor) -> Tensor:
    """Rotations (n, 3, 3) that take unit vectors (n, 3) to the z-axis and vectors beside them to the x-axis."""
    across = beside - (beside * poles).sum(1, keepdim=True) * poles
    across = across / across.square().sum(1, keepdim=True).sqrt()
    return torch.stack([across, torch.linalg.cross(poles, across, dim=1), poles], dim=1)


def _turned(frames: Tensor, n_angular: int) -> Tensor:
    """Y of the fixed points in frames (n, 3, 3), (n, K, L²)."""
    with all_digits(frames):
        points = torch.einsum("nab,kb->nka", frames, harmonic_tables(n_angular).points.like(frames))
    return real_harmonics(points, n_angular)
