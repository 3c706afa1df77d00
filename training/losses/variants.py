"""Variants and rivals of PITC and PISC: what the papers' ablations compare, behind the same interface."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from asecalc_mlip.graph import AtomGraph
from training.losses.displaced import STEP, Displacements, Field, Point
from training.losses.taylor import WeakLoss, work

__all__ = ["Curvature", "Endpoint", "TaylorLabel", "TwoPoint", "TwoPointLabel"]


class TwoPoint(WeakLoss):
    """PISC with only r and r + d: R = E(r) − E(r+d) − Σ d·F(r+d)."""

    name = "two_point"
    needs: Mapping[Point, bool] = {"r": False, "r+d": True}

    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,)."""
        return field.energy["r"] - field.energy["r+d"] - work(graph, at.d, field.forces["r+d"])


class TwoPointLabel(WeakLoss):
    """`TwoPoint` with the label in place of the model's own energy: R = E_ref(r) − E(r+d) − Σ d·F(r+d)."""

    name = "two_point_label"
    labels = ("energy",)
    needs: Mapping[Point, bool] = {"r+d": True}

    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,)."""
        assert labels is not None
        return labels["energy"] - field.energy["r+d"] - work(graph, at.d, field.forces["r+d"])


class TaylorLabel(WeakLoss):
    """Labels extrapolated to first order (Cooper et al., npj Comput. Mater. 6:54, 2020).

    R = E(r+d) − E_ref(r) + Σ d·F_ref(r).
    """

    name = "taylor_label"
    labels = ("energy", "forces")
    needs: Mapping[Point, bool] = {"r+d": False}

    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,)."""
        assert labels is not None
        return field.energy["r+d"] - labels["energy"] + work(graph, at.d, labels["forces"])


class Endpoint(WeakLoss):
    """Two extrapolations to r + d that must agree: R = E(r) − Σ d·F(r) − E(r+d') + Σ (d−d')·F(r+d')."""

    name = "endpoint"
    needs: Mapping[Point, bool] = {"r": True, "r+d'": True}

    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,)."""
        direct = field.energy["r"] - work(graph, at.d, field.forces["r"])
        return direct - field.energy["r+d'"] + work(graph, at.d - at.d_prime, field.forces["r+d'"])


class Curvature(WeakLoss):
    """Explicit smoothness penalty, a rival: R = ½ dᵀHd, whose mean over d is ½ σ² Tr H with σ² = ε²/3.

    One Hutchinson probe per structure and step. H d comes from a central difference of forces over ±d/10: its error is
    of fourth order, and a third derivative of the network is spared.
    """

    name = "curvature"
    needs: Mapping[Point, bool] = {"r+hd": True, "r-hd": True}

    def residual(
        self, field: Field, graph: AtomGraph, at: Displacements, labels: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return R of each structure in eV, (B,)."""
        return -0.25 / STEP * work(graph, at.d, field.forces["r+hd"] - field.forces["r-hd"])
