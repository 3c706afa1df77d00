r"""PITC and PISC, the weakly supervised losses that hold a model to the physics of its own field.

They (Takamoto, Zaverkin, Niepert, ICML 2025, arXiv 2408.05215) ask that energies E and forces F of a model agree along
small displacements d, d' of a structure r. The residuals R, per structure, in eV:

    PITC   first        E(r+d) − E(r) + Σ d·F(r)
           trapezoid    E(r+d) − E(r) + ½ Σ d·(F(r) + F(r+d))
           antithetic   E(r+d) − E(r−d) + 2 Σ d·F(r)
    PISC   first        E(r+d) − E(r+d') + Σ (d−d')·F(r+d')
           trapezoid    E(r+d) − E(r+d') + ½ Σ (d−d')·(F(r+d) + F(r+d'))
           antithetic   E(r+d) − E(r+d') + Σ (d−d')·F(r + ½(d+d'))

`first` is the published form. For a perfect model its residual is ½dᵀHd, not zero: it penalises curvature; the
residuals of the other two are of third order in d (the antithetic form of PISC is the one about the middle of its leg).
Σ runs over the atoms of one structure, the loss is the mean over structures, and gradients flow through every E and F.

    symbol   variable         symbol   variable
    d, d'    d, d_prime       R        residual
    E, F     field.energy, field.forces (by point)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from training.losses.displaced import Displacements, Field, Point, evaluate_points, reaching
from training.losses.supervised import DISTANCES
from training.options import Normalisation, Order, ResidualDistance
from training.perturb import Perturbation, largest_relative_shift

__all__ = ["PISC", "PITC", "WeakLoss", "work"]


class WeakLoss(ABC):
    """A loss on a model's own energies and forces at displaced structures.

    Parameters
    ----------
    weight : float
        Coefficient in the total loss; calling the object gives the loss without it. Published coefficients are for
        kcal/mol: in eV, beside mean absolute errors, the same balance needs 23.06 times as much (1.2 → 27.7).
    epsilon : float
        Å; largest displacement along each axis.
    normalisation : {"total", "per_atom"}
        Residual of the whole structure, as published, which grows with its size; or divided by the number of atoms.
    distance : {"mse", "mae", "huber"}
        Of the residual to zero.
    perturbation : Perturbation, optional
        In place of `epsilon`, where more than that is to be said.

    Raises
    ------
    InputError
        For a weight that is negative or an option that is not allowed.
    """

    name: str
    labels: tuple[str, ...] = ()
    """Labels that the residual needs."""
    needs: Mapping[Point, bool]
    """Points where the energy is needed → whether the forces are, too."""

    def __init__(
        self,
        weight: float = 1.0,
        *,
        epsilon: float = 0.05,
        normalisation: Normalisation = "total",
        distance: ResidualDistance = "mse",
        perturbation: Perturbation | None = None,
    ):
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{self.name}: weight is {weight}; expected 0 (off) or more")
        one_of(f"{self.name}: normalisation", normalisation, get_args(Normalisation))
        one_of(f"{self.name}: distance", distance, get_args(ResidualDistance))
        self.weight = float(weight)
        self.normalisation, self.distance = normalisation, distance
        self.perturbation = Perturbation(epsilon) if perturbation is None else perturbation

    @abstractmethod
    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,), from the energies and forces at `needs`."""

    def normalised(self, residual: Tensor, graph: AtomGraph) -> Tensor:
        """Return the residuals (B,) in eV, or in eV per atom."""
        return residual / graph.counts() if self.normalisation == "per_atom" else residual

    def reduce(self, residual: Tensor, graph: AtomGraph) -> Tensor:
        """Return the loss from the residuals (B,): scalar tensor."""
        residual = self.normalised(residual, graph)
        return DISTANCES[self.distance](residual, torch.zeros_like(residual))

    def __call__(
        self,
        model: Any,
        graph: AtomGraph,
        labels: Mapping[str, Tensor] | None = None,
        *,
        generator: torch.Generator | None = None,
        displacements: Displacements | None = None,
    ) -> Tensor:
        """Return the loss of a model on a batch, without the weight: a scalar, differentiable in the model's weights.

        Parameters
        ----------
        model : callable
            AtomGraph → (N,) energies in eV; has an attribute `cutoff` (Å). Conservative, or with a force head.
        graph : AtomGraph
            Its neighbour list is used for the copies where it reaches as far as the perturbation asks, cutoff +
            2√3 ε; else a new one is made.
        labels : mapping, optional
            "energy" (B,) in eV and "forces" (N, 3) in eV/Å, for the variants that need them.
        generator : torch.Generator, optional
            For the perturbation; None takes torch's global one.
        displacements : Displacements, optional
            In place of the random ones.
        """
        self._check_labels(labels)
        field = Field()
        if displacements is None:
            graph = reaching(graph, model.cutoff + largest_relative_shift(self.perturbation.epsilon))
            displacements = self._draw(model, graph, labels or {}, generator, field)
        else:
            longest = max(displacements.d.norm(dim=-1).max(), displacements.d_prime.norm(dim=-1).max())
            graph = reaching(graph, model.cutoff + 2 * float(longest))
        evaluate_points(model, graph, self.needs, displacements, field)
        return self.reduce(self.residual(field, graph, displacements, labels), graph)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight={self.weight:g}, {self.perturbation}, {self.normalisation})"

    def _check_labels(self, labels: Mapping[str, Tensor] | None) -> None:
        missing = [name for name in self.labels if name not in (labels or {})]
        if missing:
            raise InputError(f"{self.name} needs the labels {missing}; give them, or use 'pitc', which needs none")

    def _draw(
        self,
        model: Any,
        graph: AtomGraph,
        labels: Mapping[str, Tensor],
        generator: torch.Generator | None,
        field: Field,
    ) -> Displacements:
        zero = torch.zeros_like(graph.positions)
        forces = None
        if self.perturbation.kind == "adversarial":
            evaluate_points(model, graph, {"r": True}, Displacements(zero, zero), field)
            forces = field.forces["r"]
        d = self.perturbation.first(graph, generator, forces=forces, reference=labels.get("forces"))
        return Displacements(d, self.perturbation.uniform(graph, generator))


class _Ordered(WeakLoss):
    """A loss that comes in three orders; parameters as for `WeakLoss`, and `order`."""

    _needs: Mapping[Order, Mapping[Point, bool]]

    def __init__(self, weight: float = 1.0, *, order: Order = "first", **options: Any):
        super().__init__(weight, **options)
        one_of(f"{self.name}: order", order, tuple(self._needs))
        self.order, self.needs = order, self._needs[order]

    def __repr__(self) -> str:
        return super().__repr__().replace("(", f"(order={self.order!r}, ", 1)


class PITC(_Ordered):
    """Taylor-expansion consistency: the energy at r + d is that at r minus the work of the forces.

    Parameters as for `WeakLoss`, and `order`: "first" (published), "trapezoid" or "antithetic".
    """

    name = "pitc"
    _needs = {
        "first": {"r": True, "r+d": False},
        "trapezoid": {"r": True, "r+d": True},
        "antithetic": {"r": True, "r+d": False, "r-d": False},
    }

    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,); the equations stand at the head of this file."""
        e, f = field.energy, field.forces
        if self.order == "first":
            return e["r+d"] - e["r"] + work(graph, at.d, f["r"])
        if self.order == "trapezoid":
            return e["r+d"] - e["r"] + 0.5 * work(graph, at.d, f["r"] + f["r+d"])
        return e["r+d"] - e["r-d"] + 2.0 * work(graph, at.d, f["r"])


class PISC(_Ordered):
    """Spatial consistency: the energy at r + d is the same whether it is reached from r or by way of r + d'.

    Parameters as for `WeakLoss`, and `order`: "first" (published), "trapezoid" or "antithetic".
    """

    name = "pisc"
    _needs = {
        "first": {"r+d": False, "r+d'": True},
        "trapezoid": {"r+d": True, "r+d'": True},
        "antithetic": {"r+d": False, "r+d'": False, "middle": True},
    }

    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,); the equations stand at the head of this file."""
        e, f, leg = field.energy, field.forces, at.d - at.d_prime
        if self.order == "first":
            return e["r+d"] - e["r+d'"] + work(graph, leg, f["r+d'"])
        if self.order == "trapezoid":
            return e["r+d"] - e["r+d'"] + 0.5 * work(graph, leg, f["r+d"] + f["r+d'"])
        return e["r+d"] - e["r+d'"] + work(graph, leg, f["middle"])


def work(graph: AtomGraph, d: Tensor, forces: Tensor) -> Tensor:
    """Return Σ_i d_i·F_i over the atoms of each structure, (B,)."""
    return graph.sum_over_atoms((d * forces).sum(-1))


def one_of(what: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{what} is {value!r}; allowed: {', '.join(allowed)}")
