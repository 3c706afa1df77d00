r"""EAM, a trainable embedded-atom potential (Zheng, Fung, JCIM 2026, doi 10.1021/acs.jcim.6c00826; Daw, Baskes 1984).

    E   = ½ Σ_{i≠j} f_c(r_ij) D_ab {[1 − exp(−α_ab (r_ij − r0_ab))]² − 1}  +  Σ_i B_a (ρ_i − ρ0_a)²  +  Σ_i E0_a
    ρ_i = Σ_j f_c(r_ij) Σ_{k=1..K} A_k,ab exp(−β_k,ab r_ij)
    f_c = 6s⁵ − 15s⁴ + 10s³ of s = (r_c − r)/(0.34 r_c), kept within 0 … 1: it is 1 up to 0.66 r_c

    symbol      variable        unit       symbol   variable         unit
    D           depth           eV         A        amplitudes()     1
    α           stiffness       1/Å        β        decay            1/Å
    r0          bond            Å          B, ρ0    embedding, rest  eV, 1

a, b are the elements of i and j; D, α, r0, A, β belong to the pair, whichever comes first. D, α, β and A are the
softplus of the trained numbers, so they stay positive. A is trained as A = a·exp(β R), R the sum of covalent radii:
a neighbour at a bond's length adds a to ρ, which is of order one for every β, where A spans many orders of magnitude.

The energy of an atom without neighbours, B ρ0² + E0 above, is its reference energy in `Potential`. The network returns
the rest, with B (ρ − ρ0)² − B ρ0² written as B ρ (ρ − 2ρ0), which is exactly zero for an isolated atom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels.packing import LANES, Packed, Packer
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.traits import Memory, Network, Traits
from asecalc_mlip.models.zbl import EAM_KERNEL, PAIR_CONSTANTS, ZBL, EAMWeights, smooth_step

__all__ = ["EAM", "before_softplus", "envelope"]

Core = Literal["zbl"]
# f_c falls over this last share of the cutoff.
TAIL = 0.34
# 1/Å; the exponentials start between these. If they started equal they would stay so, and be one.
SLOWEST, FASTEST = 0.5, 4.0
DEPTH, STIFFNESS = 0.5, 1.5


class EAM(Network):
    """Morse pairs and the embedding of a density; returns one energy per atom.

    Parameters
    ----------
    elements : sequence of str or int
        Symbols or atomic numbers of the elements that get parameters.
    cutoff : float
        Å.
    n_exponentials : int
        Number K of exponentials in the density of each pair.
    core : {"zbl"} or None
        Repulsion added at less than 0.8 of the sum of two covalent radii, where the Morse energy is finite.
    density : bool
        False leaves the embedding out: a Morse potential, to compare with.
    """

    traits = Traits(
        native=EAM_KERNEL,
        native_messages=False,
        memory=Memory(native=(4.5, 2.0), plain=(4.5, 2.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=True,
        halo=1.0,
        train_instead="fit one with: asecalc eam fit DATA",
    )
    species: Tensor
    pairs: Tensor
    radii: Tensor

    def __init__(
        self,
        elements: Sequence[str | int],
        cutoff: float = 8.0,
        *,
        n_exponentials: int = 10,
        core: Core | None = None,
        density: bool = True,
    ):
        super().__init__()
        if core not in (None, "zbl"):
            raise InputError(f"core is {core!r}; allowed: null (none), zbl")
        self.cutoff, self.density = cutoff, density
        self.numbers = _numbers(elements)
        n = len(self.numbers)
        pairs = torch.triu_indices(n, n)
        self._tables(pairs)
        self.depth = nn.Parameter(before_softplus(torch.full((pairs.shape[1],), DEPTH)))
        self.stiffness = nn.Parameter(before_softplus(torch.full((pairs.shape[1],), STIFFNESS)))
        self.bond = nn.Parameter(self.radii.clone())
        if density:
            decay = torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), n_exponentials).repeat(pairs.shape[1], 1)
            self.decay = nn.Parameter(before_softplus(decay))
            # A dozen neighbours then make a density of about one.
            self.share = nn.Parameter(before_softplus(torch.full_like(decay, 0.1 / n_exponentials)))
            self.embedding = nn.Parameter(torch.full((n,), 0.1))
            self.rest = nn.Parameter(torch.ones(n))
        self.zbl = ZBL() if core == "zbl" else None
        self.n_features, self.n_blocks = n_exponentials, 1

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom less that of the atom alone, (N,) in eV, in the dtype of the weights."""
        return torch.stack(list(self.components(graph).values())).sum(0)

    def components(self, graph: AtomGraph) -> dict[str, Tensor]:
        """Energies of each atom in eV, (N,): "density" (its embedding), "morse" and "zbl", those that the model has.

        Raises
        ------
        InputError
            For an element without parameters.
        """
        distances = graph.vectors().to(self.bond.dtype).square().sum(-1).sqrt()
        species = self.species_of(graph.numbers)
        first, second = (species.index_select(0, index) for index in (graph.centers, graph.neighbors))
        pairs = self.pairs.index_select(0, first * len(self.numbers) + second)
        morse, rho = self.over_edges(self._sums, (distances, pairs, graph.centers), (species,))
        found = {"density": self.embedding_energy(rho, species)} if self.density else {}
        found["morse"] = morse
        if self.zbl is not None:
            found["zbl"] = self.zbl(graph)
        return found

    def embedding_energy(self, rho: Tensor, species: Tensor) -> Tensor:
        """B (ρ − ρ0)² − B ρ0² in eV for densities (N,) at atoms of the species (N,), counted as `numbers` are."""
        return self.embedding.index_select(0, species) * rho * (rho - 2.0 * self.rest.index_select(0, species))

    def embedding_slope(self, rho: Tensor, species: Tensor) -> Tensor:
        """Return the derivative 2B (ρ − ρ0) of the embedding energy by the density, (N,) in eV."""
        return 2.0 * self.embedding.index_select(0, species) * (rho - self.rest.index_select(0, species))

    def pair_terms(self, distances: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Morse energy (eV) and density of pairs of atoms, (E,) each, cutoff included.

        Parameters
        ----------
        distances : (E,)
            Å.
        pairs : (E,) int64
            Index of the pair of elements; see `pair_index`.
        """
        f_c = envelope(distances, self.cutoff)
        stretch = distances - self.bond.index_select(0, pairs)
        decayed = torch.exp(-softplus(self.stiffness).index_select(0, pairs) * stretch)
        morse = softplus(self.depth).index_select(0, pairs) * decayed * (decayed - 2.0)
        if not self.density:
            return f_c * morse, 0.0 * morse
        beyond = (distances - self.radii.to(distances.dtype).index_select(0, pairs))[:, None]
        # Far below this a share adds nothing, and its logarithm has no derivative.
        shares, decays = softplus(self.share).clamp(min=1e-30).log(), softplus(self.decay)
        density = torch.exp(shares.index_select(0, pairs) - decays.index_select(0, pairs) * beyond).sum(-1)
        return f_c * morse, f_c * density

    def pair_index(self, a: int, b: int) -> int:
        """Row of the parameters of the pair of elements with atomic numbers a and b."""
        first, second = self.species_of(torch.tensor([a, b], device=self.species.device)).tolist()
        return int(self.pairs[first * len(self.numbers) + second])

    def amplitudes(self) -> Tensor:
        """Return the A in ρ = Σ A exp(−β r), (pairs, K)."""
        return softplus(self.share) * torch.exp(softplus(self.decay) * self.radii.to(self.share.dtype)[:, None])

    def species_of(self, numbers: Tensor) -> Tensor:
        """Index of each element among `numbers` of the network, (N,); an InputError for one without parameters."""
        species = self.species.index_select(0, numbers)
        # Tensors of a tracer have no values to look at, and on a GPU a look is a wait; there the calculator has looked.
        if type(numbers) is Tensor and numbers.device.type == "cpu" and bool((species < 0).any()):
            missing = ", ".join(sorted({chemical_symbols[z] for z in numbers[species < 0].tolist()}))
            known = ", ".join(chemical_symbols[z] for z in self.numbers)
            raise InputError(
                f"this EAM has no parameters for {missing}; it has them for {known}. Fit one with {missing}"
            )
        return species

    def check_numbers(self, numbers: Tensor) -> None:
        """Raise an InputError for atomic numbers (N,) without parameters."""
        self.species_of(numbers)

    def packed(self) -> Packed:
        """Return the parameters for kernels/eam.cpp, by pairs of elements in both orders."""
        n, dtype, pairs, packer = len(self.numbers), self.bond.dtype, self.pairs, Packer()
        z = torch.tensor(self.numbers)
        bonds = [softplus(self.depth), softplus(self.stiffness), self.bond, self.radii.to(dtype)]
        constants = torch.stack([column[pairs] for column in bonds], dim=1)
        if self.zbl is not None:
            constants = torch.cat([constants, self.zbl.constants(z.repeat_interleave(n), z.repeat(n), dtype)], dim=1)
        shares = decays = torch.zeros(0, dtype=dtype)
        embedding, count = torch.zeros(n, 2, dtype=dtype), 0
        if self.density:
            missing = -self.share.shape[1] % LANES[dtype]
            shares, decays = (pad(softplus(one), (0, missing))[pairs] for one in (self.share, self.decay))
            embedding, count = torch.stack([self.embedding, self.rest], dim=1), shares.shape[1]
        return packer.packed(
            EAMWeights,
            elements=n,
            exponentials=count,
            core=int(self.zbl is not None),
            cutoff=float(self.cutoff),
            tail=TAIL,
            species=self.species.to(dtype),
            pairs=pad(constants, (0, PAIR_CONSTANTS - constants.shape[1])),
            shares=shares,
            decays=decays,
            embedding=embedding,
        )

    def _sums(self, distances: Tensor, pairs: Tensor, centers: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        """Morse energy (half of each pair's) and density of each atom; `over_edges` may call it with some edges."""
        morse, density = self.pair_terms(distances, pairs)
        zeros = distances.new_zeros(species.shape[0])
        return zeros.index_add(0, centers, 0.5 * morse), zeros.index_add(0, centers, density)

    def _tables(self, pairs: Tensor) -> None:
        """Atomic number → species, two species → pair, and the sum of covalent radii (Å) of each pair."""
        n = len(self.numbers)
        species = torch.full((MAX_ATOMIC_NUMBER + 1,), -1)
        species[torch.tensor(self.numbers)] = torch.arange(n)
        table = torch.zeros(n, n, dtype=torch.int64)
        table[pairs[0], pairs[1]] = table[pairs[1], pairs[0]] = torch.arange(pairs.shape[1])
        radii = torch.tensor([covalent_radii[z] for z in self.numbers], dtype=torch.float64)[pairs].sum(0)
        for name, values in (("species", species), ("pairs", table.flatten()), ("radii", radii.float())):
            self.register_buffer(name, values, persistent=False)


def envelope(distances: Tensor, cutoff: float) -> Tensor:
    """f_c of distances (E,) in Å, which takes every pair to zero at the cutoff."""
    return smooth_step((cutoff - distances) / (TAIL * cutoff))


def _numbers(elements: Sequence[str | int]) -> list[int]:
    given = [elements] if isinstance(elements, (str, int)) else list(elements)
    numbers = [atomic_numbers.get(e, 0) if isinstance(e, str) else int(e) for e in given]
    bad = [e for e, z in zip(given, numbers, strict=True) if not 1 <= z <= MAX_ATOMIC_NUMBER]
    if bad or not given or len(set(numbers)) < len(numbers):
        raise InputError(f"elements are {given}; expected symbols or atomic numbers of 1 to 99, each once")
    return sorted(numbers)


def before_softplus(values: Tensor) -> Tensor:
    """x with softplus(x) = values."""
    return values + torch.log(-torch.expm1(-values))
