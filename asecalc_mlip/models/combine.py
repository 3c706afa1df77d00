"""Potentials into a sum and a sum into its potentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from asecalc_mlip.models.potential import Potential
from asecalc_mlip.models.registry import build_potential
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.zbl import ZBL

__all__ = ["add_potentials", "architecture_text", "core_potential", "has_core", "parts_of"]


def add_potentials(potentials: Sequence[Potential], *, reference_energies: Mapping[int, float]) -> Potential:
    """One potential whose interaction energy is the sum of those of others; the weights are copied.

    Parameters
    ----------
    potentials : sequence of Potential
        The one that learns first. Their own reference energies are not used; sums are taken apart.
    reference_energies : mapping
        Atomic number → E0 in eV of the sum.
    """
    parts = [part for potential in potentials for part in parts_of(potential)]
    hyperparameters = {"parts": [_description(part) for part in parts]}
    total = build_potential("sum", hyperparameters, reference_energies=reference_energies)
    total.to(parts[0].dtype)
    assert isinstance(total.network, Sum)
    for network, part in zip(total.network.networks, parts, strict=True):
        network.load_state_dict(part.network.state_dict())
    return total


def architecture_text(potential: Potential) -> str:
    """Name the architecture for people; a sum is named by its parts: "painn + zbl"."""
    return " + ".join(part.architecture for part in parts_of(potential))


def core_potential(elements: Iterable[int]) -> Potential:
    """Return the ZBL core alone, for some atomic numbers."""
    e0 = dict.fromkeys(elements, 0.0)
    return build_potential("zbl", {}, reference_energies=e0)


def has_core(potential: Potential) -> bool:
    """Whether a ZBL core is in it, by itself or in an EAM."""
    return any(isinstance(module, ZBL) for module in potential.network.modules())


def parts_of(potential: Potential) -> list[Potential]:
    """Return the parts of a sum as potentials that share its weights; the reference energies go with the first.

    A potential that is no sum is its own only part.
    """
    network = potential.network
    if not isinstance(network, Sum):
        return [potential]
    found = []
    for k, (part, description) in enumerate(zip(network.networks, potential.hyperparameters["parts"], strict=True)):
        e0 = potential.reference_energies if k == 0 else dict.fromkeys(potential.elements, 0.0)
        one = Potential(
            part,
            architecture=description["architecture"],
            hyperparameters=description.get("hyperparameters", {}),
            reference_energies=e0,
            scale=potential.scale * network.scales[k],
        )
        one.e0 = one.e0.to(potential.e0.device)
        found.append(one.train(potential.training))
    return found


def _description(potential: Potential) -> dict[str, Any]:
    return {
        "architecture": potential.architecture,
        "hyperparameters": dict(potential.hyperparameters),
        "scale": potential.scale,
    }
