"""Shared by the engines that work on edge vectors: network and gradient in, a `Prediction` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from asecalc_mlip.graph import AtomGraph, EdgeGraph
from asecalc_mlip.models.potential import Potential, Prediction

__all__ = ["assemble", "energies_and_gradient", "with_vectors"]


def energies_and_gradient(
    network: nn.Module,
    numbers: Tensor,
    vectors: Tensor,
    centers: Tensor,
    neighbors: Tensor,
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Output of a network for each atom, (N,) float64, and the derivative of its sum by the edge vectors, (E, 3).

    It looks at no value on the host, so it can be traced and captured.

    Parameters
    ----------
    network : nn.Module
    numbers : (N,) int64
    vectors : (E, 3) float64
        Å.
    centers, neighbors : (E,) int64
    weights : mapping, optional
        Tensors to use in place of those of the network, by name.
    """
    with torch.enable_grad():
        vectors = vectors.detach().requires_grad_()
        graph = with_vectors(numbers, vectors, centers, neighbors)
        raw = (network(graph) if weights is None else functional_call(network, dict(weights), (graph,))).double()
        (gradient,) = torch.autograd.grad(raw.sum(), vectors, allow_unused=True, materialize_grads=True)
    return raw.detach(), gradient


def with_vectors(numbers: Tensor, vectors: Tensor, centers: Tensor, neighbors: Tensor) -> EdgeGraph:
    """Return a graph of edge vectors (E, 3), which networks take without a look at any value."""
    nothing: Any = None
    return EdgeGraph(
        numbers, nothing, nothing, centers=centers, neighbors=neighbors, cell=nothing, edge_vectors=vectors
    )


def assemble(
    potential: Potential,
    alone: Tensor,
    graph: AtomGraph,
    vectors: Tensor,
    raw: Tensor,
    gradient: Tensor | None,
    *,
    forces: bool,
    stress: bool,
) -> Prediction:
    """Prediction from the output of the network (N,), that of isolated atoms by number, and the gradient (E, 3)."""
    energies = (raw - alone.index_select(0, graph.numbers)) * potential.scale
    energies = energies + potential.e0.index_select(0, graph.numbers)
    if gradient is None or not (forces or stress):
        return Prediction(graph.sum_over_atoms(energies), energies)
    gradient = gradient.mul_(potential.scale)
    return Prediction(
        energy=graph.sum_over_atoms(energies),
        energies=energies,
        forces=_forces(graph, gradient) if forces else None,
        stress=_stress(graph, vectors, gradient) if stress else None,
    )


def _forces(graph: AtomGraph, gradient: Tensor) -> Tensor:
    # The edge vector grows with the neighbour's position and shrinks with the centre's.
    forces = torch.zeros_like(graph.positions).index_add_(0, graph.neighbors, gradient)
    return forces.neg_().index_add_(0, graph.centers, gradient)


def _stress(graph: AtomGraph, vectors: Tensor, gradient: Tensor) -> Tensor:
    if graph.n_structures == 1:
        virial = (vectors.T @ gradient)[None]
    else:
        structure = graph.batch.index_select(0, graph.centers)
        virial = torch.zeros_like(graph.cell).index_add_(0, structure, vectors[:, :, None] * gradient[:, None, :])
    # By products, as torch.linalg.det and where(…, nan) cannot be captured into a CUDA graph everywhere.
    a, b, c = graph.cell.unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum(-1).abs()
    return (0.5 * (virial + virial.transpose(1, 2)) / volume[:, None, None]).masked_fill(
        (volume <= 0)[:, None, None], torch.nan
    )
