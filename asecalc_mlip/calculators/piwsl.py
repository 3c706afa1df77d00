"""PIWSLCalculator: a model file as an ASE calculator."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Parameters, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from asecalc_mlip.calculators.base import NoStressError, StateCalculator, check_atoms
from asecalc_mlip.calculators.batches import BatchSize, evaluate_iter
from asecalc_mlip.calculators.checks import CLOSEST, ElementCheck, check_distances
from asecalc_mlip.calculators.states import StateNote
from asecalc_mlip.checkpoint import LoadedModel, load
from asecalc_mlip.engine import Compile, MemoryGuard, Precision, checked_device, make_engine
from asecalc_mlip.engine.hessian import double, hessian
from asecalc_mlip.engine.memory import check_list
from asecalc_mlip.engine.transfer import to_host
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import Potential, Prediction, architecture_text
from asecalc_mlip.models.potential import NO_STRESS
from asecalc_mlip.neighbors.verlet import NeighborCache
from asecalc_mlip.quantities import shortened
from asecalc_mlip.units import DTYPES, UNITS, Dtype

__all__ = ["PIWSLCalculator"]


class PIWSLCalculator(StateCalculator):
    """Energy, forces and stress of a model file; made by `PIWSLCalculator.load`.

    Properties: energy and free_energy (eV), energies (eV, per atom), forces (eV/Å), and stress (eV/Å³, Voigt order,
    ASE's sign) for structures that are periodic in three directions. A model with a force head has no stress.
    A charge or spin that a structure states is not read; where it is not that of the training data, a warning says so.
    `parameters` names the model file, its checksum and the options; ASE writes them into databases and trajectories.

    Parameters
    ----------
    model : LoadedModel
    device, dtype, skin, compile, precision
        As for `load`.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    @torch.inference_mode(False)
    def __init__(
        self,
        model: LoadedModel,
        *,
        device: str = "auto",
        dtype: Dtype = "float32",
        skin: float = 0.5,
        compile: Compile = "auto",
        precision: Precision = "float32",
    ):
        super().__init__()
        if not isinstance(model, LoadedModel):
            raise InputError(f"model is {model!r}, not a loaded model; write PIWSLCalculator.load('aspirin.pt')")
        if dtype not in DTYPES:
            raise InputError(f"dtype is {dtype!r}; allowed: 'float32' (fast), 'float64' (for small differences)")
        self.device = checked_device(device)
        self.dtype = dtype
        self.model = model
        # A copy: another calculator may run the same model in another dtype or on another device.
        self.potential = copy.deepcopy(model.potential).to(device=self.device, dtype=getattr(torch, dtype))
        if self.potential.direct_forces:
            self.implemented_properties = [name for name in self.implemented_properties if name != "stress"]
        self.engine = MemoryGuard(make_engine(self.potential, compile, precision=precision), self.device)
        self.neighbors = NeighborCache(self.potential.cutoff, skin)
        self.check_elements = ElementCheck(self.potential.elements, model.path.name)
        self.tell_state = StateNote(model.path.name, model.card)
        self._stress_wanted = False
        self._doubles: list[Potential] = []
        self._seconds = {"neighbours": 0.0, "model": 0.0}
        self.parameters = Parameters(
            model=model.path.name,
            checksum=model.checksum,
            device=str(self.device),
            dtype=dtype,
            skin=skin,
            precision=precision,
        )

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        device: str = "auto",
        dtype: Dtype = "float32",
        skin: float = 0.5,
        compile: Compile = "auto",
        precision: Precision = "float32",
    ) -> PIWSLCalculator:
        """Load a calculator from a model file, or from the name of a shipped model such as "aspirin.pt".

        Parameters
        ----------
        path_or_name : path
        device : str
            "auto" takes a GPU if there is one; else "cpu", "cuda", "cuda:1".
        dtype : {"float32", "float64"}
            Of the network; energies are summed in float64 either way.
        skin : float
            Å beyond the cutoff for which neighbours are kept, so that most steps need no new list; 0 makes every list
            anew. It does not change the result.
        compile : {"auto", True, False, "eager", "native", "compiled", "cuda-graph", "triton"}
            How the model is run; `print(calc)` says what came of it. "auto": on the CPU by the native engine, where
            that cannot by a compiled program if one is there and pays, else eagerly; on a GPU by fused kernels where
            they serve, else by CUDA graphs. True: a compiled program, made once per machine in half a minute if a C++
            compiler is there, and kept in $ASECALC_CACHE or the user's cache folder, never in the model file; where it
            cannot be had, one warning and the engine of False. False: native or eager, without any compilation. Or an
            engine by its name.
        precision : {"float32", "tf32", "bf16"}
            Of matrix products on a GPU; the cost in accuracy there is not measured. On the CPU bf16 changed the forces
            of aspirin_painn.pt by 0.6 % rms and its energy by 14 meV, more than the model errs.

        Raises
        ------
        CheckpointError
            For a file that is missing, damaged, too new or not a model.
        InputError
            For what is no path, such as a list, for an option that is not allowed, and an engine that cannot run this
            model on this device.
        """
        if not isinstance(path_or_name, (str, os.PathLike)):
            several = isinstance(path_or_name, (list, tuple))
            advice = "CommitteeCalculator.load takes several files" if several else "give the path of a .pt file"
            raise InputError(f"the model is {shortened(path_or_name)}, not one file: {advice}")
        model = load(path_or_name)
        return cls(model, device=device, dtype=dtype, skin=skin, compile=compile, precision=precision)

    @property
    def card(self) -> dict[str, Any]:
        """Facts about the model: data, level of theory, errors, elements, cutoff (Å), units, E0, licence."""
        return {
            **self.model.card,
            "architecture": architecture_text(self.potential),
            "hyperparameters": dict(self.potential.hyperparameters),
            "elements": [chemical_symbols[z] for z in self.potential.elements],
            "cutoff": self.potential.cutoff,
            "units": dict(UNITS),
            "reference_energies": self.model.reference_energies,
        }

    def stats(self) -> dict[str, float]:
        """Return the share of steps that reused the neighbour list, the lists made, and seconds of lists and model."""
        return {
            "neighbor_hit_rate": self.neighbors.hit_rate,
            "neighbor_builds": self.neighbors.builds,
            "calls": self.neighbors.calls,
            "seconds_neighbors": self._seconds["neighbours"],
            "seconds_model": self._seconds["model"],
        }

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property, and say why where a model with a force head is asked for stress. Called by ASE."""
        if name == "stress" and allow_calculation and self.potential.direct_forces:
            raise NoStressError(NO_STRESS)
        return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`. Called by ASE."""
        # Whatever goes wrong below, the results of the structure before must not be taken for those of this one.
        self.results = {}
        atoms = self.take(atoms)
        # Whoever asked for stress once will again at the next step; taking it along then saves a second evaluation.
        self._stress_wanted |= "stress" in properties
        stress = self._stress_wanted and bool(atoms.pbc.all())
        if "stress" in properties and self.potential.direct_forces:
            raise NoStressError(NO_STRESS)
        if "stress" in properties and not stress:
            raise NoStressError(
                f"stress needs a cell that is periodic in three directions; pbc is {atoms.pbc.tolist()}. "
                "Set atoms.pbc and atoms.cell, or ask for forces only"
            )
        start = time.perf_counter()
        self.check_elements(atoms.numbers)
        self.tell_state(atoms)
        check_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff + self.neighbors.skin)
        with torch.inference_mode(False):  # forces are derivatives, which a caller's inference mode forbids
            # On a GPU to drop the edges in the skin would cost more, a wait among it, than to compute them.
            trim = self.device.type == "cpu"
            graph = self.neighbors.graph(
                atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, self.device, trim=trim
            )
            if self.neighbors.closest < CLOSEST:
                check_distances(graph)
            middle = time.perf_counter()
            prediction = self.engine(graph, forces=True, stress=stress)
        self.results = self._results(prediction)
        self._seconds["neighbours"] += middle - start
        self._seconds["model"] += time.perf_counter() - middle

    def evaluate(
        self, structures: Sequence[Atoms], *, batch_size: BatchSize = "auto", progress: bool = False
    ) -> list[dict[str, Any]]:
        """Compute energy, forces and stress of many structures, in batches.

        Parameters
        ----------
        structures : sequence of Atoms
            Sizes, elements and periodicity may be mixed.
        batch_size : int or "auto"
            Structures at once. "auto" packs them by their edges, as many as memory and caches like. When memory runs
            out nevertheless, batches are halved, down to one structure.
        progress : bool
            Show a progress bar.

        Returns
        -------
        list of dict
            In the order given: `energy` (eV), `forces` (N, 3) in eV/Å, and `stress` (6,) in eV/Å³, or None for
            structures that are not periodic in three directions and for models with a force head.

        Raises
        ------
        InputError
            Naming the structure that cannot be evaluated. Unknown elements are found before anything is computed.
        NotEnoughMemoryError
            For a structure that does not fit even alone. `evaluate_iter` keeps what was computed before it.
        """
        structures = [structures] if isinstance(structures, (Atoms, str)) else list(structures)
        for index, atoms in enumerate(structures):
            check_atoms(atoms, f"structure {index} of {len(structures)}")
            try:
                self.check_elements(atoms.numbers)
            except InputError as error:
                raise InputError(f"structure {index} of {len(structures)}: {error}") from None
        return list(self.evaluate_iter(structures, batch_size=batch_size, progress=progress))

    def evaluate_iter(
        self, structures: Iterable[Atoms], *, batch_size: BatchSize = "auto", progress: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Do as `evaluate`, but results come one by one as they are computed, and structures may be a generator."""
        return evaluate_iter(self, structures, batch_size=batch_size, progress=progress)

    def hessian(self, atoms: Atoms) -> np.ndarray:
        """Take the exact second derivatives of the energy by positions, in float64 whatever the dtype of the rest.

        Parameters
        ----------
        atoms : Atoms
            Of a periodic structure the cell stays as it is, and all images of an atom move with it.

        Returns
        -------
        (3N, 3N) array
            eV/Å², symmetric, coordinates in the order x, y, z of atom 0, x, y, z of atom 1, …

        Raises
        ------
        InputError
            For unknown elements, atoms that overlap, and models with a force head, which have none.
        NotEnoughMemoryError
            For a structure that is too large.
        """
        self.check_elements(atoms.numbers)
        check_list(atoms.positions, atoms.cell.array, atoms.pbc, self.cutoff)
        with torch.inference_mode(False):
            graph = graph_from_atoms(atoms, self.cutoff)
            check_distances(graph)
            graph = graph.to(self.device)
            self._doubles = self._doubles or [double(potential) for potential in self._potentials()]
            found = [hessian(potential, graph.within(potential.cutoff)) for potential in self._doubles]
        return torch.stack(found).mean(0).cpu().numpy()

    @property
    def cutoff(self) -> float:
        """Cutoff of the model, Å."""
        return self.neighbors.cutoff

    @property
    def gives_stress(self) -> bool:
        """Whether the model has a stress, for structures that are periodic in three directions."""
        return "stress" in self.implemented_properties

    def __repr__(self) -> str:
        kind = architecture_text(self.potential) + (" with a force head" if self.potential.direct_forces else "")
        return (
            f"{type(self).__name__}({self.model.path.name}: {kind}, elements {', '.join(self.card['elements'])}, "
            f"cutoff {self.cutoff:g} Å; {self.engine.describe()}, {self.device}, {self.dtype})"
        )

    def __str__(self) -> str:
        """Whole card, how the model runs, and how often neighbour lists were made."""
        stats = self.stats()
        lines = [
            str(self.model),
            f"  {'runs on':<16} {self.device}, {self.dtype}, {self.engine.describe()}, skin {self.neighbors.skin:g} Å",
        ]
        if stats["calls"]:
            calls = f"{stats['calls']} call{'s' * (stats['calls'] != 1)}"
            lines.append(
                f"  {'neighbour lists':<16} {stats['neighbor_builds']} made in {calls} "
                f"({100 * stats['neighbor_hit_rate']:.0f} % reused)"
            )
        return "\n".join(lines)

    def _potentials(self) -> list[Potential]:
        """Those whose mean energy this calculator gives."""
        return [self.potential]

    def _results(self, prediction: Prediction) -> dict[str, Any]:
        prediction = to_host(prediction)
        assert prediction.forces is not None
        energy = prediction.energy.item()
        results = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.energies.numpy(),
            "forces": prediction.forces.numpy(),
        }
        if prediction.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress[0].numpy())
        return results
