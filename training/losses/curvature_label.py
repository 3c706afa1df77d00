r"""Curvature labels: the change of a model's forces along a direction is held to that of a teacher.

A teacher T may know how forces change around a structure r, even where its own forces are far from the labels. So its
Hessian–vector products are targets, and its forces are not (projected Hessian learning, arXiv 2603.04523). With a
displacement d = εv,

    H_T v = −[F_T(r+d) − F_T(r−d)] / 2ε
    L     = mean over atoms of | H v − H_T v |₂,   H v = −[F(r+d) − F(r−d)] / 2ε

Model and teacher are differenced over the same d, so no step makes the target wrong. Gradients flow through both forces
of the model. Each training structure has labels for several d, of which a step draws one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import predict
from training.losses.displaced import Displacements, Field, evaluate_points, reaching
from training.losses.weak import WeakOutput
from training.perturb import largest_relative_shift
from training.processes.ranks import place_of_atoms

__all__ = ["CHANGES", "CURVATURE_LABEL", "DIRECTIONS", "CurvatureLabel"]

CURVATURE_LABEL = "curvature_label"
"""Name of the method and of its output."""
DIRECTIONS, CHANGES = "_curvature_directions", "_curvature_changes"
"""Of a sample: d in Å and ½ [F_T(r−d) − F_T(r+d)] in eV/Å, (N, k, 3) each; zeros where the teacher says nothing."""


class CurvatureLabel(nn.Module):
    """Predictions at the labelled structures together with the errors of the model's Hessian–vector products.

    Parameters
    ----------
    weight : float
        Of the mean error (eV/Å²) in the loss.
    epsilon : float
        Å; largest displacement along each axis.
    """

    def __init__(self, weight: float, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    @property
    def outputs(self) -> list[WeakOutput]:
        """The error of the Hessian–vector products."""
        return [WeakOutput(CURVATURE_LABEL, "l2mae", self.weight)]

    def forward(
        self, model: Any, graph: AtomGraph, labels: Mapping[str, Tensor], *, forces: bool, stress: bool = False
    ) -> dict[str, Tensor]:
        """Return `energy` (B,), `forces` (N, 3), `stress` if asked for, and the errors (N, 3) in eV/Å²."""
        graph = reaching(graph, model.cutoff + largest_relative_shift(self.epsilon))
        d, change = _drawn(graph, labels[DIRECTIONS], labels[CHANGES])
        field, out = Field(), {}
        if stress:  # apart from the displaced structures, which need no strain
            at_r = predict(model, graph.within(model.cutoff), forces=True, stress=True, create_graph=True)
            assert at_r.forces is not None and at_r.stress is not None
            field.energy["r"], field.forces["r"], out["stress"] = at_r.energy, at_r.forces, at_r.stress
        evaluate_points(model, graph, {"r": forces, "r+d": True, "r-d": True}, Displacements(d, d), field)
        out["energy"] = field.energy["r"]
        if "r" in field.forces:
            out["forces"] = field.forces["r"]
        told = 0.5 * (field.forces["r-d"] - field.forces["r+d"])
        out[CURVATURE_LABEL] = (told - change.to(told.dtype)) / self.epsilon
        return out


def _drawn(graph: AtomGraph, directions: Tensor, changes: Tensor) -> tuple[Tensor, Tensor]:
    """Return d and the change of the force (N, 3) of one direction of each structure, drawn at random."""
    n, device = graph.n_atoms, graph.positions.device
    # One number for each atom of the whole batch, as several processes draw; that of its first atom is a structure's.
    first, total = place_of_atoms(n)
    draw = torch.rand(total, dtype=torch.float64)[first : first + n].to(device)
    counts = graph.counts()
    of_structure = draw.index_select(0, counts.cumsum(0) - counts)
    chosen = (of_structure * directions.shape[1]).long().index_select(0, graph.batch)[:, None, None].expand(n, 1, 3)
    return directions.gather(1, chosen)[:, 0].to(graph.positions.dtype), changes.gather(1, chosen)[:, 0]
