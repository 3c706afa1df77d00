"""A model file with all that a run of it needs, opened once: card, start structure, reference, suggested settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from asecalc_mlip import zoo
from asecalc_mlip.analysis.bonds import THRESHOLD, is_boxed_molecule
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.references import (
    ContactReference,
    Reference,
    load_reference,
    reference_from_dict,
)
from asecalc_mlip.analysis.stability import worst_deviation
from asecalc_mlip.digests import sha256_of
from asecalc_mlip.errors import Action, InputError
from asecalc_mlip.files import read_structure
from asecalc_mlip.md.conditions import warn_once
from asecalc_mlip.md.settings import MDSettings, make_settings, protocols
from asecalc_mlip.units import Dtype

if TYPE_CHECKING:
    from asecalc_mlip.checkpoint import LoadedModel

__all__ = ["Resolved", "resolve"]


@dataclass
class Resolved:
    """A model with what belongs to it; made by `resolve`.

    Attributes
    ----------
    name : str
        The model as it was asked for.
    path : Path or None
        Of the model file; None where any ASE calculator stands in for it.
    model : LoadedModel or None
    structure_file : Path or None
        Start structure that was given, or lies beside the model.
    structure_name : str or None
        Path of the start structure if it was given.
    known_reference : Reference or None
        Reference that was given, in the model file, or beside it; whether it fits the structure is another question.
    reference_name : str
        Where it comes from.
    reference_given : bool
    others : list of LoadedModel
        Which form a committee with `model`; structure, reference and settings are those of `model`.
    """

    name: str
    path: Path | None = None
    model: LoadedModel | None = None
    structure_file: Path | None = None
    structure_name: str | None = None
    known_reference: Reference | None = None
    reference_name: str = ""
    reference_given: bool = False
    others: list[LoadedModel] = field(default_factory=list)
    stand_in: Any = field(default=None, repr=False)

    @property
    def card(self) -> dict[str, Any]:
        """Card of the model; empty where it has none."""
        card = self.model.card if self.model is not None else getattr(self.stand_in, "card", None)
        return card if isinstance(card, dict) else {}

    @cached_property
    def sha256(self) -> str | None:
        """Of the content of the model file."""
        return sha256_of(self.path) if self.path else None

    @property
    def identity(self) -> dict[str, str]:
        """Marks of the model, or of all those of a committee, that must be the same when a run goes on."""
        found = [self.sha256, *(sha256_of(model.path) for model in self.others)]
        return {"model_sha256": "+".join(filter(None, found))} if self.sha256 else {}

    @cached_property
    def structure(self) -> Atoms:
        """Start structure; InputError where there is none, it cannot be read or has elements that the model has not."""
        if self.structure_file is None:
            raise InputError(
                f"the model {self.name} comes without a start structure: name a file with one after the model"
            )
        atoms = read_structure(self.structure_file, what="the structure", tell=self.structure_name is not None)
        if self.model is not None:
            from asecalc_mlip.calculators.checks import ElementCheck

            ElementCheck(self.model.potential.elements, self.model.path.name)(atoms.numbers)
        return atoms

    @property
    def atoms(self) -> Atoms:
        """A copy of the start structure."""
        return self.structure.copy()

    @property
    def reference(self) -> Reference | None:
        """The reference that fits the start structure."""
        return self.reference_for(self.structure)

    @property
    def suggested(self) -> dict[str, Any]:
        """Protocol and temperature_K that the card, or else the reference, names for runs of this model."""
        named = {name: self.card[name] for name in ("protocol", "temperature_K") if self.card.get(name)}
        if isinstance(self.known_reference, PeriodicReference):
            known = self.known_reference
            named = {"protocol": known.protocol, "temperature_K": known.temperature_K, **named}
        return {name: value for name, value in named.items() if value}

    def settings(self, ensemble: str = "nvt", **given: Any) -> MDSettings:
        """Make the settings of a run: the options that are `given`, else what the model suggests, else defaults.

        Parameters
        ----------
        ensemble : str
            nvt, nve, npt or anneal.
        **given
            Fields of `MDSettings`; None: not given.
        """
        free = not given.get("protocol") and not given.get("temperature_K")
        named = self.suggestions(ensemble) if free else {}
        known = {name: value for name, value in given.items() if value is not None}
        files = {"model": self.name, "structure": self.structure_name}
        members = [str(model.path) for model in self.others]
        return make_settings(ensemble, {**files, "members": members or None, **named, **known})

    def suggestions(self, ensemble: str) -> dict[str, Any]:
        """Return what of `suggested` counts: a protocol of this ensemble, or a temperature if no protocol is named."""
        named = self.suggested
        if "protocol" not in named:
            return named
        own = protocols().get(named["protocol"], {}).get("ensemble") == ensemble
        return {"protocol": named["protocol"]} if own else {}

    def calculator(
        self,
        *,
        device: str = "auto",
        dtype: Dtype = "float32",
        threshold: float | None = None,
        action: Action = "warn",
    ) -> Any:
        """Make a calculator of the model or the committee, or return the one that stands in for it.

        `threshold` (eV/Å) and `action` are those of `CommitteeCalculator`.
        """
        if self.stand_in is not None:
            return self.stand_in
        from asecalc_mlip.calculators.committee import CommitteeCalculator
        from asecalc_mlip.calculators.piwsl import PIWSLCalculator

        assert self.model is not None  # there is one of the two
        if not self.others:
            return PIWSLCalculator(self.model, device=device, dtype=dtype)
        models = [self.model, *self.others]
        return CommitteeCalculator(models, threshold=threshold, action=action, device=device, dtype=dtype)

    def calculator_for(self, settings: MDSettings, *, device: str = "auto") -> Any:
        """Make the calculator of a run with these settings."""
        threshold, action = settings.threshold_eV_per_A, settings.action or "warn"
        return self.calculator(device=device, dtype=settings.dtype, threshold=threshold, action=action)

    def reference_for(self, atoms: Atoms) -> Reference | None:
        """Return the reference for a structure, or None where there is none that fits.

        One that comes with the model is used whole only if it fits: the same molecule, whole by its bonds, or a
        periodic system of elements that the reference data have. Of one that does not fit, the closest approaches of
        pairs of elements still count.

        Raises
        ------
        InputError
            For a reference that was given and does not fit.
        """
        reference = self.known_reference
        if reference is None or isinstance(reference, ContactReference):
            return reference
        problem = _misfit(atoms, reference)
        if problem is None:
            return reference
        if self.reference_given:
            raise InputError(f"the reference {self.reference_name} does not fit the structure: {problem}")
        instead = "g(r) is not watched" if _periodic(atoms) else "the bonds of the start structure are used instead"
        warn_once(f"the reference {self.reference_name} does not fit the structure ({problem}); {instead}")
        return ContactReference.of(reference)


def resolve(
    model: str | Path | Sequence[str | Path] | None = None,
    structure: str | Path | Atoms | None = None,
    reference: str | Path | Reference | None = None,
    *,
    calculator: Any = None,
) -> Resolved:
    """Open a model file once and find what belongs to it.

    Parameters
    ----------
    model : path or str, or several, optional
        Model file or name of a shipped model; by default aspirin.pt, or none where a calculator is given. Several make
        a committee; structure, reference and suggested settings are those of the first.
    structure : path or Atoms, optional
        Start structure, by default the one beside the model (aspirin.xyz beside aspirin.pt).
    reference : path or reference, optional
        By default the one in the model file, else the one beside it (aspirin.reference.json).
    calculator : ASE calculator, optional
        Used in place of a new one of the model.

    Raises
    ------
    CheckpointError
        For a model that is missing or damaged.
    InputError
        For a structure or reference that cannot be read, and for a committee of equal models.
    """
    names = [model] if isinstance(model, (str, Path)) else list(model or [])
    name = str(names[0] if names else MDSettings.model)
    path = None if not names and calculator is not None else zoo.find(name).resolve()
    loaded = _load(path) if calculator is None else _model_of(calculator)
    found = Resolved(name, path, loaded, stand_in=calculator, others=_others(names, path))
    if isinstance(structure, Atoms):
        found.structure = structure.copy()
    elif structure is not None:
        found.structure_file, found.structure_name = Path(structure), str(Path(structure).resolve())
    else:
        found.structure_file = zoo.beside(path, ".xyz")
    found.known_reference, found.reference_name = _reference(reference, path, loaded)
    found.reference_given = reference is not None
    return found


def _others(names: Sequence[str | Path], first: Path | None) -> list[LoadedModel]:
    """Load the models that form a committee with the first."""
    from asecalc_mlip.checkpoint import load

    paths = [zoo.find(str(name)).resolve() for name in names[1:]]
    twice = [path.name for number, path in enumerate(paths) if path in (first, *paths[:number])]
    if twice:
        raise InputError(f"{twice[0]} is given twice: a committee needs different models, trained from different seeds")
    return [load(path) for path in paths]


def _load(path: Path | None) -> LoadedModel | None:
    from asecalc_mlip.checkpoint import load

    return load(path) if path is not None else None


def _model_of(calculator: Any) -> LoadedModel | None:
    """Return the model file that a calculator was made of, if it was made of one."""
    from asecalc_mlip.checkpoint import LoadedModel

    model = getattr(calculator, "model", None)
    return model if isinstance(model, LoadedModel) else None


def _reference(
    given: str | Path | Reference | None, path: Path | None, model: Any
) -> tuple[Reference | None, str]:  # fmt: skip
    if given is not None and not isinstance(given, (str, Path)):
        return given, given.source
    if given is None and model is not None and model.reference is not None:
        return reference_from_dict(model.reference), f"in {model.path.name}"
    file = given or zoo.beside(path, zoo.REFERENCE)
    return (load_reference(file), Path(file).name) if file else (None, "")


def _misfit(atoms: Atoms, reference: MoleculeReference | PeriodicReference) -> str | None:
    """Why a reference is not one for a structure, or None."""
    if isinstance(reference, PeriodicReference):
        if reference.matches(atoms):
            if reference.groups and reference.group_of(atoms) is None:
                warn_once(
                    f"the structure does not say by info[{reference.group_by!r}] which of the reference's groups it "
                    f"belongs to ({', '.join(reference.groups)}); its g(r) is compared with the mean of all"
                )
            return None
        pairs = ", ".join(name for name in reference.rdfs if name != "all")
        return f"it is for systems periodic in three directions with the pairs {pairs}"
    if _periodic(atoms):
        return "it is for a molecule, and the structure is periodic and not one molecule in a box"
    if not reference.matches(atoms):
        known, here = (Atoms(symbols).get_chemical_formula() for symbols in (reference.symbols, atoms.symbols))
        if known == here:
            return f"the order of its {len(atoms)} atoms is another one"
        return f"it is for {known}; where that was the only molecule in the training, the forces on {here} are wrong"
    if worst_deviation(atoms.positions, reference, atoms)[0] > THRESHOLD:
        return "the start structure breaks its bonds (another order of atoms?)"
    return None


def _periodic(atoms: Atoms) -> bool:
    """Whether a structure is periodic, and not one molecule in a periodic box."""
    return bool(atoms.pbc.any()) and not is_boxed_molecule(atoms)
