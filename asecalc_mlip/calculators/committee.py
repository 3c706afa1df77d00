"""Several models as one calculator: their mean, and how far they disagree.

Models that were trained alike from different seeds agree where they have data and drift apart where they have none, so
their spread tells when a structure is outside of what they know (model deviation; Zhang et al., CPC 253 (2020) 107206).

    ε_i = sqrt( (1/M) Σ_m |F_i^m − F̄_i|² )   forces_std, of atom i        M   number of members
    ε_E = sqrt( (1/M) Σ_m (E^m − Ē)² )        energy_std
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.data import chemical_symbols
from torch import Tensor

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel, load
from asecalc_mlip.engine import Engine, MemoryGuard
from asecalc_mlip.errors import Action, CommitteeDisagreement, InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Potential, Prediction
from asecalc_mlip.neighbors.verlet import NeighborCache

__all__ = ["CommitteeCalculator", "CommitteePrediction"]

# A run of a million steps beyond the threshold is worth some warnings, not a million.
LOUDER = 1.5


class CommitteeCalculator(PIWSLCalculator):
    """Mean energy, forces and stress of several models; made by `CommitteeCalculator.load`.

    Besides the properties of `PIWSLCalculator`, `results` has `energy_std` (eV) and `forces_std` ((N,), eV/Å), and so
    have the dicts of `evaluate`, which does not apply the threshold.

    Parameters
    ----------
    models : sequence of LoadedModel
        Two or more, with the same elements.
    threshold : float, optional
        eV/Å; the spread of the force on an atom from which on the structure counts as unknown.
    action : {"warn", "stop"}
        What happens then: a warning, which comes again where the spread is half as large again, or a
        CommitteeDisagreement.
    **options
        As for `PIWSLCalculator`; they hold for every member.

    Raises
    ------
    InputError
        For fewer than two models, and models that do not fit together.
    """

    implemented_properties = [*PIWSLCalculator.implemented_properties, "energy_std", "forces_std"]

    def __init__(
        self, models: Sequence[LoadedModel], *, threshold: float | None = None, action: Action = "warn", **options: Any
    ):
        models = list(models)
        _check_members(models)
        if threshold is not None and not threshold > 0:
            raise InputError(
                f"threshold is {threshold} eV/Å; it must be above 0, often 0.1 to 0.5, or None for no check"
            )
        if action not in get_args(Action):
            raise InputError(f"action is {action!r}; allowed: 'warn', 'stop'")
        super().__init__(models[0], **options)
        self.threshold, self.action = threshold, action
        self._warned = 0.0
        self.models = models
        self.parameters |= {"model": [m.path.name for m in models], "checksum": [m.checksum for m in models]}
        # The first member is this calculator itself.
        members = [self, *(PIWSLCalculator(model, **options) for model in models[1:])]
        self._members = potentials = [member.potential for member in members]
        engine = CommitteeEngine([member.engine.engine for member in members], potentials)
        self.engine = MemoryGuard(engine, self.device)
        # One list for all, as far as the member that sees farthest.
        self.neighbors = NeighborCache(max(p.cutoff for p in potentials), self.neighbors.skin)
        if any(p.direct_forces for p in potentials):
            self.implemented_properties = [name for name in type(self).implemented_properties if name != "stress"]

    @classmethod
    def load(  # type: ignore[override]
        cls,
        paths_or_names: Sequence[str | Path],
        *,
        threshold: float | None = None,
        action: Action = "warn",
        **options: Any,
    ) -> CommitteeCalculator:
        """Load a committee from several model files; `options` as for `PIWSLCalculator`, the rest as for this class."""
        if isinstance(paths_or_names, (str, Path)):
            raise InputError(f"a committee needs a list of model files, and got one: {paths_or_names}")
        return cls([load(path) for path in paths_or_names], threshold=threshold, action=action, **options)

    @property
    def card(self) -> dict[str, Any]:
        """Card of the first member, with those of all under `members`."""
        return {**super().card, "cutoff": self.cutoff, "members": [dict(model.card) for model in self.models]}

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}; {len(self.models)} members)"

    def __str__(self) -> str:
        names = ", ".join(model.path.name for model in self.models)
        limit = "no threshold" if self.threshold is None else f"{self.action} from {self.threshold:g} eV/Å on"
        return f"{super().__str__()}\n  {'committee':<16} {len(self.models)} members: {names}; {limit}"

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`, and warn or stop where the members disagree; `results` stay either way. Called by ASE."""
        super().calculate(atoms, properties, system_changes)
        self._judge()

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Stop again where results are at hand on which the members disagree. Called by ASE."""
        value = super().get_property(name, atoms, allow_calculation)
        if self.action == "stop":
            self._judge()
        return value

    def _potentials(self) -> list[Potential]:
        return self._members

    def _results(self, prediction: Prediction) -> dict[str, Any]:
        assert isinstance(prediction, CommitteePrediction)
        spread = prediction.forces_std.cpu().numpy()
        return {**super()._results(prediction), "energy_std": prediction.energy_std.item(), "forces_std": spread}

    def _judge(self) -> None:
        spread = self.results.get("forces_std")
        # NaN of a member is a disagreement.
        if spread is None or self.threshold is None or spread.max() < self.threshold:
            return
        worst, value = int(spread.argmax()), float(spread.max())
        if self.action == "warn" and value < LOUDER * self._warned:
            return
        symbol = "" if self.atoms is None else f" ({self.atoms.symbols[worst]})"
        text = (
            f"{len(self.models)} models disagree by {spread[worst]:.3g} eV/Å on the force of atom {worst}{symbol}, the "
            f"threshold is {self.threshold:g}; {int((~(spread < self.threshold)).sum())} of {len(spread)} atoms are "
            "above it. The structure is outside of their training data: label it and train on it, or stay away from it"
        )
        if self.action == "stop":
            raise CommitteeDisagreement(text, atom=worst, spread=value, threshold=float(self.threshold))
        self._warned = value
        text += f". The next warning comes from {LOUDER * value:.3g} eV/Å on"
        warnings.warn(text, stacklevel=8)  # where the user's code asks for forces


@dataclass(frozen=True)
class CommitteePrediction(Prediction):
    """Mean of the members' predictions, with their spread.

    Attributes
    ----------
    energy_std : (B,) array
        eV.
    forces_std : (N,) array
        eV/Å. Root mean square over the members of the distance to the mean force.
    """

    energy_std: Tensor = torch.empty(0)
    forces_std: Tensor = torch.empty(0)


class CommitteeEngine:
    """Runs several engines one after another on the same graph."""

    # Each member holds its own; pieces of one potential are no committee.
    holds_edges = False
    keeps_buffer = True

    def __init__(self, engines: Sequence[Engine], potentials: Sequence[Potential]):
        self.engines, self.cutoffs = list(engines), [potential.cutoff for potential in potentials]
        self.potential = potentials[0]

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> CommitteePrediction:
        """See `asecalc_mlip.engine.base.Engine`; forces are always taken, for their spread."""
        widest = max(self.cutoffs)
        graphs = [graph if cutoff == widest else graph.within(cutoff) for cutoff in self.cutoffs]
        found = [engine(g, forces=True, stress=stress) for engine, g in zip(self.engines, graphs, strict=True)]
        energy = torch.stack([p.energy for p in found])
        all_forces = torch.stack([p.forces for p in found if p.forces is not None])
        mean = all_forces.mean(0)
        return CommitteePrediction(
            energy=energy.mean(0),
            energies=torch.stack([p.energies for p in found]).mean(0),
            forces=mean,
            stress=torch.stack([p.stress for p in found if p.stress is not None]).mean(0) if stress else None,
            energy_std=energy.std(0, correction=0),
            forces_std=(all_forces - mean).square().sum(-1).mean(0).sqrt(),
        )

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Add up all members: an engine may keep its buffer while the next runs."""
        return sum(engine.bytes_needed(n_atoms, n_edges) for engine in self.engines)

    def describe(self) -> str:
        """Name the engine in a few words."""
        kinds = list(dict.fromkeys(engine.describe() for engine in self.engines))
        return f"{len(self.engines)} × {kinds[0]}" if len(kinds) == 1 else "; ".join(kinds)


def _check_members(models: Sequence[LoadedModel]) -> None:
    if len(models) < 2:
        raise InputError(f"a committee needs two models or more, and got {len(models)}; one alone has no spread")
    first = models[0]
    for other in models[1:]:
        _same(
            "elements",
            first,
            other,
            *(tuple(chemical_symbols[z] for z in m.potential.elements) for m in (first, other)),
        )
        levels = (first.card.get("level_of_theory"), other.card.get("level_of_theory"))
        if None not in levels:
            _same("the level of theory", first, other, *levels)


def _same(what: str, first: LoadedModel, other: LoadedModel, one: Any, two: Any) -> None:
    if one != two:
        raise InputError(
            f"{first.path.name} and {other.path.name} do not fit into one committee: {what} differ, {one} and {two}. "
            "Use models trained on the same data"
        )
