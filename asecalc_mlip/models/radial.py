"""Radial bases and the cutoff function that the models share."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = [
    "BesselBasis",
    "EnvelopedBasis",
    "ExpNormalBasis",
    "GaussianBasis",
    "RadialBasisName",
    "cosine_cutoff",
    "make_radial_basis",
]

RadialBasisName = Literal["gaussian", "bessel"]


def cosine_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """f_c(d) = ½ (cos(πd/r_c) + 1) for d < r_c, else 0 (Behler, JCP 134 (2011) 074106)."""
    return 0.5 * (torch.cos(distances * (math.pi / cutoff)) + 1.0) * (distances < cutoff)


class GaussianBasis(nn.Module):
    """φ_k(d) = exp(−½ (d − d_k)²/Δ²), centres d_k evenly spread over 0 … cutoff, Δ their distance (SchNet, 2017)."""

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        self.n_rbf = n_rbf
        self.cutoff = cutoff

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf)."""
        # Made anew in the dtype at hand: centres stored in float32 would limit a float64 model to seven digits.
        centers = torch.linspace(0.0, self.cutoff, self.n_rbf, dtype=distances.dtype, device=distances.device)
        coefficient = -0.5 * ((self.n_rbf - 1) / self.cutoff) ** 2
        # Without the floor far Gaussians are denormal numbers, on which a CPU multiplies about 50 times slower.
        return torch.exp((coefficient * (distances[:, None] - centers).square()).clamp(min=-46.0))


class BesselBasis(nn.Module):
    """φ_k(d) = sin(kπd/r_c)/d (Gasteiger et al., ICLR 2020, arXiv 2003.03123, eq. 7, without the constant factor)."""

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        self.n_rbf = n_rbf
        self.cutoff = cutoff

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf)."""
        frequencies = torch.arange(1, self.n_rbf + 1, dtype=distances.dtype, device=distances.device)
        return torch.sin(distances[:, None] * (frequencies * (math.pi / self.cutoff))) / distances[:, None]


class ExpNormalBasis(nn.Module):
    """φ_k(d) = f_c(d) exp(−β (exp(−5d/r_c) − μ_k)²), narrow where atoms are close (PhysNet, arXiv 1902.08408, eq. 7).

    The μ_k are spread evenly over exp(−r_c/Å) … 1, and β = (2/n (1 − exp(−r_c/Å)))⁻². With f_c, as in TorchMD-NET.
    """

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        self.n_rbf = n_rbf
        self.cutoff = cutoff

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf)."""
        last = math.exp(-self.cutoff)
        centers = torch.linspace(last, 1.0, self.n_rbf, dtype=distances.dtype, device=distances.device)
        beta = (2.0 / self.n_rbf * (1.0 - last)) ** -2
        scaled = torch.exp(distances * (-5.0 / self.cutoff))[:, None]
        # The floor as for Gaussians, against denormal numbers.
        values = torch.exp((-beta * (scaled - centers).square()).clamp(min=-46.0))
        return values * cosine_cutoff(distances, self.cutoff)[:, None]


class EnvelopedBasis(nn.Module):
    """The functions φ_k(d) f_c(d) of a basis, and f_c(d) itself as the last one, for filters with a bias."""

    def __init__(self, basis: GaussianBasis | BesselBasis):
        super().__init__()
        self.basis = basis

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf + 1)."""
        envelope = cosine_cutoff(distances, self.basis.cutoff)[:, None]
        return torch.cat([self.basis(distances) * envelope, envelope], dim=1)


def make_radial_basis(name: RadialBasisName, n_rbf: int, cutoff: float) -> GaussianBasis | BesselBasis:
    """Basis by its name, with `n_rbf` ≥ 2 functions over 0 … `cutoff` (Å)."""
    bases: dict[str, type[GaussianBasis] | type[BesselBasis]] = {"gaussian": GaussianBasis, "bessel": BesselBasis}
    if name not in bases:
        raise ValueError(f"radial_basis {name!r} is unknown; choose one of {sorted(bases)}")
    if n_rbf < 2:
        raise ValueError(f"n_rbf is {n_rbf}; a radial basis needs at least 2 functions")
    return bases[name](n_rbf, cutoff)
