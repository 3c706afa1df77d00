"""The ZBL core in autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from asecalc_mlip.engine.triton import core
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.zbl import COULOMB, ZBL, screening_rate

__all__ = ["FusedCore"]

# Edges at a time.
_EDGES = 32


class FusedCore(nn.Module):
    """The core by one kernel forward and one backward.

    Parameters
    ----------
    network : ZBL
    """

    def __init__(self, network: ZBL):
        super().__init__()
        radii = network.radii
        number = torch.arange(len(radii), device=radii.device)
        # Of a pair the rates of both add up.
        self.species = torch.stack([0.5 * screening_rate(number, number, torch.float64), radii.double()]).to(radii)
        self.coulomb = torch.full((1,), COULOMB, dtype=radii.dtype, device=radii.device)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom in eV, (N,)."""
        atoms = torch.arange(graph.n_atoms + 1, device=graph.centers.device)
        numbers = graph.numbers.to(torch.int32)
        ends = (
            torch.searchsorted(graph.centers, atoms, out_int32=True),
            numbers.index_select(0, graph.neighbors),
            numbers,
        )
        return _Core.apply(ends, self.species, self.coulomb, graph.vectors().double())


class _Core(Function):
    @staticmethod
    def forward(ctx: Any, ends: tuple[Tensor, ...], species: Tensor, coulomb: Tensor, vectors: Tensor) -> Tensor:
        rows, elements, numbers = ends
        vectors = vectors.contiguous()
        energies, slopes = species.new_empty(len(numbers)), species.new_empty(len(elements))
        constants = (vectors, numbers, species, energies, slopes, species.shape[1], coulomb)
        core.core[(len(numbers),)](rows, elements, *constants, EDGES=_EDGES, num_warps=1)
        ctx.save_for_backward(rows, vectors, slopes)
        return energies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, Tensor]:
        rows, vectors, slopes = ctx.saved_tensors
        out = torch.empty_like(vectors)
        given = (rows, vectors, slopes, gradient.contiguous(), out)
        core.core_backward[(len(gradient),)](*given, EDGES=_EDGES, num_warps=1)
        return None, None, None, out
