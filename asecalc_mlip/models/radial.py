"""Radial bases and the cutoff function that the models share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from asecalc_mlip.models.constants import Table

__all__ = [
    "BesselBasis",
    "Envelope",
    "EnvelopedBasis",
    "ExpNormalBasis",
    "GaussianBasis",
    "RadialBasisName",
    "SmoothBesselBasis",
    "SphericalBesselBasis",
    "TensorBasisName",
    "cosine_cutoff",
    "envelope_by_name",
    "make_radial_basis",
    "polynomial_cutoff",
]

RadialBasisName = Literal["gaussian", "bessel"]
TensorBasisName = Literal["expnorm", "gaussian", "bessel", "smooth_bessel"]
Envelope = Literal["smooth", "cosine"]


def cosine_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """f_c(d) = ½ (cos(πd/r_c) + 1) for d < r_c, else 0 (Behler, JCP 134 (2011) 074106)."""
    return 0.5 * (torch.cos(distances * (math.pi / cutoff)) + 1.0) * (distances < cutoff)


def polynomial_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """1 − 10x³ + 15x⁴ − 6x⁵ with x = d/r_c, else 0: value, slope and curvature end at the cutoff."""
    x = (distances / cutoff).clamp(max=1.0)
    return 1.0 + x**3 * (-10.0 + x * (15.0 - 6.0 * x))


def envelope_by_name(name: Envelope) -> Callable[[Tensor, float], Tensor]:
    """Return the function of distances (Å) and cutoff (Å) that ends at the cutoff, by its name."""
    known: dict[str, Callable[[Tensor, float], Tensor]] = {"smooth": polynomial_cutoff, "cosine": cosine_cutoff}
    if name not in known:
        raise ValueError(f"envelope {name!r} is unknown; choose one of {sorted(known)}")
    return known[name]


class GaussianBasis(nn.Module):
    """φ_k(d) = exp(−½ (d − d_k)²/Δ²), centres d_k evenly spread over 0 … cutoff (SchNet, 2017).

    Δ is `width` times the distance of two centres.
    """

    def __init__(self, n_rbf: int, cutoff: float, *, width: float = 1.0):
        super().__init__()
        if n_rbf < 2:
            raise ValueError(f"n_rbf is {n_rbf}; a radial basis needs at least 2 functions")
        self.n_rbf = n_rbf
        self.cutoff = cutoff
        self.width = width

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf)."""
        # Made anew in the dtype at hand: centres stored in float32 would limit a float64 model to seven digits.
        centers = torch.linspace(0.0, self.cutoff, self.n_rbf, dtype=distances.dtype, device=distances.device)
        coefficient = -0.5 * ((self.n_rbf - 1) / (self.width * self.cutoff)) ** 2
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
        # For models/knots.py: eight along the width of a function, and at most 1/80 of the cutoff apart.
        self.knots = (80, 6 * n_rbf)

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf)."""
        last = math.exp(-self.cutoff)
        centers = torch.linspace(last, 1.0, self.n_rbf, dtype=distances.dtype, device=distances.device)
        beta = (2.0 / self.n_rbf * (1.0 - last)) ** -2
        scaled = torch.exp(distances * (-5.0 / self.cutoff))[:, None]
        # The floor as for Gaussians, against denormal numbers.
        values = torch.exp((-beta * (scaled - centers).square()).clamp(min=-46.0))
        return values * cosine_cutoff(distances, self.cutoff)[:, None]


class SmoothBesselBasis(nn.Module):
    """Orthogonal sums of two neighbouring Bessel functions, with slope and curvature zero at the cutoff.

    g_n(d) = (1/d) Σ_m B_nm sin(mπd/r_c), m = 1 … n_rbf + 1 (Kocer, Mason, Erturk, AIP Adv. 10 (2020) 015021).
    """

    def __init__(self, n_rbf: int, cutoff: float):
        super().__init__()
        self.n_rbf = n_rbf
        self.cutoff = cutoff
        self._coefficients = Table(self.coefficients())

    def coefficients(self) -> Tensor:
        """B, (n_rbf, n_rbf + 1) float64."""
        b = torch.zeros(self.n_rbf, self.n_rbf + 1, dtype=torch.float64)
        d = 1.0
        for n in range(self.n_rbf):
            # f_n, in which sinc(kπd/r_c) = sin(kπd/r_c) r_c / (kπd)
            size = (-1) ** n * math.sqrt(2.0) * math.pi / self.cutoff**1.5
            size *= (n + 1) * (n + 2) / math.hypot(n + 1, n + 2)
            row = torch.zeros(self.n_rbf + 1, dtype=torch.float64)
            for k in (n + 1, n + 2):
                row[k - 1] = size * self.cutoff / (k * math.pi)
            e = n**2 * (n + 2) ** 2 / (4 * (n + 1) ** 4 + 1)
            if n > 0:
                row += math.sqrt(e / d) * b[n - 1]
                d = 1.0 - e / d
            b[n] = row / math.sqrt(d)
        return b

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf)."""
        waves = torch.arange(1, self.n_rbf + 2, dtype=distances.dtype, device=distances.device)
        sines = torch.sin(distances[:, None] * (waves * (math.pi / self.cutoff))) / distances[:, None]
        return sines @ self._coefficients.like(distances).T


class SphericalBesselBasis(nn.Module):
    """b_ln(d) = √(2/r_c³) j_l(z_ln d/r_c) / |j_l+1(z_ln)|, z_ln the roots of j_l (DimeNet, arXiv 2003.03123, eq. 7).

    They are zero at the cutoff, their slopes are not.
    """

    def __init__(self, n_rbf: int, n_angular: int, cutoff: float):
        from scipy.special import spherical_jn  # 0.2 s that only this basis takes

        super().__init__()
        self.n_rbf, self.n_angular, self.cutoff = n_rbf, n_angular, cutoff
        roots = _bessel_roots(n_rbf, n_angular)
        sizes = [[abs(float(spherical_jn(n + 1, z))) for z in row] for n, row in enumerate(roots)]
        self._roots = [Table(torch.tensor(row, dtype=torch.float64)) for row in roots]
        self._factors = [Table(math.sqrt(2.0 / cutoff**3) / torch.tensor(row, dtype=torch.float64)) for row in sizes]

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_angular · n_rbf), l the slower index."""
        found = []
        for n, (roots, factors) in enumerate(zip(self._roots, self._factors, strict=True)):
            x = distances[:, None] * (roots.like(distances) / self.cutoff)
            before, value = torch.cos(x) / x, torch.sin(x) / x
            for k in range(n):
                before, value = value, (2 * k + 1) / x * value - before
            found.append(factors.like(distances) * value)
        return torch.cat(found, dim=-1)


def _bessel_roots(n_roots: int, n_orders: int) -> list[list[float]]:
    """Return the first positive roots of j_0, j_1 …, which lie between those of the order before."""
    from scipy.optimize import brentq
    from scipy.special import spherical_jn

    rows = [[math.pi * k for k in range(1, n_roots + n_orders + 1)]]
    for order in range(1, n_orders):
        last = rows[-1]
        rows.append(
            [brentq(partial(spherical_jn, order), a, b, xtol=1e-14) for a, b in zip(last, last[1:], strict=False)]
        )
    return [row[:n_roots] for row in rows]


class EnvelopedBasis(nn.Module):
    """The functions φ_k(d) f_c(d) of a basis, and f_c(d) itself as the last one, for filters with a bias."""

    def __init__(self, basis: GaussianBasis | BesselBasis):
        super().__init__()
        self.basis = basis

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances in Å → (E, n_rbf + 1)."""
        envelope = cosine_cutoff(distances, self.basis.cutoff)[:, None]
        return torch.cat([self.basis(distances) * envelope, envelope], dim=1)


_BASES: dict[str, type[nn.Module]] = {
    "gaussian": GaussianBasis,
    "bessel": BesselBasis,
    "expnorm": ExpNormalBasis,
    "smooth_bessel": SmoothBesselBasis,
}


def make_radial_basis(name: str, n_rbf: int, cutoff: float, *, among: Any = RadialBasisName) -> Any:
    """Basis by its name, with `n_rbf` ≥ 2 functions over 0 … `cutoff` (Å).

    Raises
    ------
    ValueError
        For fewer functions, and a name that is not `among` those of a Literal.
    """
    if name not in get_args(among):
        raise ValueError(f"radial_basis {name!r} is unknown here; choose one of {sorted(get_args(among))}")
    if n_rbf < 2:
        raise ValueError(f"n_rbf is {n_rbf}; a radial basis needs at least 2 functions")
    return _BASES[name](n_rbf, cutoff)
