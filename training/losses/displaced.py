"""A model at displaced copies of its structures: energies and forces at several points in one batched pass.

The copies share the neighbour list of the undisplaced structures where that reaches far enough, and get a new one where
it does not. Points where only the energy is asked for are kept apart from those with forces: the second derivatives
that a force loss needs are then taken for those alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.graph import AtomGraph, batch_graphs
from asecalc_mlip.models import predict
from asecalc_mlip.neighbors.lists import neighbor_list

__all__ = ["POINTS", "STEP", "Displacements", "Field", "displaced", "evaluate_points", "reaching"]

Point = Literal["r", "r+d", "r-d", "r+d'", "middle", "r+hd", "r-hd"]
POINTS: tuple[Point, ...] = get_args(Point)
# Share of d over which a curvature is taken from forces: 0.005 Å at d = 0.05 Å, where float32 forces still differ by
# some thousand times their rounding.
STEP = 0.1


@dataclass(frozen=True)
class Displacements:
    """d and d', (N, 3) in Å, constants. `middle` is half-way between r + d and r + d'; h = 0.1 is for differences."""

    d: Tensor
    d_prime: Tensor

    def at(self, point: Point) -> Tensor | None:
        """Return the displacement of a point from r; None for r itself."""
        return {
            "r": None,
            "r+d": self.d,
            "r-d": -self.d,
            "r+d'": self.d_prime,
            "middle": 0.5 * (self.d + self.d_prime),
            "r+hd": STEP * self.d,
            "r-hd": -STEP * self.d,
        }[point]


@dataclass
class Field:
    """Energies (B,) in eV and forces (N, 3) in eV/Å of a model at the points, differentiable in the weights."""

    energy: dict[Point, Tensor] = field(default_factory=dict)
    forces: dict[Point, Tensor] = field(default_factory=dict)


def evaluate_points(
    model: Any, graph: AtomGraph, needs: Mapping[Point, bool], displacements: Displacements, known: Field | None = None
) -> Field:
    """Evaluate the energies at all points of `needs`, and forces at those whose value is true.

    Parameters
    ----------
    model : callable
        AtomGraph → (N,) energies in eV; has an attribute `cutoff` (Å).
    graph : AtomGraph
    needs : mapping
        Point → whether forces are needed there.
    displacements : Displacements
    known : Field, optional
        Points that are evaluated already; they are not evaluated again.
    """
    result = Field() if known is None else known
    missing = [p for p in needs if p not in (result.forces if needs[p] else result.energy)]
    # A model with a force head has its forces from the same pass; splitting it would only make the batches smaller.
    direct = getattr(model, "direct_forces", False)
    with_forces = [p for p in missing if needs[p] or (direct and any(needs[q] for q in missing))]
    for points, forces in ((with_forces, True), ([p for p in missing if p not in with_forces], False)):
        if points:
            _evaluate(model, graph, points, displacements, forces, result)
    return result


def _evaluate(
    model: Any, graph: AtomGraph, points: Sequence[Point], displacements: Displacements, forces: bool, result: Field
) -> None:
    copies = batch_graphs([displaced(graph, displacements.at(point)) for point in points]).within(model.cutoff)
    prediction = predict(model, copies, forces=forces, create_graph=torch.is_grad_enabled())
    for point, energy in zip(points, prediction.energy.chunk(len(points)), strict=True):
        result.energy[point] = energy
    if prediction.forces is not None:
        for point, force in zip(points, prediction.forces.chunk(len(points)), strict=True):
            result.forces[point] = force


def displaced(graph: AtomGraph, shift: Tensor | None) -> AtomGraph:
    """Return the graph with its atoms moved by (N, 3) Å and its list as it is, of a reach that is no longer known."""
    return graph if shift is None else replace(graph, positions=graph.positions + shift, reach=None)


def reaching(graph: AtomGraph, cutoff: float) -> AtomGraph:
    """Return the graph with all pairs shorter than `cutoff` (Å) among its edges, with a new list if need be."""
    if graph.reach is not None and graph.reach >= cutoff:
        return graph
    device = graph.positions.device
    pieces = [_with_list(piece, cutoff) for piece in _structures(graph.to("cpu"))]
    return batch_graphs(pieces).to(device)


def _structures(graph: AtomGraph) -> list[AtomGraph]:
    """Return each structure alone, without edges."""
    counts = graph.counts().tolist()
    none = graph.batch.new_zeros(0)
    pieces = zip(graph.numbers.split(counts), graph.positions.detach().split(counts), graph.cell, strict=True)
    return [
        AtomGraph(numbers, positions, torch.zeros_like(numbers), none, none, cell[None])
        for numbers, positions, cell in pieces
    ]


def _with_list(graph: AtomGraph, cutoff: float) -> AtomGraph:
    cell = graph.cell[0].numpy()
    periodic = np.asarray(cell.any(axis=1))
    centers, neighbors, shifts = neighbor_list(graph.positions.numpy(), cell, periodic, cutoff)
    return replace(
        graph,
        centers=torch.from_numpy(centers),
        neighbors=torch.from_numpy(neighbors),
        shifts=None if shifts is None else torch.from_numpy(shifts),
        reach=cutoff,
    )
