r"""The potential that a run begins with: random, from a base, added to another potential, or all of it.

    E(S) = Σ_i E0(Z_i) + known(S) + random(S)

`known` is what has been fitted before: the base, and what is added to it (delta). Reference energies are fitted to what
it leaves, E_ref − known, so that a base of another level of theory starts with the mean energies of the new one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
from ase import Atoms
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from asecalc_mlip.additions.core import CoreCheck, check_core
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel, load
from asecalc_mlip.data.census import has_label
from asecalc_mlip.errors import InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import (
    ARCHITECTURES,
    Potential,
    add_potentials,
    build_potential,
    core_potential,
    has_core,
    parts_of,
)
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.zbl import OUTER
from training.config import LossConfig, ModelConfig, TrainConfig
from training.data.split import spread
from training.data.weights import frame_weight
from training.start.base_model import check_base
from training.start.cohesion import cohesion_of
from training.start.first_energies import begin_at_mean_energy
from training.start.reference_energies import ReferenceEnergies, reference_energies

if TYPE_CHECKING:
    from training.far.level import TeacherLevel

__all__ = ["Start", "energies_of", "make_start", "shift_text", "without_energies_of"]

# Frames, spread evenly, in which the prior is looked at; more say nothing new about how short bonds are.
LOOKED_AT = 1000


@dataclass
class Start:
    """Potential, reference energies and base of a run before its first step.

    Attributes
    ----------
    potential : Potential
        To be trained.
    e0 : ReferenceEnergies
    base : LoadedModel or None
    known : list of Potential
        What was fitted before, of which the interaction energies count.
    shift : dict
        Atomic number → change of E0 from the base in eV; empty without a base.
    prior : bool
        Whether the network is added to the repulsion of nuclei.
    core : CoreCheck or None
        What that does to the data, of which the network learns the rest.
    """

    potential: Potential
    e0: ReferenceEnergies
    base: LoadedModel | None = None
    known: list[Potential] = field(default_factory=list)
    shift: dict[int, float] = field(default_factory=dict)
    prior: bool = False
    core: CoreCheck | None = None

    @property
    def prior_text(self) -> str:
        """Say where the repulsion ends, and whether the data come so close; for the card."""
        acts = f"; {self.core!r}" if self.core is not None and self.core.touched else ""
        return f"ZBL, ends at {OUTER:g} of the sum of the covalent radii{acts}"

    def table(self) -> str:
        """Return the reference energies, and how they differ from those of the base."""
        # A base may know many elements that the data do not have.
        lines = [self.e0.table(self.shift or None)]
        if self.base is not None:
            lines.append(f"  change from {self.base.path.name}: {shift_text(self.shift)}")
        return "\n".join(lines)


def make_start(
    config: TrainConfig, frames: Sequence[Atoms], atoms: Sequence[Atoms] = (), level: TeacherLevel | None = None
) -> Start:
    """Make potential and reference energies for a run on `frames`.

    `atoms` are isolated atoms among the data; where there are none, those of a teacher's `level` take their place.

    Raises
    ------
    InputError
        For a base or a delta that does not have the elements of the data, and a base of another architecture or of
        other hyper-parameters than the configuration asks for.
    """
    settings = config.finetune
    base = None if settings.base is None else load(settings.base)
    delta = None if settings.delta is None else _load_delta(settings.delta, frames)
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    if base is not None:
        check_base(base, config.model, elements, delta)
    if delta is not None:
        _check_elements(delta, elements if base is None else base.potential.elements)
    known = [model.potential for model in (base, delta) if model is not None]
    prior = base is None and _has_prior(config, known)
    core = None
    if prior:
        known.append(core_potential(elements))
        core = _checked_core(frames)
    rest = without_energies_of(known, frames, config.run.device)
    counted = _with_weight(config, rest)
    e0, shift = _reference_energies(config, counted, base, atoms, level)
    if _has_cohesion(config, known, e0) and (cohesion := cohesion_of(counted, e0.values, _cutoff(config, base))):
        known.append(cohesion)
        rest = without_energies_of([cohesion], rest, config.run.device)
        counted = _with_weight(config, rest)
    # Weights must not depend on what was drawn before.
    pl.seed_everything(config.run.seed, verbose=False)
    options: dict[str, Any] = {"scale": _scale(counted, config.loss), "rest": counted, "fitted": bool(e0.fitted)}
    potential = _build(config, known, e0.values, has_base=base is not None, **options)
    if settings.delta_frozen and isinstance(potential.network, Sum):
        potential.network.parts[1:].requires_grad_(False)
    return Start(potential, e0, base, known, shift, prior, core)


def _checked_core(frames: Sequence[Atoms]) -> CoreCheck:
    """Look at what the prior does to the data, and tell it where it is more than nothing."""
    found = check_core([frames[i] for i in spread(frames, LOOKED_AT)])
    if found.touched:
        LOGGER.info(
            f"prior: some bonds of the data are shorter than {OUTER:g} of the sum of the covalent radii, where the "
            f"core begins: it {found!r}. The network learns the rest; model.prior=none leaves the core out"
        )
    return found


def _with_weight(config: TrainConfig, frames: list[Atoms]) -> list[Atoms]:
    """Leave out frames that have no weight in the loss, where every element is in the others too."""
    some = [atoms for atoms in frames if frame_weight(atoms, config.data.weights) > 0]
    elements = {int(z) for atoms in some for z in atoms.numbers}
    return some if all(elements.issuperset(atoms.numbers.tolist()) for atoms in frames) else frames


def energies_of(known: Sequence[Potential], frames: Sequence[Atoms], device: str = "cpu") -> list[dict[str, Any]]:
    """Sum energies (eV), forces (eV/Å) and stress (eV/Å³, Voigt) of potentials, without their reference energies."""
    results = [_evaluate(potential, frames, device) for potential in known]
    total = results[0]
    for result in results[1:]:
        for row, more in zip(total, result, strict=True):
            row["energy"] += more["energy"]
            row["forces"] = row["forces"] + more["forces"]
            row["stress"] = _sum(row["stress"], more["stress"])
    return total


def without_energies_of(known: Sequence[Potential], frames: Sequence[Atoms], device: str = "cpu") -> list[Atoms]:
    """Copy labelled frames, with energies, forces and stress less those of `known`, reference energies aside."""
    if not known:
        return list(frames)
    rest = []
    for atoms, result in zip(frames, energies_of(known, frames, device), strict=True):
        copy = atoms.copy()
        if has_label(copy, "energy"):
            copy.info["energy"] = copy.info["energy"] - result["energy"]
        if has_label(copy, "forces"):
            copy.arrays["forces"] = copy.arrays["forces"] - result["forces"]
        if has_label(copy, "stress") and result["stress"] is not None:
            copy.info["stress"] = copy.info["stress"] - voigt_6_to_full_3x3_stress(result["stress"])
        rest.append(copy)
    return rest


def shift_text(shift: Mapping[int, float]) -> str:
    """Return the E0 shifts as text."""
    return ", ".join(f"{chemical_symbols[z]} {value:+z.4f}" for z, value in sorted(shift.items())) + " eV"


def _sum(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else one + other


def _evaluate(potential: Potential, frames: Sequence[Atoms], device: str) -> list[dict[str, Any]]:
    zeros = Potential(
        potential.network,
        architecture=potential.architecture,
        hyperparameters=potential.hyperparameters,
        reference_energies=dict.fromkeys(potential.elements, 0.0),
        scale=potential.scale,
    )
    model = LoadedModel(zeros.eval(), {}, Path("known.pt"))
    # In double precision, so that what follows from it is the same when a run is continued.
    return PIWSLCalculator(model, device="cpu" if device == "auto" else device, dtype="float64").evaluate(frames)


def _load_delta(name: str, frames: Sequence[Atoms]) -> LoadedModel:
    """Return a model file, or a prior by its name."""
    if name != "zbl":
        return load(name)
    elements = {int(z) for atoms in frames for z in atoms.numbers}
    return LoadedModel(core_potential(elements).eval(), {"name": "ZBL"}, Path("zbl"))


def _check_elements(delta: LoadedModel, elements: Sequence[int]) -> None:
    if delta.potential.architecture == "zbl":
        return
    if missing := [chemical_symbols[z] for z in elements if z not in delta.potential.elements]:
        known = ", ".join(chemical_symbols[z] for z in delta.potential.elements)
        raise InputError(
            f"finetune.delta {delta.path.name} has no parameters for {', '.join(missing)}, which the model knows; it "
            f"has them for {known}. Fit one to data with {', '.join(missing)}: asecalc eam fit"
        )


def _reference_energies(
    config: TrainConfig,
    rest: Sequence[Atoms],
    base: LoadedModel | None,
    atoms: Sequence[Atoms],
    level: TeacherLevel | None,
) -> tuple[ReferenceEnergies, dict[int, float]]:
    model = config.model
    if (
        model.reference_energies == "fit"
        and base is None
        and level is not None
        and not atoms
        and not model.isolated_atoms
    ):
        atoms = level.moved_atoms()
        if atoms:
            found = reference_energies(rest, "fit", atoms=atoms)
            return dataclasses.replace(found, source=f"isolated atoms by {level.teacher.name}, shifted to the data"), {}
    options: dict[str, Any] = {"given": model.given, "isolated": model.isolated_atoms, "reading": config.data.reading()}
    options["atoms"] = atoms
    if base is None:
        return reference_energies(rest, model.reference_energies, **options), {}
    old = base.potential.reference_energies
    if model.reference_energies == "fit":
        found = _shifted(rest, old, base.path.name)
    else:
        found = reference_energies(rest, model.reference_energies, **options)
    # Elements that the new data do not have keep what they had.
    e0 = dataclasses.replace(found, values={**old, **found.values})
    elements = {int(z) for atoms in rest for z in atoms.numbers}
    return e0, {z: e0.values[z] - old[z] for z in sorted(elements)}


def _shifted(rest: Sequence[Atoms], old: Mapping[int, float], name: str) -> ReferenceEnergies:
    """Return the E0 of a base with the smallest changes that fit the energies that it leaves."""
    if not any(has_label(atoms, "energy") for atoms in rest):
        return ReferenceEnergies(dict(old), "given", f"those of {name}, as no frame has an energy", 0.0)
    left = []
    for atoms in rest:
        copy = Atoms(atoms.numbers)
        if has_label(atoms, "energy"):
            copy.info["energy"] = atoms.info["energy"] - float(np.sum([old[int(z)] for z in atoms.numbers]))
        left.append(copy)
    found = reference_energies(left, "fit")
    values = {z: old[z] + change for z, change in found.values.items()}
    return dataclasses.replace(found, values=values, source=f"those of {name}, shifted by {found.source}")


def _build(
    config: TrainConfig,
    known: Sequence[Potential],
    e0: Mapping[int, float],
    *,
    has_base: bool,
    scale: float,
    rest: Sequence[Atoms],
    fitted: bool,
) -> Potential:
    if has_base and len(known) == 1:
        return _with_reference_energies(known[0], e0)
    if has_base:
        return add_potentials(known, reference_energies=e0)
    new = _new(config.model, e0, scale)
    if not fitted:
        begin_at_mean_energy(new, rest)
    return add_potentials([new, *known], reference_energies=e0) if known else new


def _has_cohesion(config: TrainConfig, known: Sequence[Potential], e0: ReferenceEnergies) -> bool:
    """Return whether E0 are isolated atoms, whose binding energy the network would have to learn."""
    networks = {part.architecture for potential in known for part in parts_of(potential)}
    if not config.model.cohesion or e0.method == "zero" or e0.fitted or "cohesion" in networks:
        return False
    return not (config.model.hyperparameters.get("direct_forces") or any(one.direct_forces for one in known))


def _cutoff(config: TrainConfig, base: LoadedModel | None) -> float:
    """Return the cutoff of the network, Å."""
    if base is not None:
        return parts_of(base.potential)[0].cutoff
    return float({**_defaults(config.model.architecture), **config.model.hyperparameters}["cutoff"])


def _new(model: ModelConfig, e0: Mapping[int, float], scale: float) -> Potential:
    """Return a network with random weights, that states every one of its hyper-parameters."""
    name, given = model.architecture, dict(model.hyperparameters)
    return build_potential(name, {**_defaults(name), **given}, reference_energies=e0, scale=scale)


def _defaults(architecture: str) -> dict[str, Any]:
    """Return the default hyper-parameters of an architecture, as its class declares them."""
    if architecture not in ARCHITECTURES:
        return {}
    parameters = inspect.signature(ARCHITECTURES[architecture]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _has_prior(config: TrainConfig, known: Sequence[Potential]) -> bool:
    """Return whether the network gets a repulsion of nuclei, which what it is added to may have already."""
    if config.model.prior == "none" or any(map(has_core, known)):
        return False
    if config.model.hyperparameters.get("direct_forces"):
        LOGGER.info("no prior: the forces of a force head are not the gradient of an energy that one could be added to")
        return False
    return True


def _with_reference_energies(potential: Potential, e0: Mapping[int, float]) -> Potential:
    """Return a trainable copy with other E0, and with its own scale, which belongs to its weights."""
    new = build_potential(
        potential.architecture, potential.hyperparameters, reference_energies=e0, scale=potential.scale
    )
    new.to(potential.dtype).network.load_state_dict(potential.network.state_dict())
    return new


def _scale(frames: Sequence[Atoms], loss: LossConfig) -> float:
    # Network outputs of order one; forces change energies by about their rms over one Å.
    if loss.forces_weight <= 0:
        return 1.0
    squares = np.concatenate([np.asarray(atoms.arrays["forces"], dtype=float).ravel() for atoms in frames]) ** 2
    return float(np.sqrt(squares.mean())) or 1.0
