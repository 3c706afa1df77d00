r"""How far a field of forces is from the gradient of an energy: the asymmetry of its Jacobian.

Forces F = −∂E/∂r have a symmetric Jacobian J = ∂F/∂r, minus the Hessian of E. The antisymmetric
part (in three dimensions: the curl) of a structure is measured as

    c = ‖J − Jᵀ‖ / ‖J‖   (Frobenius)        0: conservative;  √2: J like white noise;  2: J antisymmetric

by Hutchinson's estimate ‖A‖² = ⟨|A v|²⟩ with random signs v (Hutchinson, Commun. Stat. Simul. Comput. 19 (1990) 433).

    symbol   variable
    v        probe
    Jᵀ v     backward     one backward pass
    J v      along        derivative of u → Jᵀu, which is linear in u, along v: another one
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import plain_kernels

__all__ = ["force_curl", "forces_of"]


def forces_of(model: Callable[[AtomGraph], Tensor], graph: AtomGraph, positions: Tensor) -> Tensor:
    """Return forces (N, 3) in eV/Å as a differentiable function of positions (N, 3) in Å that require a gradient.

    The edges are those of `graph`. By the force head of the model where it has one, else −∂E/∂r.
    """
    moved = replace(graph, positions=positions)
    if _is_direct(model):
        direct: Any = model
        return direct.energies_and_forces(moved)[1]
    (gradient,) = torch.autograd.grad(model(moved).sum(), positions, create_graph=True, materialize_grads=True)
    return -gradient


def force_curl(
    model: Callable[[AtomGraph], Tensor],
    graph: AtomGraph,
    *,
    n_probes: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """c = ‖J − Jᵀ‖/‖J‖ of each structure, (B,) float64 without gradient; 0 where J vanishes, as for one atom.

    Parameters
    ----------
    model : callable
        AtomGraph → (N,) energies in eV; with `direct_forces` true it also has `energies_and_forces`.
    graph : AtomGraph
    n_probes : int
        Random vectors; the estimate for a molecule of 20 atoms scatters by about 25 %/√n_probes.
    generator : torch.Generator, optional
        On the CPU; by default a new one with seed 0.

    Raises
    ------
    InputError
        For n_probes below 1.
    """
    if n_probes < 1:
        raise InputError(f"n_probes is {n_probes}; the estimate needs 1 or more, 8 is usual")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    # J v is a second derivative of a force head but a third one of an energy, which native kernels do not have.
    with torch.enable_grad(), nullcontext() if _is_direct(model) else plain_kernels():
        positions = graph.positions.detach().requires_grad_()
        forces = forces_of(model, graph, positions)
        dummy = torch.zeros_like(forces).requires_grad_()
        linear = _derivative(forces, positions, dummy, create_graph=True)
    asymmetry, size = torch.zeros(2, graph.n_structures, dtype=torch.float64, device=positions.device)
    for _ in range(n_probes):
        signs = 2.0 * torch.randint(2, forces.shape, generator=generator, dtype=torch.float64) - 1.0
        probe = signs.to(forces)
        backward, along = _derivative(forces, positions, probe), _derivative(linear, dummy, probe)
        asymmetry += graph.sum_over_atoms((along - backward).double().square().sum(-1))
        # ‖J‖ = ‖Jᵀ‖: both halve the noise, and keep the ratio below 2 whatever the probes.
        size += graph.sum_over_atoms(0.5 * (along.square() + backward.square()).double().sum(-1))
    return torch.where(size > 0, asymmetry / size.clamp(min=torch.finfo(torch.float64).tiny), 0.0).sqrt()


def _is_direct(model: object) -> bool:
    return bool(getattr(model, "direct_forces", False))


def _derivative(outputs: Tensor, inputs: Tensor, along: Tensor, *, create_graph: bool = False) -> Tensor:
    """Σ along · ∂outputs/∂inputs; zeros where outputs do not depend on inputs at all."""
    if not outputs.requires_grad:
        return torch.zeros_like(inputs)
    return torch.autograd.grad(
        outputs, inputs, along, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )[0]
