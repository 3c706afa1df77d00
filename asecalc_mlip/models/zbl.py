r"""ZBL, the universal repulsion of screened nuclei (Ziegler, Biersack, Littmark, The Stopping and Range of Ions, 1985).

    V_ab(r) = (e²/4πε0) Z_a Z_b / r · φ(r/ℓ_ab) · S(r),      ℓ_ab = 0.46850 Å / (Z_a^0.23 + Z_b^0.23)
    φ(x)    = 0.18175 e^(−3.19980x) + 0.50986 e^(−0.94229x) + 0.28022 e^(−0.40290x) + 0.02817 e^(−0.20162x)
    S(r)    = 6s⁵ − 15s⁴ + 10s³ of s = (r_end − r)/(r_end − r_start), kept within 0 … 1

    symbol   variable            symbol   variable
    ℓ_ab     length              S        smooth_step
    r_end    OUTER · (R_a + R_b) r_start  INNER · (R_a + R_b)

R are covalent radii, so that R_a + R_b is a single bond. It is not fitted: a core for potentials that are finite where
atoms meet, and a prior for models that never saw them so close.
"""

from __future__ import annotations

import ctypes

import torch
from ase.data import covalent_radii
from torch import Tensor
from torch.nn.functional import pad

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels.library import integers, pointers, reals
from asecalc_mlip.kernels.packing import NativeKernel, Packed, Packer
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.traits import Memory, Network, Traits

__all__ = ["EAM_KERNEL", "PAIR_CONSTANTS", "ZBL", "EAMWeights", "screening_rate", "smooth_step"]

# e²/4πε0 in eV Å.
COULOMB = 14.399645
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
# Shares of the sum of covalent radii. Most bonds are longer than 0.8 of a single one. Some multiple ones are not: N2
# has 0.77, acetylene 0.79, titanium, vanadium and uranium with a double-bonded oxygen 0.7. Trainings tell where the
# core acts on their data.
INNER, OUTER = 0.4, 0.8


def smooth_step(s: Tensor) -> Tensor:
    """6s⁵ − 15s⁴ + 10s³ between 0 and 1, 0 below and 1 above; first and second derivatives vanish at both ends."""
    s = s.clamp(0.0, 1.0)
    return s * s * s * (10.0 + s * (6.0 * s - 15.0))


def screening_rate(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """1/ℓ of pairs of atomic numbers, (E,) in 1/Å."""
    return (a.to(dtype).pow(0.23) + b.to(dtype).pow(0.23)) / 0.46850


class EAMWeights(ctypes.Structure):
    """`Network` of kernels/eam.cpp, which also runs a core alone: an EAM without bonds and density."""

    _fields_ = [
        *integers("elements", "exponentials", "core"),
        *reals("cutoff", "tail"),
        *pointers("species", "pairs", "shares", "decays", "embedding"),
    ]


EAM_KERNEL = NativeKernel("eam", {torch.float32: 1, torch.float64: 1}, EAMWeights)
# Per pair of elements in `pairs`: depth, stiffness, bond and radii of an EAM, then the four of a core.
PAIR_CONSTANTS = 8


class ZBL(Network):
    """Screened Coulomb repulsion that ends at 0.8 of a single bond; no parameters, any element.

    Returns half of each pair's energy per atom, in eV, zero for atoms without close neighbours.
    """

    traits = Traits(
        native=EAM_KERNEL,
        native_messages=False,
        memory=Memory(native=(1.0, 1.0), plain=(1.0, 1.0)),
        hessian=None,
        compiling_pays=False,
        trims_edges=False,
        halo=1.0,
        train_instead="it has no weights; add it with model.prior=zbl, or to a finished model with: asecalc core",
    )
    radii: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not in files: it is a table of nature, the same for every model.
        radii = torch.tensor(covalent_radii[: MAX_ATOMIC_NUMBER + 1])
        self.register_buffer("radii", radii, persistent=False)
        self.n_features = self.n_blocks = 1

    @property
    def reach(self) -> float:
        """Å; beyond this no two atoms feel it."""
        return 2.0 * OUTER * float(self.radii.max())

    @property
    def cutoff(self) -> float:  # type: ignore[override]
        """Å; as a part of a sum it needs a neighbour list like any other."""
        return self.reach

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom in eV, (N,), in the dtype of the table of radii."""
        distances = graph.vectors().to(self.radii.dtype).square().sum(-1).sqrt()
        a, b = (graph.numbers.index_select(0, index) for index in (graph.centers, graph.neighbors))
        energies = distances.new_zeros(graph.numbers.shape[0])
        return energies.index_add(0, graph.centers, 0.5 * self.pair_energy(a, b, distances))

    def pair_energy(self, a: Tensor, b: Tensor, distances: Tensor) -> Tensor:
        """Energy in eV of pairs of atoms, (E,).

        Parameters
        ----------
        a, b : (E,) int64
            Atomic numbers.
        distances : (E,)
            Å, above 0.
        """
        z_a, z_b = a.to(distances.dtype), b.to(distances.dtype)
        x = distances * screening_rate(a, b, distances.dtype)
        # The sum starts with its first term, because torch may not add a number to a tensor it has not seen.
        screening = torch.stack([c * torch.exp(-d * x) for c, d in SCREENING]).sum(0)
        bond = (self.radii.index_select(0, a) + self.radii.index_select(0, b)).to(distances.dtype)
        switch = smooth_step((OUTER * bond - distances) / ((OUTER - INNER) * bond))
        return COULOMB * z_a * z_b / distances * screening * switch

    def packed(self) -> Packed:
        """For kernels/eam.cpp."""
        n, dtype, packer = len(self.radii), self.radii.dtype, Packer()
        z = torch.arange(n)
        nothing = torch.zeros(0, dtype=dtype)
        return packer.packed(
            EAMWeights,
            elements=n,
            exponentials=0,
            core=1,
            cutoff=self.cutoff,
            tail=1.0,
            species=z.to(dtype),
            pairs=pad(self.constants(z.repeat_interleave(n), z.repeat(n), dtype), (PAIR_CONSTANTS - 4, 0)),
            shares=nothing,
            decays=nothing,
            embedding=torch.zeros(n, 2, dtype=dtype),
        )

    def constants(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        """End and start of the switch (Å), Coulomb energy at 1 Å (eV) and 1/ℓ (1/Å) of pairs of elements, (P, 4)."""
        bond = (self.radii[a] + self.radii[b]).to(dtype)
        columns = [OUTER * bond, INNER * bond, COULOMB * (a * b).to(dtype), screening_rate(a, b, dtype)]
        return torch.stack(columns, dim=1)
