"""SchNetPack's SchNet and PaiNN as potentials of this package with the same weights, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.representation import PaiNN, SchNet
from schnetpack.transform import CastTo64

from asecalc_mlip.errors import InputError
from asecalc_mlip.models import Potential, build_potential

T = TypeVar("T")

__all__ = ["from_schnetpack", "to_schnetpack"]


def from_schnetpack(model: NeuralNetworkPotential, elements: Sequence[int]) -> Potential:
    """Return the same energies and forces from a potential of this package, in the dtype of the model.

    Parameters
    ----------
    model : schnetpack.model.NeuralNetworkPotential
        PaiNN or SchNet with Gaussian basis and cosine cutoff, one Atomwise energy with two layers, no post-processing.
    elements : sequence of int
        Atomic numbers that it was trained on; SchNetPack does not store them.

    Raises
    ------
    InputError
        For a model that is built otherwise, naming the part.
    """
    representation, readout = model.representation, _readout(model)
    _check(representation, model)
    architecture = "painn" if isinstance(representation, PaiNN) else "schnet"
    state = _renamed(architecture, representation.state_dict(), readout.state_dict())
    hyperparameters = {
        "cutoff": float(representation.cutoff_fn.cutoff),
        "n_features": representation.n_atom_basis,
        "n_interactions": len(representation.interactions),
        "n_rbf": representation.radial_basis.n_rbf,
    }
    zeros = {int(z): 0.0 for z in elements}
    potential = build_potential(architecture, hyperparameters, reference_energies=zeros)
    potential.to(next(representation.parameters()).dtype)
    try:
        potential.network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"this SchNetPack model has other layers than ours: {error}") from None
    with torch.no_grad():
        # SchNetPack does not take isolated atoms off; as their reference energies they come back.
        lone = potential.lone_graph()
        potential.e0[lone.numbers] = potential.network(lone).double()
    return potential.eval()


def to_schnetpack(potential: Potential) -> NeuralNetworkPotential:
    """Return SchNetPack's model with the weights of a potential: the same forces, in eV and Å.

    Its energies are the interaction energies of the network times the scale; reference energies and the energies of
    isolated atoms, constants of a composition, are not in it.

    Raises
    ------
    InputError
        For a model that SchNetPack has no counterpart of, naming the part.
    """
    sizes = {"n_rbf": 20, "n_features": 128, "n_interactions": 3, **potential.hyperparameters}
    representations = {"painn": PaiNN, "schnet": SchNet}
    if potential.architecture not in representations or potential.direct_forces:
        kind = "with a force head" if potential.direct_forces else "as such"
        raise InputError(f"SchNetPack has no {potential.architecture} {kind}; it has PaiNN and SchNet")
    if sizes.get("radial_basis", "gaussian") != "gaussian":
        raise InputError(f"the radial basis is {sizes['radial_basis']}; only gaussian is the same in SchNetPack")
    representation = representations[potential.architecture](
        n_atom_basis=sizes["n_features"],
        n_interactions=sizes["n_interactions"],
        radial_basis=GaussianRBF(n_rbf=sizes["n_rbf"], cutoff=potential.cutoff),
        cutoff_fn=CosineCutoff(potential.cutoff),
    ).to(potential.dtype)
    readout = Atomwise(n_in=sizes["n_features"], output_key="energy").to(potential.dtype)
    _take_weights(representation, readout, potential)
    parts = {"input_modules": [PairwiseDistances()], "output_modules": [readout, Forces()]}
    return NeuralNetworkPotential(representation, **parts, postprocessors=[CastTo64()]).eval()


def _take_weights(representation: PaiNN | SchNet, readout: Atomwise, potential: Potential) -> None:
    theirs = {name: name for name in representation.state_dict()}
    names = _renamed(potential.architecture, theirs, {name: f"readout {name}" for name in readout.state_dict()})
    state = {names[name]: value for name, value in potential.network.state_dict().items() if name in names}
    try:
        # Radial basis and cutoff function have buffers that ours makes when it needs them.
        fixed = {n: v for n, v in representation.state_dict().items() if n.startswith(("radial_basis", "cutoff_fn"))}
        representation.load_state_dict({**fixed, **{n: v for n, v in state.items() if not n.startswith("readout ")}})
        readout.load_state_dict({n[8:]: v for n, v in state.items() if n.startswith("readout ")})
    except RuntimeError as error:
        raise InputError(f"this model has other layers than SchNetPack's: {error}") from None
    with torch.no_grad():
        for parameter in readout.outnet[-1].parameters():
            parameter *= potential.scale


def _readout(model: NeuralNetworkPotential) -> Atomwise:
    readouts = [module for module in model.output_modules if isinstance(module, Atomwise)]
    if len(readouts) != 1 or len(readouts[0].outnet) != 2:
        raise InputError(f"expected one Atomwise energy with two layers, found {readouts}")
    return readouts[0]


def _check(representation: Any, model: NeuralNetworkPotential) -> None:
    if not isinstance(representation, (PaiNN, SchNet)):
        raise InputError(f"the representation is {type(representation).__name__}; PaiNN and SchNet can be taken over")
    if not isinstance(representation.radial_basis, GaussianRBF):
        raise InputError(f"the radial basis is {type(representation.radial_basis).__name__}; expected GaussianRBF")
    if not isinstance(representation.cutoff_fn, CosineCutoff):
        raise InputError(f"the cutoff is {type(representation.cutoff_fn).__name__}; expected CosineCutoff")
    names = [type(p).__name__ for p in model.postprocessors]
    if any(name != "CastTo64" for name in names):
        raise InputError(
            f"the model post-processes its results by {names}; take AddOffsets into reference energies first"
        )


def _renamed(architecture: str, representation: Mapping[str, T], readout: Mapping[str, T]) -> dict[str, T]:
    state = {f"readout.{2 * int(name.split('.')[1])}.{name.split('.')[2]}": v for name, v in readout.items()}
    for name, value in representation.items():
        if name.startswith(("radial_basis", "cutoff_fn")):
            continue
        parts = name.split(".")
        if architecture == "schnet":
            name = name.replace("f2out.1.", "f2out.2.").replace("filter_network.1.", "filter_network.2.")
        elif parts[0] == "interactions":
            name = f"messages.{parts[1]}.{2 * int(parts[3])}.{parts[4]}"
        elif parts[0] == "mixing" and parts[2] == "intraatomic_context_net":
            name = f"mixings.{parts[1]}.context.{2 * int(parts[3])}.{parts[4]}"
        elif parts[0] == "mixing":
            name = f"mixings.{parts[1]}.channels.{parts[3]}"
        state[name.replace("filter_net.", "filters.")] = value
    return state
