"""Perturbations of atomic positions: what the weakly supervised losses move the atoms by.

Every function returns displacements (N, 3) in Å that carry no gradient. Those for training draw from a
`torch.Generator`, or from torch's global one, whose state is part of every checkpoint. What makes new structures for
pretraining, `two_step`, works on `ase.Atoms` (`training.structures`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from training.options import PerturbationName
from training.processes.ranks import place_of_atoms
from training.structures.two_step import two_step, two_step_series

__all__ = [
    "LARGEST_SHARE",
    "Perturbation",
    "adversarial",
    "guarded",
    "largest_relative_shift",
    "two_step",
    "two_step_series",
    "uniform",
]

# No atom moves further than this share of the shortest bond of its structure.
LARGEST_SHARE = 0.3


@dataclass(frozen=True)
class Perturbation:
    """Draws displacements; seeded through the generator that is handed over.

    Attributes
    ----------
    epsilon : float
        Å; largest displacement along each axis.
    kind : {"uniform", "adversarial"}
        Of the first displacement d; the second one, d', is always uniform.
    remove_translation : bool
        Take the mean off the uniform displacements of each structure; no energy depends on it.
    """

    epsilon: float = 0.05
    kind: PerturbationName = "uniform"
    remove_translation: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(f"epsilon is {self.epsilon}; expected a length above 0 Å, usually 0.005 to 0.1")
        if self.kind not in get_args(PerturbationName):
            allowed = ", ".join(map(repr, get_args(PerturbationName)))
            raise InputError(f"perturbation {self.kind!r} is unknown; allowed: {allowed}")

    def uniform(self, graph: AtomGraph, generator: torch.Generator | None = None) -> Tensor:
        """See `uniform`."""
        return uniform(graph, self.epsilon, generator=generator, remove_translation=self.remove_translation)

    def first(
        self,
        graph: AtomGraph,
        generator: torch.Generator | None = None,
        *,
        forces: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> Tensor:
        """Draw the displacement d of the kind asked for; the adversarial one needs forces (N, 3) and their labels."""
        if self.kind == "uniform":
            return self.uniform(graph, generator)
        if forces is None or reference is None:
            raise InputError(
                "an adversarial perturbation needs force labels: it moves each atom against the error of its force. "
                "Train with forces, or use perturbation 'uniform'"
            )
        return adversarial(graph, self.epsilon, forces, reference)


def uniform(
    graph: AtomGraph,
    epsilon: float,
    *,
    generator: torch.Generator | None = None,
    remove_translation: bool = False,
) -> Tensor:
    """Draw each Cartesian component uniformly in (−ε, ε): (N, 3) in Å, within the bond guard.

    Parameters
    ----------
    graph : AtomGraph
    epsilon : float
        Å.
    generator : torch.Generator, optional
        On the CPU; None takes torch's global one.
    remove_translation : bool
        Take the mean over the atoms of each structure off.
    """
    n, device = graph.n_atoms, graph.positions.device
    # Of several processes each draws for the atoms of all and takes its own; on the CPU, so that a seed means the same
    # on every device.
    first, total = place_of_atoms(n)
    draw = torch.rand((total, 3), generator=generator, dtype=torch.float64)[first : first + n].to(device)
    d = epsilon * (2.0 * draw - 1.0)
    if remove_translation:
        means = graph.sum_over_atoms(d) / graph.counts()[:, None]
        d = d - means.index_select(0, graph.batch)
    return guarded(graph, d)


def adversarial(graph: AtomGraph, epsilon: float, forces: Tensor, reference: Tensor) -> Tensor:
    """Return the d_i = −√3 ε (F_i − F_i^ref) / |F_i − F_i^ref|: (N, 3) in Å, within the bond guard.

    Parameters
    ----------
    forces, reference : (N, 3) eV/Å
        Of the model and of the labels. Where they are equal the displacement is zero.
    """
    error = (forces - reference).detach().double()
    norms = error.norm(dim=-1, keepdim=True)
    d = -math.sqrt(3.0) * epsilon * error / norms.clamp(min=1e-12)
    return guarded(graph, d)


def guarded(graph: AtomGraph, d: Tensor) -> Tensor:
    """Scale displacements down where an atom would move by more than 30 % of the shortest bond of its structure."""
    if graph.n_edges == 0:
        return d.detach()
    with torch.no_grad():
        lengths = graph.vectors().norm(dim=-1)
        structure = graph.batch.index_select(0, graph.centers)
        infinite = lengths.new_full((graph.n_structures,), math.inf)
        shortest = infinite.scatter_reduce(0, structure, lengths, "amin")
        longest = torch.zeros_like(infinite).scatter_reduce(0, graph.batch, d.norm(dim=-1), "amax")
        factor = (LARGEST_SHARE * shortest / longest.clamp(min=1e-12)).clamp(max=1.0)
        return d * factor.index_select(0, graph.batch)[:, None]


def largest_relative_shift(epsilon: float) -> float:
    """Return the most that the distance of two atoms can change, in Å: both move by √3 ε, towards each other.

    The same bound holds after `remove_translation`, which moves all atoms of a structure alike.
    """
    return 2.0 * math.sqrt(3.0) * epsilon
