"""Architectures: one file each, AtomGraph in, per-atom energies out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from asecalc_mlip.errors import InputError
from asecalc_mlip.models.cgcnn import CGCNN
from asecalc_mlip.models.combine import add_potentials, core_potential, has_core, parts_of
from asecalc_mlip.models.eam import EAM
from asecalc_mlip.models.painn import PaiNN
from asecalc_mlip.models.potential import Potential, Prediction, predict
from asecalc_mlip.models.schnet import SchNet
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.torchmd_et import TorchMDET
from asecalc_mlip.models.vector_head import VectorHead
from asecalc_mlip.models.zbl import ZBL

__all__ = [
    "ARCHITECTURES",
    "CGCNN",
    "EAM",
    "PaiNN",
    "Potential",
    "Prediction",
    "SchNet",
    "Sum",
    "TorchMDET",
    "VectorHead",
    "add_potentials",
    "build_network",
    "build_potential",
    "core_potential",
    "has_core",
    "parts_of",
    "predict",
]

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "cgcnn": CGCNN,
    "eam": EAM,
    "painn": PaiNN,
    "schnet": SchNet,
    "sum": Sum,
    "torchmd_et": TorchMDET,
}

# What a sum may have among its parts, but no potential is made of alone: it has no weights.
_PRIORS: dict[str, type[nn.Module]] = {"zbl": ZBL}


def build_network(architecture: str, hyperparameters: Mapping[str, Any]) -> nn.Module:
    """Network by the name of its architecture.

    Raises
    ------
    InputError
        For an unknown architecture, or a hyper-parameter that it does not have.
    """
    known = {**ARCHITECTURES, **_PRIORS}
    if architecture not in known:
        raise InputError(f"architecture {architecture!r} is unknown; this version has {sorted(ARCHITECTURES)}")
    cls = known[architecture]
    allowed = list(inspect.signature(cls).parameters)
    unknown = sorted(set(hyperparameters) - set(allowed))
    if unknown:
        raise InputError(f"{architecture} has no hyper-parameter {unknown}; it has {allowed}{_owners(unknown)}")
    for name, value in hyperparameters.items():
        _check_size(f"{architecture}: hyper-parameter {name}", name, value)
    try:
        return cls(**hyperparameters)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{architecture} cannot be built with {dict(hyperparameters)}: {error}") from None


def _owners(names: Sequence[str]) -> str:
    """Which other architectures have these hyper-parameters, as the end of a message."""
    owners = {name: [a for a, c in ARCHITECTURES.items() if name in inspect.signature(c).parameters] for name in names}
    return "".join(f". Only {', '.join(found)} has {name}" for name, found in owners.items() if found)


def _check_size(what: str, name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "cutoff" and not (number and 0 < value < math.inf):
        raise InputError(f"{what} is {value!r}; expected a length above 0 Å, usually 4 to 7")
    if name.startswith("n_") and not (number and isinstance(value, int) and value >= 1):
        raise InputError(f"{what} is {value!r}; expected a whole number of at least 1")
    if name == "direct_forces" and not isinstance(value, bool):
        raise InputError(f"{what} is {value!r}; expected true or false")


def build_potential(
    architecture: str,
    hyperparameters: Mapping[str, Any],
    *,
    reference_energies: Mapping[int, float],
    scale: float = 1.0,
) -> Potential:
    """Network with reference energies (eV per element) and output scale (eV)."""
    network = build_network(architecture, hyperparameters)
    return Potential(
        network,
        architecture=architecture,
        hyperparameters=hyperparameters,
        reference_energies=reference_energies,
        scale=scale,
    )
