"""Potential: a network with reference energies, and the one place where forces and stress are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph, batch_graphs
from asecalc_mlip.models.layers import MAX_ATOMIC_NUMBER
from asecalc_mlip.models.traits import Network

__all__ = ["NO_STRESS", "Potential", "Prediction", "predict"]

NO_STRESS = (
    "a model with a force head has no stress: its forces are not the derivative of its energy. Use a conservative "
    "model (direct_forces: false) for stress, or ask for energy and forces only"
)


class Potential(nn.Module):
    """Per-atom energies: E_i = E0 + s · (network_i − network of that atom alone).

    An isolated atom therefore has exactly its reference energy E0. The network runs in the dtype of its weights;
    energies are summed in float64, because total DFT energies have more digits than float32 holds.

    Parameters
    ----------
    network : Network
        AtomGraph → (N,) interaction energies.
    architecture : str
        Name under which `build_network` makes it.
    hyperparameters : mapping
        Keyword arguments of the network, plain types only.
    reference_energies : mapping
        Atomic number → E0 in eV. Its keys are the elements that the model knows.
    scale : float
        eV; factor on the output of the network, of the size of the energies to be learned.
    """

    e0: Tensor

    def __init__(
        self,
        network: Network,
        *,
        architecture: str,
        hyperparameters: Mapping[str, Any],
        reference_energies: Mapping[int, float],
        scale: float = 1.0,
    ):
        super().__init__()
        self.network = network
        self.architecture = architecture
        self.hyperparameters = dict(hyperparameters)
        self.scale = float(scale)
        e0 = torch.full((MAX_ATOMIC_NUMBER + 1,), torch.nan, dtype=torch.float64)
        for number, energy in reference_energies.items():
            e0[int(number)] = float(energy)
        self.register_buffer("e0", e0, persistent=False)
        self._alone: Tensor | None = None

    @property
    def cutoff(self) -> float:
        """Å."""
        return float(self.network.cutoff)

    @property
    def direct_forces(self) -> bool:
        """Whether forces come from a head of the network instead of the gradient of the energy."""
        return self.network.direct_forces

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        # A part of a sum may have no weights, but a table.
        return next(chain(self.network.parameters(), self.network.buffers())).dtype

    @property
    def reference_energies(self) -> dict[int, float]:
        """Atomic number → E0 in eV, of the elements that the model knows."""
        return {int(z): float(self.e0[z]) for z in (~self.e0.isnan()).nonzero().squeeze(-1)}

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that the model knows, ascending."""
        return sorted(self.reference_energies)

    def forward(self, graph: AtomGraph) -> Tensor:
        """Energy of each atom in eV, (N,) float64."""
        return self._run(lambda graph: (self.network(graph),), graph)[0]

    def energies_and_forces(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        """Energies (N,) in eV and forces (N, 3) in eV/Å of a model with a force head, float64, in one pass."""
        energies, forces = self._run(self._ability("energies_and_forces"), graph)
        return energies, forces.double() * self.scale

    def energies_and_vectors(self, graph: AtomGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (N,) in eV, float64, with the vectors (N, 3, F) and scalars (N, F) of the network's last block."""
        energies, vectors, scalars = self._run(self._ability("energies_and_vectors"), graph)
        return energies, vectors, scalars

    def lone_graph(self) -> AtomGraph:
        """Return one atom of each element that the model knows, each a structure of its own."""
        numbers = (~self.e0.isnan()).nonzero().squeeze(-1)
        n, none = len(numbers), numbers.new_zeros(0)
        positions = self.e0.new_zeros(n, 3)
        return AtomGraph(
            numbers, positions, torch.arange(n, device=numbers.device), none, none, positions.new_zeros(n, 3, 3)
        )

    def lone_atoms(self) -> Tensor:
        """Return what the network, without scale and E0, says of an atom alone, by atomic number, float64.

        It is kept while the model is not trained.
        """
        if self._alone is None:
            with torch.no_grad():
                lone = self.lone_graph()
                self._alone = self.by_number(lone, self.network(lone))
        return self._alone

    def by_number(self, lone: AtomGraph, values: Tensor) -> Tensor:
        """Return values (N,) of the atoms of `lone_graph`, float64, as a table over atomic numbers."""
        return torch.zeros_like(self.e0).index_copy(0, lone.numbers, values.double())

    def train(self, mode: bool = True) -> Potential:
        """See `torch.nn.Module.train`; weights may change from here on, so everything derived from them is dropped."""
        self._alone = None
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # Called for each module by load_state_dict.
        self._alone = None
        super()._load_from_state_dict(*args, **kwargs)

    def _ability(self, name: str) -> Callable[[AtomGraph], tuple[Tensor, ...]]:
        if not hasattr(self.network, name):
            raise InputError(f"{self.architecture} has no {name.replace('_', ' ')}: it has no vectors; use painn")
        return getattr(self.network, name)

    def _run(self, part: Callable[[AtomGraph], tuple[Tensor, ...]], graph: AtomGraph) -> tuple[Tensor, ...]:
        """Return the outputs of a part of the network for each atom; the first is turned into its energy in eV."""
        if self.training:
            # In the same pass: another one for isolated atoms, with its gradients, would take a tenth of a step.
            lone = self.lone_graph()
            outputs = part(batch_graphs([graph, lone]))
            alone = self.by_number(lone, outputs[0][graph.n_atoms :])
            outputs = tuple(output[: graph.n_atoms] for output in outputs)
        else:
            outputs, alone = part(graph), self.lone_atoms()
        raw = outputs[0].double() - alone.index_select(0, graph.numbers)
        return raw * self.scale + self.e0.index_select(0, graph.numbers), *outputs[1:]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Potential:
        # Casting a model to float32 must not round the reference energies of −10⁴ eV.
        e0, self._alone = self.e0, None
        super()._apply(fn, recurse)
        self.e0 = e0.to(self.e0.device)
        return self


@dataclass(frozen=True)
class Prediction:
    """Results of a model for a graph, float64; B structures, N atoms.

    Attributes
    ----------
    energy : (B,) eV
    energies : (N,) eV per atom
    forces : (N, 3) eV/Å or None
    stress : (B, 3, 3) eV/Å³ or None
        ASE's sign: positive where the structure wants to shrink. NaN for structures without volume.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None


def predict(
    model: Callable[[AtomGraph], Tensor],
    graph: AtomGraph,
    *,
    forces: bool = True,
    stress: bool = False,
    create_graph: bool = False,
) -> Prediction:
    """Energy with forces F = −∂E/∂r and stress σ = (1/V) ∂E/∂ε by automatic differentiation.

    The strain ε is symmetric and acts on positions and cell together: r → r (1 + ε) (Knuth et al., CPC 190 (2015) 33).
    A model whose `direct_forces` is true gives its forces itself and has no stress.

    Parameters
    ----------
    model : callable
        AtomGraph → (N,) energies in eV.
    graph : AtomGraph
    forces, stress : bool
        Whether to compute them besides the energy.
    create_graph : bool
        Keep the result differentiable, for training on forces.

    Raises
    ------
    InputError
        For the stress of a model with a force head.
    """
    if getattr(model, "direct_forces", False) and (forces or stress):
        return _direct(model, graph, stress, create_graph)
    if not (forces or stress):
        with torch.set_grad_enabled(create_graph):
            energies = model(graph)
        return Prediction(graph.sum_over_atoms(energies), energies)
    with torch.enable_grad():
        positions = graph.positions.detach().requires_grad_()
        moved, strain = _strained(graph, positions) if stress else (replace(graph, positions=positions), None)
        energies = model(moved)
        energy = graph.sum_over_atoms(energies)
        inputs = [positions] if strain is None else [positions, strain]
        gradients = torch.autograd.grad(
            energy.sum(), inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
    if not create_graph:
        energy, energies = energy.detach(), energies.detach()
    volume = None if strain is None else torch.linalg.det(graph.cell).abs()
    return Prediction(
        energy=energy,
        energies=energies,
        forces=-gradients[0] if forces else None,
        stress=None if volume is None else gradients[1] / torch.where(volume > 0, volume, torch.nan)[:, None, None],
    )


def _direct(model: Any, graph: AtomGraph, stress: bool, create_graph: bool) -> Prediction:
    if stress:
        raise InputError(NO_STRESS)
    with torch.set_grad_enabled(create_graph):
        energies, forces = model.energies_and_forces(graph)
    return Prediction(graph.sum_over_atoms(energies), energies, forces)


def _strained(graph: AtomGraph, positions: Tensor) -> tuple[AtomGraph, Tensor]:
    strain = torch.zeros_like(graph.cell).requires_grad_()
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    moved = positions + torch.einsum("ni,nij->nj", positions, symmetric.index_select(0, graph.batch))
    return replace(graph, positions=moved, cell=graph.cell + graph.cell @ symmetric), strain
