r"""Cohesion: the energy of atoms with few neighbours and with all of them, about which the data say one thing only.

    E_i = S(n_i) e_a + (1 − S(n_i)) ½ Σ_j φ_ab(r_ij),      n_i = Σ_j c(r_ij),      a, b the elements of i and j
    c(r)  = 6s⁵ − 15s⁴ + 10s³ of s = (r_c − r)/(0.6 r_c), kept within 0 … 1: it counts a neighbour within 0.4 r_c as one
    S(n)  = the same of s = (n − 1)/(f_a − 1)

    symbol   variable     unit       symbol   variable   unit
    e        energies     eV         f        full       1
    φ        pairs        eV, eV/Å   r_c      cutoff     Å

With the E0 of isolated atoms a network has to learn the whole binding energy, some −5 eV per atom, and learns the
forces less well for it. With fitted E0 it has not, but atoms that are taken apart keep their binding energy. Here
every atom of the data has at least f neighbours by that count, so that S is 1 and this a constant, forces zero: nothing
of the data is left to it or taken from it. An atom alone has n = 0, and one of a dimer n ≤ 1, so that S is 0: it has
the energy φ of isolated dimers, if there is one. In between both fall and rise as smoothly as the numbers allow. What
that has wrong there, the network can learn.

φ is the cubic polynomial between even knots that has given values and slopes there, a straight line inside the first
knot and zero from the last one on, which is at the cutoff.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph, graph_from_atoms
from asecalc_mlip.kernels.library import integers, pointers, reals
from asecalc_mlip.kernels.packing import NativeKernel, Packed, Packer
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.traits import Memory, Network, Traits
from asecalc_mlip.models.zbl import smooth_step

__all__ = ["FIRST", "Cohesion", "fewest_neighbors"]

# Share of the cutoff over which the count of a neighbour falls from one to zero.
TAIL = 0.6
# Neighbours of an atom of a dimer: no more than this.
ONE = 1.0
# Å, the first knot of φ.
FIRST = 0.1


class CohesionWeights(ctypes.Structure):
    """`Network` of kernels/cohesion.cpp."""

    _fields_ = [
        *integers("elements", "knots"),
        *reals("cutoff", "tail", "one", "first"),
        *pointers("species", "energies", "full", "pairs"),
    ]


class Cohesion(Network):
    """Energy of atoms with few neighbours, and with as many as those of the data; returns one energy per atom.

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers.
    energies : sequence of float
        eV; of each element, where atoms have all their neighbours.
    full : sequence of float
        Count of neighbours of each element from which on they have; more than 1.
    cutoff : float
        Å.
    knots : int
        Of φ, from `FIRST` to the cutoff; 0 leaves it out. `pairs` (elements, elements, knots, 2) then holds values
        in eV and slopes in eV/Å.

    Raises
    ------
    InputError
        For numbers that do not fit together.
    """

    traits = Traits(
        native=NativeKernel("cohesion", {torch.float32: 1, torch.float64: 1}, CohesionWeights),
        native_messages=False,
        memory=Memory(native=(4.0, 2.0), plain=(12.0, 4.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=True,
        halo=1.0,
        train_instead="it has no weights; a training with E0 of isolated atoms adds it: model.cohesion=true",
    )
    table: Tensor
    species: Tensor
    pairs: Tensor

    def __init__(
        self,
        elements: Sequence[int],
        energies: Sequence[float],
        full: Sequence[float],
        cutoff: float = 5.0,
        knots: int = 0,
    ):
        super().__init__()
        self.numbers, self.cutoff, self.knots = [int(z) for z in elements], float(cutoff), int(knots)
        _check(self.numbers, energies, full, self.knots)
        n = len(self.numbers)
        # Of an element without numbers there is nothing to say; NaN would spoil the energies of others in training.
        table = torch.tensor([[0.0, 2.0 * ONE]], dtype=torch.float64).repeat(MAX_ATOMIC_NUMBER + 1, 1)
        table[self.numbers] = torch.tensor([list(energies), list(full)], dtype=torch.float64).T
        species = torch.full((MAX_ATOMIC_NUMBER + 1,), n)
        species[self.numbers] = torch.arange(n)
        # Not in files: the hyper-parameters hold them.
        self.register_buffer("table", table.float(), persistent=False)
        self.register_buffer("species", species, persistent=False)
        self.register_buffer("pairs", torch.zeros(n, n, self.knots, 2), persistent=self.knots > 0)
        self.n_features = self.n_blocks = 1

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom in eV, (N,), in the dtype of the table."""
        distances = graph.vectors().to(self.table.dtype).square().sum(-1).sqrt()
        energies, full = self.table.index_select(0, graph.numbers).unbind(1)
        near = smooth_step((self._counts(graph, distances) - ONE) / (full - ONE))
        if not self.knots:
            return energies * near
        species = self.species.index_select(0, graph.numbers)
        a, b = (species.index_select(0, index) for index in (graph.centers, graph.neighbors))
        halves = 0.5 * self.pair_energy(a, b, distances)
        return energies * near + (1.0 - near) * torch.zeros_like(near).index_add(0, graph.centers, halves)

    def neighbors(self, graph: AtomGraph) -> Tensor:
        """Return the count n of the neighbours of each atom, (N,)."""
        return self._counts(graph, graph.vectors().to(self.table.dtype).square().sum(-1).sqrt())

    def pair_energy(self, a: Tensor, b: Tensor, distances: Tensor) -> Tensor:
        """Return φ in eV of pairs, (E,), for elements (E,) counted as `numbers` are; zero for one beyond those."""
        n, step = len(self.numbers), (self.cutoff - FIRST) / (self.knots - 1)
        place = (distances - FIRST) / step
        left = place.detach().floor().clamp(0, self.knots - 2)
        t, known = place - left, (a < n) & (b < n)
        rows = torch.where(known, (a * n + b) * self.knots + left.long(), 0)
        flat = self.pairs.reshape(-1, 2)
        (y0, s0), (y1, s1) = (flat.index_select(0, rows + k).unbind(1) for k in (0, 1))
        # Beyond the knots as at their ends: t is kept within 0 … 1, and inside the first the slope goes on.
        u = t.clamp(0.0, 1.0)
        cubic = y0 + u * (
            step * s0 + u * (3 * (y1 - y0) - step * (2 * s0 + s1) + u * (2 * (y0 - y1) + step * (s0 + s1)))
        )
        # At a knot itself the slope of `u` counts, and that of `relu` is zero; of `clamp` it would count twice.
        return torch.where(known, cubic - step * s0 * (-t).relu(), torch.zeros_like(t))

    def check_numbers(self, numbers: Tensor) -> None:
        """Raise an InputError for atomic numbers (N,) without parameters."""
        if missing := sorted(set(numbers.tolist()) - set(self.numbers)):
            names = ", ".join(chemical_symbols[z] for z in missing)
            raise InputError(f"the cohesion of this model has no numbers for {names}; train it on data with {names}")

    def packed(self) -> Packed:
        """For kernels/cohesion.cpp."""
        energies, full = self.table.unbind(1)
        return Packer().packed(
            CohesionWeights,
            elements=len(self.numbers),
            knots=self.knots,
            cutoff=self.cutoff,
            tail=TAIL,
            one=ONE,
            first=FIRST,
            species=self.species.to(self.table.dtype),
            energies=energies,
            full=full,
            pairs=self.pairs,
        )

    def _counts(self, graph: AtomGraph, distances: Tensor) -> Tensor:
        counts = smooth_step((self.cutoff - distances) / (TAIL * self.cutoff))
        return counts.new_zeros(graph.numbers.shape[0]).index_add(0, graph.centers, counts)


def fewest_neighbors(frames: Sequence[Atoms], cutoff: float) -> dict[int, float]:
    """Find the smallest count of neighbours of each element in some frames, by atomic number."""
    count = Cohesion([1], [0.0], [2.0], cutoff).double()
    fewest: dict[int, float] = {}
    for atoms in frames:
        found = count.neighbors(graph_from_atoms(atoms, cutoff)).tolist()
        for z, n in zip(atoms.numbers.tolist(), found, strict=True):
            fewest[z] = min(n, fewest.get(z, n))
    return fewest


def _check(numbers: Sequence[int], energies: Sequence[float], full: Sequence[float], knots: int) -> None:
    if not (len(numbers) == len(set(numbers)) == len(energies) == len(full) > 0):
        raise InputError(f"{len(energies)} energies and {len(full)} counts for the elements {numbers}; give one each")
    if not all(1 <= z <= MAX_ATOMIC_NUMBER for z in numbers) or not all(f > ONE for f in full):
        raise InputError(f"elements {numbers} with counts {list(full)}: expected 1 to 99, and counts above {ONE:g}")
    if not (knots == 0 or 2 <= knots <= 10_000):
        raise InputError(f"knots is {knots}; expected 0, or 2 to 10000")
