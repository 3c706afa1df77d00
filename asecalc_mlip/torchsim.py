"""Our models in torch-sim, whose molecular dynamics and relaxations move many structures at once.

    from asecalc_mlip.torchsim import PIWSLModel

    model = PIWSLModel.load("aspirin.pt")
    langevin = torch_sim.nvt_langevin
    torch_sim.integrate(list_of_atoms, model, integrator=langevin, n_steps=1000, temperature=500, timestep=0.0005)

Needs the package torch-sim-atomistic: pip install "asecalc-mlip[torch-sim]".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.extras import needs

try:
    from torch_sim import SimState
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ImportError(str(needs("asecalc_mlip.torchsim", "torch_sim"))) from error

from asecalc_mlip.calculators.checks import CLOSEST, check_distances
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.batched import BatchedNeighborCache

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
            raise InputError("this model has a force head and so no stress; use one whose forces are a derivative")
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
        if self.neighbors.closest < CLOSEST:
            check_distances(graph)
        # On a GPU torch-sim finds out itself how much fits, by trying.
        on_cpu = self._device.type == "cpu"
        engine = self.calculator.engine if on_cpu else self.calculator.engine.engine
        prediction = engine(graph, forces=self._compute_forces, stress=self._compute_stress)
        names = ("energy", "forces", "stress", "energy_std", "forces_std")
        found = {name: getattr(prediction, name, None) for name in names}
        return {name: value.to(state.positions.dtype) for name, value in found.items() if value is not None}

    def _check(self, numbers: np.ndarray) -> None:
        self.calculator.check_elements(numbers)
