"""What gpu.py measures of trainings: milliseconds of a step, and the errors of its loss and gradient."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from asecalc_mlip.bench.structures import structure
from asecalc_mlip.graph import AtomGraph, batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import gpu, plain_kernels
from asecalc_mlip.models import Potential, predict
from benchmarks.speed.gpu_bench import CUTOFF, Bench, random_potential

__all__ = ["training", "training_parity"]


def training(bench: Bench, architecture: str, kind: str, kernels: str) -> dict[str, Any]:
    """Milliseconds of a training step on 10 aspirins, plain or with the losses of PIWSL.

    `kernels` are those of the device, or "plain" for messages in plain torch.
    """
    from training.losses import PISC, PITC

    model, graph, energies, forces = _trainable(bench, architecture)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    weak = [PITC(0.1), PISC(0.01)] if kind == "piwsl" else []

    def step() -> None:
        optimizer.zero_grad()
        loss = _loss(model, graph, energies, forces)
        for term in weak:
            loss = loss + term(model, graph)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    bench.peak()
    with plain_kernels() if kernels == "plain" else nullcontext():
        ms = bench.time(step)
    failed = {} if gpu.why_not() is None else {"not_triton": gpu.why_not()}
    return {"ms": ms, "structures_per_s": round(1e4 / ms, 1), **failed, **bench.peak()}


def training_parity(bench: Bench, architecture: str) -> dict[str, Any]:
    """Error of the loss and of its gradient by all weights, in float32 against plain torch in float64.

    Of the kernels of the device, and of plain torch in float32 beside them.
    """
    model, graph, energies, forces = _trainable(bench, architecture)

    def step(model: Potential) -> tuple[float, torch.Tensor]:
        loss = _loss(model, graph, energies, forces)
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return float(loss.detach()), torch.cat([t.double().flatten() for t in found if t is not None])

    with plain_kernels():
        right_loss, right = step(copy.deepcopy(model).double())
        plain_loss, plain = step(model)
    loss, found = step(model)
    if gpu.why_not() is not None:
        raise RuntimeError(f"the kernels of trainings cannot be used: {gpu.why_not()}")
    return {
        "loss_error": abs(loss - right_loss) / right_loss,
        "gradient_error": float((found - right).norm() / right.norm()),
        "plain_loss_error": abs(plain_loss - right_loss) / right_loss,
        "plain_gradient_error": float((plain - right).norm() / right.norm()),
    }


def _trainable(bench: Bench, architecture: str) -> tuple[Potential, AtomGraph, torch.Tensor, torch.Tensor]:
    """Model in training, 10 aspirins, and labels of no meaning: energies and forces."""
    model = random_potential(bench, architecture)
    # A reach that lets the displaced structures of the weak losses keep their list.
    graph = batch_graphs([graph_from_atoms(structure("aspirin"), CUTOFF + 0.5)] * 10)
    graph = replace(graph, positions=graph.positions + 0.02 * torch.randn_like(graph.positions)).to(bench.device)
    energies, forces = torch.randn(10, device=bench.device).double(), torch.randn_like(graph.positions)
    return model.to(bench.device).train(), graph, energies, forces


def _loss(model: Potential, graph: AtomGraph, energies: torch.Tensor, forces: torch.Tensor) -> torch.Tensor:
    found = predict(model, graph, create_graph=True)
    assert found.forces is not None
    of_forces = (found.forces - forces).square().sum(-1).add(1e-12).sqrt().mean()
    return (found.energy - energies).abs().mean() + of_forces
