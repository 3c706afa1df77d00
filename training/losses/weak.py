"""Weak supervision in a training step: the losses a configuration asks for, evaluated together with the labels' points.

All losses of a step share one pair of displacements and the points they have in common, among them r itself, where the
supervised losses look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from schnetpack.task import UnsupervisedModelOutput
from torch import Tensor, nn

from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import predict
from asecalc_mlip.models.vector_head import VectorHead
from training.data.samples import row_weights
from training.losses.displaced import Displacements, Field, Point, displaced, evaluate_points, reaching
from training.losses.supervised import distance
from training.losses.taylor import WeakLoss
from training.options import Distance
from training.perturb import Perturbation, largest_relative_shift, uniform
from training.processes.ranks import share

__all__ = ["NoisyNodes", "WeakOutput", "WeakSupervision"]

Predictions = dict[str, Tensor]


class WeakSupervision(nn.Module):
    """Predictions at the labelled structures together with the residuals of weakly supervised losses.

    Parameters
    ----------
    losses : sequence of WeakLoss
    perturbation : Perturbation
        One for all losses.
    """

    def __init__(self, losses: Sequence[WeakLoss], perturbation: Perturbation):
        super().__init__()
        self.losses, self.perturbation = list(losses), perturbation

    @property
    def outputs(self) -> list[WeakOutput]:
        """One output for SchNetPack's task per loss."""
        return [WeakOutput(loss.name, loss.distance, loss.weight) for loss in self.losses]

    def forward(
        self, model: Any, graph: AtomGraph, labels: Mapping[str, Tensor], *, forces: bool, stress: bool = False
    ) -> Predictions:
        """Return `energy` (B,), `forces` (N, 3), `stress` if asked for, and residuals (B,) by name of the loss."""
        needs = self._needs(forces)
        graph = reaching(graph, model.cutoff + largest_relative_shift(self.perturbation.epsilon))
        field, out = Field(), {}
        if stress or self.perturbation.kind == "adversarial":
            # Apart from the other points: these need it first, or no strain.
            at_r = predict(model, graph.within(model.cutoff), forces=True, stress=stress, create_graph=True)
            assert at_r.forces is not None
            field.energy["r"], field.forces["r"] = at_r.energy, at_r.forces
            if at_r.stress is not None:
                out["stress"] = at_r.stress
        d = self.perturbation.first(graph, forces=field.forces.get("r"), reference=labels.get("forces"))
        at = Displacements(d, self.perturbation.uniform(graph))
        evaluate_points(model, graph, needs, at, field)
        out["energy"] = field.energy["r"]
        if "r" in field.forces:
            out["forces"] = field.forces["r"]
        for loss in self.losses:
            out[loss.name] = loss.normalised(loss.residual(field, graph, at, labels), graph)
        return out

    def _needs(self, forces: bool) -> dict[Point, bool]:
        needs: dict[Point, bool] = {"r": forces}
        for loss in self.losses:
            for point, wanted in loss.needs.items():
                needs[point] = needs.get(point, False) or wanted
        return needs


class NoisyNodes(nn.Module):
    """Labels kept while positions are jittered, and a head that tells the jitter from the vectors (Godwin et al. 2022).

    The head is a part of training only and does not end in the model file.

    Parameters
    ----------
    weight : float
        Of the mean square error of the jitter, in units of epsilon.
    epsilon : float
        Å; jitter along each axis is uniform in (−ε, ε).
    n_features : int
        Of the network.
    """

    def __init__(self, weight: float, epsilon: float, n_features: int):
        super().__init__()
        self.weight, self.epsilon = weight, epsilon
        self.head = VectorHead(n_features)

    @property
    def outputs(self) -> list[WeakOutput]:
        """The denoising loss."""
        return [WeakOutput("noise", "mse", self.weight)]

    def forward(
        self, model: Any, graph: AtomGraph, labels: Mapping[str, Tensor], *, forces: bool, stress: bool = False
    ) -> Predictions:
        """Return `energy`, `forces`, `stress` of the jittered structures, and the error of the `noise` (N, 3)."""
        graph = reaching(graph, model.cutoff + largest_relative_shift(self.epsilon))
        noise = uniform(graph, self.epsilon)
        heard: list[tuple[Tensor, Tensor]] = []

        def listening(copy: AtomGraph) -> Tensor:
            energies, vectors, scalars = model.energies_and_vectors(copy)
            heard.append((scalars, vectors))
            return energies

        moved = displaced(graph, noise).within(model.cutoff)
        result = predict(listening, moved, forces=forces, stress=stress, create_graph=True)
        told = self.head(*heard[0])
        out = {"energy": result.energy, "noise": told - (noise / self.epsilon).to(told.dtype)}
        for name, value in (("forces", result.forces), ("stress", result.stress)):
            if value is not None:
                out[name] = value
        return out


class WeakOutput(UnsupervisedModelOutput):
    """A residual as an output of SchNetPack's task; absent, and then without loss, outside of training.

    Frames have their weights here as in the losses of labels: those far from the data, where atoms overlap, have
    residuals beside which all others would vanish.
    """

    def __init__(self, name: str, kind: Distance, weight: float):
        super().__init__(name, loss_fn=distance(kind), loss_weight=weight, metrics={})

    def calculate_loss(self, pred: Mapping[str, Tensor], target: Mapping[str, Tensor] | None = None) -> Tensor | float:
        """Return the weighted loss, 0 where the residual was not computed."""
        if self.name not in pred:
            return 0.0
        residual, weights = pred[self.name], row_weights(target or {}, self.name)
        loss = self.loss_fn(residual, torch.zeros_like(residual), weights)
        return share(residual, self.name) * (self.loss_weight * loss)
