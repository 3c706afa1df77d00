"""Whether a trained model can be the base of a run: elements, architecture, hyper-parameters."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ase.data import chemical_symbols

from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.errors import InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import ARCHITECTURES, Potential, parts_of
from training.config import OF_BASE, ModelConfig

__all__ = ["check_base", "pretraining_of"]


def check_base(base: LoadedModel, model: ModelConfig, elements: Sequence[int], delta: LoadedModel | None) -> None:
    """Refuse a base that does not fit the configuration or the data.

    Parameters
    ----------
    base : LoadedModel
    model : ModelConfig
        What the configuration asks for.
    elements : sequence of int
        Atomic numbers of the data.
    delta : LoadedModel or None
        What the base is to be added to.

    Raises
    ------
    InputError
    """
    name, learner = base.path.name, parts_of(base.potential)[0]
    if missing := [chemical_symbols[z] for z in elements if z not in base.potential.elements]:
        known = ", ".join(chemical_symbols[z] for z in base.potential.elements)
        raise InputError(
            f"finetune.base {name} does not know {', '.join(missing)}, which the data have; it knows {known}. Leave "
            f"the structures with {', '.join(missing)} out, or train a base on data that have it"
        )
    asked, has = model.architecture, base.potential.architecture
    if asked not in (OF_BASE, has, learner.architecture):
        raise InputError(
            f"model.architecture is {asked}, but finetune.base {name} is {has}; leave model.architecture out, or "
            "choose another base"
        )
    _check_hyperparameters(base, model, learner)
    others = parts_of(base.potential)[1:]
    if delta is not None and any(part.architecture != "zbl" for part in others):
        raise InputError(
            f"finetune.base {name} is a sum of potentials already, to which finetune.delta {delta.path.name} would be "
            "added again; leave finetune.delta out"
        )
    _warn_of_double(base, delta)


def pretraining_of(model: LoadedModel) -> dict[str, Any] | None:
    """Return the entry of the card about pretraining on a teacher, or None."""
    found = model.card.get("pretraining")
    return found if isinstance(found, dict) else None


def _check_hyperparameters(base: LoadedModel, model: ModelConfig, learner: Potential) -> None:
    defaults = inspect.signature(ARCHITECTURES[learner.architecture]).parameters
    unlike = []
    for name, value in model.hyperparameters.items():
        default = defaults[name].default if name in defaults else "not there"
        has = learner.hyperparameters.get(name, default)
        if has != value:
            unlike.append(f"{name} is {value}, that of the base {has}")
    if unlike:
        raise InputError(
            f"model.hyperparameters do not fit finetune.base {base.path.name}: {'; '.join(unlike)}. Leave them out, or "
            "train a base that has them"
        )


def _warn_of_double(base: LoadedModel, delta: LoadedModel | None) -> None:
    pretraining = pretraining_of(base)
    if delta is not None and pretraining is not None and delta.potential.architecture == "eam":
        # Older files have it as `eam`.
        teacher = pretraining.get("teacher", pretraining.get("eam", "a teacher"))
        LOGGER.warning(
            f"{base.path.name} was pretrained on {teacher}, and {delta.path.name} is "
            "added to it: what both know counts twice at first"
        )
