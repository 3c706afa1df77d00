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

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import predict
from asecalc_mlip.models.potential import NO_STRESS
from asecalc_mlip.models.vector_head import VectorHead
from training.config import LossConfig, WeakConfig
from training.losses.displaced import Displacements, Field, Point, displaced, evaluate_points, reaching
from training.losses.supervised import DISTANCES
from training.losses.taylor import PISC, PITC, WeakLoss
from training.losses.variants import WEAK_LOSSES
from training.perturb import Perturbation, largest_relative_shift, uniform

__all__ = ["NoisyNodes", "WeakOutput", "WeakSupervision", "list_skin", "make_weak"]

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
        """`energy` (B,), `forces` (N, 3) and `stress` where asked for, and the residuals (B,) by name of the loss."""
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
        """`energy` (B,), `forces` (N, 3), `stress` at the jittered structures, and the error of the `noise` (N, 3)."""
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
    """A residual as an output of SchNetPack's task; absent, and then without loss, outside of training."""

    def __init__(self, name: str, kind: str, weight: float):
        super().__init__(name, loss_fn=_ToZero(kind), loss_weight=weight, metrics={})

    def calculate_loss(self, pred: Mapping[str, Tensor], target: Any = None) -> Tensor | float:
        """Weighted loss, 0 where the residual was not computed."""
        return super().calculate_loss(pred) if self.name in pred else 0.0


class _ToZero(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, residual: Tensor) -> Tensor:
        return DISTANCES[self.kind](residual, torch.zeros_like(residual))


def make_weak(config: WeakConfig, loss: LossConfig, potential: Any) -> WeakSupervision | NoisyNodes | None:
    """What `config.method` adds to the outputs of the task; None where it adds nothing.

    Raises
    ------
    InputError
        For methods, labels and models that do not go together.
    """
    _check(config, loss, potential)
    if config.method in ("plain", "sam", "asam"):
        return None
    if config.method == "noisy_nodes":
        return NoisyNodes(config.coefficient, config.epsilon, potential.network.n_features)
    perturbation = Perturbation(config.epsilon, config.perturbation, config.remove_translation)
    options: dict[str, Any] = {
        "normalisation": config.normalisation,
        "distance": config.distance,
        "perturbation": perturbation,
    }
    if config.method != "piwsl":
        return WeakSupervision([WEAK_LOSSES[config.method](config.coefficient, **options)], perturbation)
    options["order"] = config.order
    losses: list[WeakLoss] = [PITC(config.pitc, **options), PISC(config.pisc, **options)]
    return WeakSupervision([one for one in losses if one.weight > 0], perturbation)


def list_skin(config: WeakConfig) -> float:
    """Å by which the neighbour lists of a training must reach beyond the cutoff.

    Raises
    ------
    InputError
        Where `skin` is given and too small.
    """
    if config.method in ("plain", "sam", "asam"):
        return config.skin or 0.0
    needed = largest_relative_shift(config.epsilon)
    if config.skin is not None and config.skin < needed:
        raise InputError(
            f"weak.epsilon {config.epsilon} Å is larger than weak.skin {config.skin} Å allows: two atoms can approach "
            f"each other by 2√3 ε = {needed:.4f} Å. Lower epsilon to {config.skin / largest_relative_shift(1.0):.4f}, "
            "or leave skin empty"
        )
    return needed if config.skin is None else config.skin


def _check(config: WeakConfig, loss: LossConfig, potential: Any) -> None:
    direct = getattr(potential, "direct_forces", False)
    pisc = config.method == "piwsl" and config.pisc > 0
    if direct and pisc and loss.forces_weight <= 0:
        raise InputError(
            "weak.pisc with an energy-only training of a direct-force model: without force labels nothing but PITC "
            "holds the force head. Set weak.pisc=0, give force labels, or use a conservative model "
            "(model.hyperparameters.direct_forces=false)"
        )
    if direct and loss.stress_weight > 0:
        raise InputError(f"loss.stress_weight is {loss.stress_weight}, but {NO_STRESS}")
    if config.method not in ("plain", "piwsl", "sam", "asam") and config.coefficient == 0:
        raise InputError(f"weak.method is {config.method}, but weak.coefficient is 0; set one, or use method plain")
    if config.method == "piwsl" and config.pitc == 0 and config.pisc == 0:
        raise InputError("weak.method is piwsl, but weak.pitc and weak.pisc are both 0; set one, or use method plain")
    adversarial = config.perturbation == "adversarial" and config.method not in ("plain", "sam", "asam", "noisy_nodes")
    if (adversarial or config.method == "taylor_label") and loss.forces_weight <= 0:
        what = "weak.perturbation adversarial" if adversarial else "weak.method taylor_label"
        raise InputError(f"{what} needs force labels, but loss.forces_weight is 0; train with forces, or use uniform")
    if config.method in ("taylor_label", "two_point_label") and loss.energy_weight <= 0:
        raise InputError(f"weak.method {config.method} needs energy labels, but loss.energy_weight is 0")
    if config.method == "noisy_nodes" and (direct or not hasattr(potential.network, "energies_and_vectors")):
        raise InputError("weak.method noisy_nodes needs a conservative painn, whose vectors its head reads")
