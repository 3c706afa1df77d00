"""The table of architectures, and how a network is made from a name and its hyper-parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asecalc_mlip.errors import InputError
from asecalc_mlip.models.cgcnn import CGCNN
from asecalc_mlip.models.cohesion import Cohesion
from asecalc_mlip.models.eam import EAM
from asecalc_mlip.models.equiformer_v2 import EquiformerV2
from asecalc_mlip.models.escn import ESCN
from asecalc_mlip.models.m3gnet import M3GNet
from asecalc_mlip.models.painn import PaiNN
from asecalc_mlip.models.potential import Potential
from asecalc_mlip.models.schnet import SchNet
from asecalc_mlip.models.spinconv import SpinConv
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.tensornet import TensorNet
from asecalc_mlip.models.torchmd_et import TorchMDET
from asecalc_mlip.models.traits import Network, Traits
from asecalc_mlip.models.zbl import ZBL

__all__ = [
    "ARCHITECTURES",
    "build_network",
    "build_potential",
    "check_trainable",
    "hyperparameters_of",
    "register",
    "trainable",
]

# Å; and largest sizes, beyond those of any known model: a file or a slip of the pen must not take all memory or time.
CUTOFFS = (0.1, 100.0)
LARGEST = {
    "n_interactions": 64,
    "n_rbf": 1024,
    "n_heads": 128,
    "n_exponentials": 512,
    "n_angular": 8,
    "l_max": 10,
    "m_max": 10,
}
LARGEST_OTHER = 2048
MOST_PARTS = 16
# Those that a potential is made of, by name.
ARCHITECTURES: dict[str, type[Network]] = {}
# Allowed among the parts of a sum, but not alone: these have no weights.
_PRIORS: dict[str, type[Network]] = {}
# Function that makes a network from its hyper-parameters, where the class itself does not.
_MAKERS: dict[type[Network], Callable[..., Network]] = {}


def register(name: str, cls: type[Network], *, prior: bool = False) -> None:
    """Add an architecture to the table.

    Parameters
    ----------
    name : str
        As in model files and configurations.
    cls : type
        Its network.
    prior : bool
        Whether it is allowed only among the parts of a sum, and not as the first.

    Raises
    ------
    TypeError
        For a class that lacks traits or methods of an architecture, naming those.
    """
    if not (isinstance(cls, type) and issubclass(cls, Network)):
        raise TypeError(f"architecture {name!r}: {cls!r} is not a subclass of asecalc_mlip.models.traits.Network")
    if not isinstance(getattr(cls, "traits", None), Traits):
        raise TypeError(f"architecture {name!r}: {cls.__name__} has no traits; see asecalc_mlip.models.traits.Traits")
    if cls.traits.native is not None and cls.packed is Network.packed:
        raise TypeError(f"architecture {name!r}: {cls.__name__} has a native kernel and no method packed()")
    (_PRIORS if prior else ARCHITECTURES)[name] = cls


def build_network(architecture: str, hyperparameters: Mapping[str, Any]) -> Network:
    """Network by the name of its architecture.

    Raises
    ------
    InputError
        For an unknown architecture, or a hyper-parameter that it does not have.
    """
    allowed = list(hyperparameters_of(architecture))
    unknown = sorted(set(hyperparameters) - set(allowed))
    if unknown:
        raise InputError(f"{architecture} has no hyper-parameter {unknown}; it has {allowed}{_owners(unknown)}")
    for name, value in hyperparameters.items():
        _check_size(f"{architecture}: hyper-parameter {name}", name, value)
    try:
        return _maker(architecture)(**hyperparameters)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{architecture} cannot be built with {dict(hyperparameters)}: {error}") from None


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


def hyperparameters_of(architecture: str) -> Mapping[str, inspect.Parameter]:
    """Return the hyper-parameters of an architecture with their defaults.

    Raises
    ------
    InputError
        For an unknown architecture.
    """
    return inspect.signature(_maker(architecture)).parameters


def trainable() -> list[str]:
    """Names of the architectures that `asecalc train` trains from scratch."""
    return sorted(name for name, cls in ARCHITECTURES.items() if cls.traits.train_instead is None)


def check_trainable(architecture: str) -> None:
    """Refuse an architecture that `asecalc train` does not train from scratch.

    Raises
    ------
    InputError
        For an unknown architecture, and one that is made in another way; the message names that way.
    """
    cls = {**ARCHITECTURES, **_PRIORS}.get(architecture)
    instead = None if cls is None else cls.traits.train_instead
    if cls is None or instead is not None:
        why = "is unknown" if cls is None else f"is not trained from scratch: {instead}"
        raise InputError(f"architecture {architecture!r} {why}; asecalc train has {', '.join(trainable())}")


def _maker(architecture: str) -> Callable[..., Network]:
    cls = {**ARCHITECTURES, **_PRIORS}.get(architecture)
    if cls is None:
        raise InputError(f"architecture {architecture!r} is unknown; this version has {sorted(ARCHITECTURES)}")
    return _MAKERS.get(cls, cls)


def _sum_of(parts: Sequence[Mapping[str, Any]]) -> Sum:
    """Sum of networks described by architecture, hyperparameters and scale (eV, 1 if not given)."""
    _check_parts(parts)
    networks = [build_network(part["architecture"], part.get("hyperparameters", {})) for part in parts]
    return Sum(networks, [float(part.get("scale", 1.0)) for part in parts])


_KEYS = {"architecture", "hyperparameters", "scale"}


def _check_parts(parts: Any) -> None:
    if not isinstance(parts, (list, tuple)) or not 2 <= len(parts) <= MOST_PARTS:
        raise InputError(f"a sum needs a list of two parts or more, at most {MOST_PARTS}; there is {parts!r:.80}")
    for number, part in enumerate(parts):
        if not isinstance(part, Mapping) or "architecture" not in part or set(part) - _KEYS:
            raise InputError(f"part {number} of a sum is {part!r:.80}; expected {', '.join(sorted(_KEYS))}")
        if ARCHITECTURES.get(part["architecture"]) is Sum:
            raise InputError(f"part {number} of a sum is a sum itself; list its parts instead")
    if (first := parts[0]["architecture"]) in _PRIORS:
        raise InputError(f"the first part of a sum is {first}, which has no weights; put the part that learns first")


def _owners(names: Sequence[str]) -> str:
    """Which other architectures have these hyper-parameters, as the end of a message."""
    owners = {name: [a for a in ARCHITECTURES if name in hyperparameters_of(a)] for name in names}
    verbs = {name: "has" if len(found) == 1 else "have" for name, found in owners.items()}
    return "".join(f". Only {' and '.join(found)} {verbs[name]} {name}" for name, found in owners.items() if found)


def _check_size(what: str, name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    shortest, longest = CUTOFFS
    if name.endswith("cutoff") and not (number and shortest <= value <= longest):
        raise InputError(f"{what} is {value!r:.40}; expected {shortest} to {longest} Å, usually 4 to 7")
    most = LARGEST.get(name, LARGEST_OTHER)
    least = 0 if name == "m_max" else 1
    counts = name.startswith("n_") or name in LARGEST
    if counts and not (number and isinstance(value, int) and least <= value <= most):
        raise InputError(f"{what} is {value!r:.40}; expected a whole number of {least} to {most}")
    if name == "direct_forces" and not isinstance(value, bool):
        raise InputError(f"{what} is {value!r:.40}; expected true or false")


_MAKERS[Sum] = _sum_of
register("cgcnn", CGCNN)
register("cohesion", Cohesion, prior=True)
register("eam", EAM)
register("equiformer_v2", EquiformerV2)
register("escn", ESCN)
register("m3gnet", M3GNet)
register("painn", PaiNN)
register("schnet", SchNet)
register("spinconv", SpinConv)
register("sum", Sum)
register("tensornet", TensorNet)
register("torchmd_et", TorchMDET)
register("zbl", ZBL, prior=True)
