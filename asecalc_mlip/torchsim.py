"""Our models in torch-sim, whose molecular dynamics and relaxations move many structures at once.

    from asecalc_mlip.torchsim import PIWSLModel

    model = PIWSLModel.load("aspirin.pt")
    langevin = torch_sim.nvt_langevin
    torch_sim.integrate(list_of_atoms, model, integrator=langevin, n_steps=1000, temperature=500, timestep=0.0005)

Needs the package torch-sim-atomistic: pip install "asecalc-mlip[torch-sim]".
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    from torch_sim import SimState
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ImportError(
        f'asecalc_mlip.torchsim needs torch-sim ({error}): pip install "asecalc-mlip[torch-sim]"'
    ) from error

from asecalc_mlip.calculator import PIWSLCalculator
from asecalc_mlip.checks import check_distances
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph, batch_graphs
from asecalc_mlip.neighbors import neighbor_list

__all__ = ["BatchedNeighborCache", "PIWSLModel"]


class PIWSLModel(ModelInterface):
    """Energies (eV), forces (eV/Å) and stress (eV/Å³, ASE's sign) for the states of torch-sim.

    torch-sim integrates in the `dtype` of its model, and that is always float64 here, because total energies have more
    digits than float32 holds. The network itself runs in the dtype of the calculator.

    Parameters
    ----------
    calculator : PIWSLCalculator
        Or a committee, whose `energy_std` and `forces_std` come along.
    compute_forces, compute_stress : bool
        What to compute besides the energy. Stress is NaN where the state is not periodic.

    Raises
    ------
    InputError
        For the stress of a model that has none.
    """

    def __init__(self, calculator: PIWSLCalculator, *, compute_forces: bool = True, compute_stress: bool = False):
        super().__init__()
        self.calculator = calculator
        self.neighbors = BatchedNeighborCache(calculator.cutoff, calculator.neighbors.skin)
        self._device, self._dtype = calculator.device, torch.float64
        self._compute_forces = compute_forces
        self.compute_stress = compute_stress

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        compute_forces: bool = True,
        compute_stress: bool = False,
        **options: Any,
    ) -> PIWSLModel:
        """Model from a file or the name of a shipped one; `options` as for `PIWSLCalculator.load`."""
        calculator = PIWSLCalculator.load(path_or_name, **options)
        return cls(calculator, compute_forces=compute_forces, compute_stress=compute_stress)

    @property
    def compute_stress(self) -> bool:
        """Whether the stress is computed."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        if wanted and not self.calculator.gives_stress:
            raise InputError("this model has direct forces and so no stress; use one whose forces are a derivative")
        self._compute_stress = wanted

    @property
    def compute_forces(self) -> bool:
        """Whether forces are computed."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        self._compute_forces = wanted

    @torch.inference_mode(False)  # forces are derivatives, which a caller's inference mode forbids
    def forward(self, state: SimState | dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Energy (B,), and forces (N, 3) and stress (B, 3, 3) where asked for, in the dtype of the state.

        Raises
        ------
        InputError
            For structures that cannot be evaluated.
        """
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        graph = self.neighbors.graph(
            state.atomic_numbers, state.positions, state.row_vector_cell, state.system_idx, state.pbc, self._check
        )
        check_distances(graph)
        # On a GPU torch-sim finds out itself how much fits, by trying.
        on_cpu = self._device.type == "cpu"
        engine = self.calculator.memory.engine_for(graph) if on_cpu else self.calculator.engine
        prediction = engine(graph, forces=self._compute_forces, stress=self._compute_stress)
        names = ("energy", "forces", "stress", "energy_std", "forces_std")
        found = {name: getattr(prediction, name, None) for name in names}
        return {name: value.to(state.positions.dtype) for name, value in found.items() if value is not None}

    def _check(self, numbers: np.ndarray) -> None:
        self.calculator.check_elements(numbers)


class BatchedNeighborCache:
    """Neighbour lists of the structures of a batch, each kept until one of its atoms has moved skin/2.

    Everything but the making of a list runs on the device of the state and for all structures at once.

    Parameters
    ----------
    cutoff, skin : float
        Å. A skin of 0 makes every list anew.

    Attributes
    ----------
    calls, builds : int
        How many lists of single structures were asked for, and how many had to be made.
    """

    def __init__(self, cutoff: float, skin: float):
        self.cutoff, self.skin = cutoff, skin
        self.calls = self.builds = 0
        self._graphs: dict[int, AtomGraph] = {}
        self._pbc = torch.zeros(3, dtype=torch.bool)
        self._inverse = torch.empty(0)
        # All of `_graphs` in one, with the positions for which the lists were made.
        self._batch: AtomGraph | None = None

    def graph(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, batch: Tensor, pbc: Any, check: Any = None
    ) -> AtomGraph:
        """Graph with exactly the edges shorter than the cutoff.

        Parameters
        ----------
        numbers, batch : (N,)
            Atomic number and structure of each atom; structures in ascending order.
        positions : (N, 3)
            Å.
        cell : (B, 3, 3)
            Rows are lattice vectors in Å.
        pbc : bool or (3,) bool
        check : callable, optional
            Gets the atomic numbers of each structure that was not there before.
        """
        pbc = torch.as_tensor(pbc).cpu().expand(3)
        positions = positions.detach().to(torch.float64, copy=True)
        numbers, cell = numbers.long(), torch.where(pbc.to(cell.device)[:, None], cell.detach().double(), 0.0)
        stale, positions = self._stale(numbers, positions, cell, batch, pbc)
        self.calls += len(cell)
        indices = stale.nonzero().squeeze(-1).tolist()
        if indices:
            self._rebuild(indices, AtomGraph(numbers, positions, batch, batch, batch, cell), pbc, check)
        assert self._batch is not None
        graph = replace(self._batch, positions=positions)
        return graph.within(self.cutoff) if self.skin > 0 else graph

    def _stale(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which structures need a new list (B,), and positions without jumps by whole lattice vectors."""
        ref = self._batch
        everything = torch.ones(len(cell), dtype=torch.bool, device=cell.device)
        if ref is None or ref.cell.shape != cell.shape or not torch.equal(self._pbc, pbc):
            return everything, positions
        if not (torch.equal(ref.numbers, numbers) and torch.equal(ref.batch, batch)):
            return everything, positions
        displacement = positions - ref.positions
        if pbc.any():
            jumps = torch.einsum("ni,nij->nj", displacement, self._inverse.index_select(0, batch)).round()
            jumps = torch.einsum("ni,nij->nj", jumps, cell.index_select(0, batch))
            positions, displacement = positions - jumps, displacement - jumps
        squares = displacement.square().sum(-1)
        moved = squares.new_zeros(len(cell)).scatter_reduce(0, batch, squares, "amax")
        # Written so that NaN counts as moved.
        return ~(moved < (0.5 * self.skin) ** 2) | (cell != ref.cell).flatten(1).any(1), positions

    def _rebuild(self, indices: list[int], state: AtomGraph, pbc: Tensor, check: Any) -> None:
        new = len(indices) == state.n_structures
        graphs = {} if new else dict(self._graphs)
        for index in indices:
            mine = (state.batch == index).nonzero().squeeze(-1)
            numbers, positions = state.numbers[mine].cpu(), state.positions[mine].cpu()
            try:
                if new and check is not None:
                    check(numbers.numpy())
                graphs[index] = self._single(numbers, positions, state.cell[index].cpu(), pbc)
            except InputError as error:
                raise InputError(f"structure {index} of {state.n_structures}: {error}") from None
        self.builds += len(indices)
        self._graphs, self._pbc = graphs, pbc
        self._batch = batch_graphs([graphs[k] for k in range(state.n_structures)]).to(state.positions.device)
        # Directions that are not periodic have rows of zeros, which a pseudo-inverse leaves out.
        self._inverse = torch.linalg.pinv(self._batch.cell)

    def _single(self, numbers: Tensor, positions: Tensor, cell: Tensor, pbc: Tensor) -> AtomGraph:
        reach = self.cutoff + self.skin
        i, j, shifts = neighbor_list(positions.numpy(), cell.numpy(), pbc.numpy(), reach)
        return AtomGraph(
            numbers=numbers,
            positions=positions,
            batch=torch.zeros_like(numbers),
            centers=torch.from_numpy(i),
            neighbors=torch.from_numpy(j),
            cell=cell[None],
            shifts=None if shifts is None else torch.from_numpy(shifts),
            reach=reach,
        )
