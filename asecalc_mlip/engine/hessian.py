"""Second derivatives of the energy by positions, exact: the derivative of the forces by automatic differentiation.

    H_ij = ∂²E / ∂r_i ∂r_j = −∂F_i / ∂r_j,      i, j over all 3N coordinates

An architecture may have a way of its own, as PaiNN and TensorNet have (models/painn_hessian.py). Elsewhere the forces
are made once, with their graph, and every row costs one backward pass through it. The native kernels take a direction
at a time, so there rows go one by one, elsewhere as many at once as memory and caches allow. Each part of a sum goes
its own way.

It is the second derivative at a point. PaiNN takes lengths of vectors that can vanish, by symmetry or in a plane, as
√(|v|² + 10⁻⁸): its curvature there can be large within 10⁻⁴ of zero and differ from the curvature that
vibrations of 0.01 Å feel.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.estimate import native_messages
from asecalc_mlip.engine.memory import available_bytes
from asecalc_mlip.errors import InputError, NotEnoughMemoryError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import plain_kernels
from asecalc_mlip.models.combine import parts_of
from asecalc_mlip.models.potential import Potential
from asecalc_mlip.models.traits import OwnHessian

__all__ = ["NO_HESSIAN", "double", "hessian"]

NO_HESSIAN = (
    "a model with a force head has no Hessian that its dynamics would feel: its forces are not the derivative of its "
    "energy. Use a conservative model (direct_forces: false), or finite differences of the forces at your own risk"
)
# Memory of the forces with their graph, and of one row through it, in evaluations; measured 2.2 and 1.5 for PaiNN.
_GRAPH, _ROW = 3.0, 2.0
_SHARE = 0.6
# Edges × features up to which many rows by plain torch are faster than rows one by one by native kernels.
_SMALL = 10_000
# More rows at once do not make it faster on a CPU, whose caches they leave.
_ROWS_ON_CPU, _ROWS_ON_GPU = 32, 4096


def double(potential: Potential) -> Potential:
    """Return a copy in float64 whose weights need no gradients."""
    return copy.deepcopy(potential).to(dtype=torch.float64).requires_grad_(False)


def hessian(potential: Potential, graph: AtomGraph, *, rows: int | None = None) -> Tensor:
    """Second derivatives of the total energy, (3N, 3N) in eV/Å², float64 and symmetric.

    Parameters
    ----------
    potential : Potential
        In float64 for digits; see `double`.
    graph : AtomGraph
        One structure.
    rows : int, optional
        Rows at once; default: as many as memory allows, or the own way of the architecture.

    Raises
    ------
    InputError
        For a model with a force head.
    NotEnoughMemoryError
        Where not even one row fits.
    """
    if potential.direct_forces:
        raise InputError(NO_HESSIAN)
    if len(parts := parts_of(potential)) > 1:
        return torch.stack([hessian(part, graph.within(part.cutoff), rows=rows) for part in parts]).sum(0)
    if rows is None and (own := _own_way(potential, graph)) is not None:
        found = potential.scale * own.compute(potential.network, graph)
        return 0.5 * (found + found.T)
    at_once = _rows(potential, graph) if rows is None else rows
    n = 3 * graph.n_atoms
    # The native kernels take one direction at a time.
    with torch.enable_grad(), torch.inference_mode(False), nullcontext() if at_once == 1 else plain_kernels():
        positions = graph.positions.detach().clone().requires_grad_()
        energy = potential(replace(graph, positions=positions)).sum()
        (gradient,) = torch.autograd.grad(energy, positions, create_graph=True, materialize_grads=True)
        if not gradient.requires_grad:  # atoms that feel nobody
            return torch.zeros(n, n, dtype=torch.float64, device=positions.device)
        found = torch.empty(n, n, dtype=torch.float64, device=positions.device)
        for start in range(0, n, at_once):
            found[start : start + at_once] = _some_rows(gradient, positions, start, min(at_once, n - start))
    # Equal but for rounding.
    return 0.5 * (found + found.T)


def _own_way(potential: Potential, graph: AtomGraph) -> OwnHessian | None:
    """Return the faster way of the architecture, if it has one and that fits into memory."""
    own = potential.network.traits.hessian
    fits = _SHARE * available_bytes(graph.positions.device)
    return own if own is not None and own.bytes_needed(potential.network, graph.n_atoms) < fits else None


def _some_rows(gradient: Tensor, positions: Tensor, start: int, number: int) -> Tensor:
    directions = torch.zeros(number, gradient.numel(), dtype=gradient.dtype, device=gradient.device)
    directions[torch.arange(number), start + torch.arange(number)] = 1.0
    directions = directions.reshape(number, *gradient.shape)
    batched = number > 1
    (rows,) = torch.autograd.grad(
        gradient,
        positions,
        directions if batched else directions[0],
        retain_graph=True,
        is_grads_batched=batched,
        allow_unused=True,
        materialize_grads=True,
    )
    return rows.reshape(number, -1)


def _rows(potential: Potential, graph: AtomGraph) -> int:
    """Rows at once."""
    on_cpu = graph.positions.device.type == "cpu"
    one = EagerEngine(potential).bytes_needed(graph.n_atoms, graph.n_edges)
    free = _SHARE * available_bytes(graph.positions.device)
    if (_GRAPH + _ROW) * one > free:
        raise NotEnoughMemoryError(
            f"the Hessian of {graph.n_atoms:,} atoms and {graph.n_edges:,} edges needs about "
            f"{(_GRAPH + _ROW) * one / 1e9:.3g} GB; {free / 1e9:.3g} GB are free. Take a smaller structure, or "
            "finite differences of the forces"
        )
    if native_messages(potential) and graph.n_edges * potential.network.n_features > _SMALL:
        return 1
    return max(1, min(int((free - _GRAPH * one) / (_ROW * one)), _ROWS_ON_CPU if on_cpu else _ROWS_ON_GPU))
