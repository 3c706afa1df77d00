"""EAMCalculator: an embedded-atom potential as an ASE calculator that can show what its energy is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from asecalc_mlip.calculators.checks import check_distances
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph, graph_from_atoms
from asecalc_mlip.models import architecture_text
from asecalc_mlip.models.eam import EAM

__all__ = ["COMPONENTS", "EAMCalculator", "PairCurve"]

COMPONENTS = ("density", "morse", "zbl", "offset")


@dataclass(frozen=True)
class PairCurve:
    """Energy of two atoms over their distance, by component.

    Attributes
    ----------
    symbols : (str, str)
    distances : (n,) array
        Å.
    density, morse, zbl, offset, total : (n,) array
        eV. Embedding of both atoms in each other's density, Morse pair, ZBL core, reference energies, and their
        sum.
    """

    symbols: tuple[str, str]
    distances: np.ndarray
    density: np.ndarray
    morse: np.ndarray
    zbl: np.ndarray
    offset: np.ndarray
    total: np.ndarray

    @property
    def binding(self) -> np.ndarray:
        """Energy relative to the separated atoms, (n,) eV."""
        return self.total - self.offset

    def __repr__(self) -> str:
        lowest = int(self.binding.argmin())
        return (
            f"PairCurve({'–'.join(self.symbols)}, {self.distances[0]:g} to {self.distances[-1]:g} Å, lowest "
            f"{self.binding[lowest]:.3f} eV at {self.distances[lowest]:.3f} Å)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        arrays = {name: getattr(self, name).tolist() for name in ("distances", *COMPONENTS, "total")}
        return {"symbols": list(self.symbols), **arrays}


class EAMCalculator(PIWSLCalculator):
    """Energy, forces and stress of an EAM file, made by `EAMCalculator.load`; see `PIWSLCalculator`.

    Raises
    ------
    InputError
        For a model of another architecture.
    """

    def __init__(self, model: LoadedModel, **options: Any):
        if not isinstance(model.potential.network, EAM):
            raise InputError(
                f"{model.path} is not an EAM but {architecture_text(model.potential)}; load it with "
                "PIWSLCalculator.load, or fit an EAM with: asecalc eam fit DATA"
            )
        super().__init__(model, **options)

    @classmethod
    def load(cls, path_or_name: str | Path, **options: Any) -> EAMCalculator:
        """Load a calculator from a model file; options and errors as for `PIWSLCalculator.load`."""
        calculator = super().load(path_or_name, **options)
        assert isinstance(calculator, EAMCalculator)  # made by `cls`
        return calculator

    @property
    def network(self) -> EAM:
        """The EAM itself, whose parameters are those of the equations in `asecalc_mlip.models.eam`.

        To read: the engine of the calculator has taken them over and does not see changes.
        """
        network = self.potential.network
        assert isinstance(network, EAM)
        return network

    def components(self, atoms: Atoms) -> dict[str, float]:
        """Take the energy of a structure apart, eV: density (embedding), morse, zbl, offset (E0) and total.

        Raises
        ------
        InputError
            For elements without parameters and atoms that overlap.
        """
        self.check_elements(atoms.numbers)
        graph = graph_from_atoms(atoms, self.cutoff)
        check_distances(graph)
        return {name: float(values.sum()) for name, values in self._components(graph).items()}

    def pair_curve(self, a: str, b: str, distances: np.ndarray) -> PairCurve:
        """Take the energy of an isolated dimer of the elements a and b by component.

        Parameters
        ----------
        a, b : str
            Symbols, e.g. "Si", "O".
        distances : (n,) array
            Å, above 0.

        Raises
        ------
        InputError
            For elements without parameters and distances that are not above 0.
        """
        symbols, distances = (a, b), np.atleast_1d(np.asarray(distances, dtype=float))
        if not (np.isfinite(distances).all() and (distances > 0).all()):
            raise InputError("distances must be lengths above 0 Å, and finite")
        if unknown := [s for s in symbols if s not in atomic_numbers]:
            raise InputError(f"{unknown[0]!r} is no element; give symbols such as {self._symbols()}")
        numbers = [atomic_numbers[symbol] for symbol in symbols]
        self.check_elements(np.array(numbers))
        energies = self._components(_dimers(numbers, distances))
        summed = {name: values.reshape(-1, 2).sum(axis=1) for name, values in energies.items()}
        return PairCurve(symbols, distances, **summed)

    def pair_curves(self, distances: np.ndarray) -> list[PairCurve]:
        """Take the curve of every pair of elements of the model; see `pair_curve`."""
        symbols = [chemical_symbols[z] for z in self.potential.elements]
        return [self.pair_curve(a, b, distances) for k, a in enumerate(symbols) for b in symbols[k:]]

    def _components(self, graph: AtomGraph) -> dict[str, np.ndarray]:
        """Energies of each atom in eV, (N,) float64."""
        with torch.no_grad():
            found = self.network.components(graph.to(self.device))
        parts = {name: self.potential.scale * values.double().cpu().numpy() for name, values in found.items()}
        offset = self.potential.e0.index_select(0, graph.numbers.to(self.device)).cpu().numpy()
        zeros = np.zeros(graph.n_atoms)
        complete = {name: parts.get(name, zeros) for name in COMPONENTS[:-1]} | {"offset": offset}
        return complete | {"total": sum(complete.values(), zeros)}

    def _symbols(self) -> str:
        return ", ".join(chemical_symbols[z] for z in self.potential.elements)


def _dimers(numbers: list[int], distances: np.ndarray) -> AtomGraph:
    """One structure of two atoms for each distance, each with its edge in both directions."""
    n = len(distances)
    positions = np.zeros((2 * n, 3))
    positions[1::2, 2] = distances
    atoms = torch.arange(2 * n)
    return AtomGraph(
        numbers=torch.tensor(numbers).repeat(n),
        positions=torch.from_numpy(positions),
        batch=atoms // 2,
        centers=atoms,
        neighbors=atoms + 1 - 2 * (atoms % 2),
        cell=torch.zeros(n, 3, 3, dtype=torch.float64),
    )
