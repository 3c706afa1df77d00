"""The .pt file: write, read, upgrade, describe.

A zip archive of plain types and tensors as torch writes it (`asecalc_mlip.file_format.archive`); nothing in it is ever
executed, and sizes are checked before memory is taken. A checksum of weights and metadata turns a flipped bit into an
error. Each change of the layout gets a new `FORMAT_VERSION` and an entry in `UPGRADES`, so that old files keep loading.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers as numbers_of
from ase.data import chemical_symbols

from asecalc_mlip import zoo
from asecalc_mlip._version import __version__
from asecalc_mlip.errors import CheckpointError, InputError
from asecalc_mlip.file_format import archive
from asecalc_mlip.file_format.content import ENTRIES, check_entries, check_plain, check_weights, checksum
from asecalc_mlip.files import replacing
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Potential, architecture_text, build_potential, parts_of, predict
from asecalc_mlip.models.budget import Budget
from asecalc_mlip.units import UNITS

__all__ = ["CheckpointError", "LoadedModel", "checksum", "describe", "load", "plain_text", "save", "shape_text"]

FORMAT = "asecalc-mlip"
FORMAT_VERSION = 2

# Å; of two atoms that a model is looked at with when it is loaded.
CLOSE = 1.0
FEW_ELEMENTS = 6

# version n → function that turns the content of version n into that of n + 1
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda content: {**content, "version": 2, "checksum": None},
}

# What a description that is none can raise in the constructor of a network.
_MISFIT = (ValueError, RuntimeError, LookupError, AttributeError, TypeError, ArithmeticError, AssertionError)


@dataclass
class LoadedModel:
    """A model from a file.

    Attributes
    ----------
    potential : Potential
    card : dict
        What the model is: training data, level of theory, losses, errors, licence; see `describe`.
    path : Path
    reference_energies : dict
        `values` (symbol → eV), `method`, `source`, and what else was recorded about how they were obtained.
    reference : dict or None
        How the training data look, for the monitor of a run: bond lengths, h(r) or g(r), closest approaches; see
        `asecalc_mlip.analysis.references.reference_from_dict`. None in files that have none.
    checksum : str or None
        SHA-256 of weights and metadata, which the file states and its content has. None in files of version 1.
    """

    potential: Potential
    card: dict[str, Any]
    path: Path
    reference_energies: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] | None = None
    checksum: str | None = None

    def __repr__(self) -> str:
        elements = ", ".join(chemical_symbols[z] for z in self.potential.elements)
        return f"LoadedModel({self.path.name}: {architecture_text(self.potential)}, elements {elements})"

    def __str__(self) -> str:
        return _card_text(self)


def save(
    path: str | Path,
    potential: Potential,
    *,
    card: Mapping[str, Any] | None = None,
    reference_energies: Mapping[str, Any] | None = None,
    reference: Mapping[str, Any] | None = None,
) -> None:
    """Write a model file in one step: a crash or a full disk leaves the old file, if any, as it was.

    Parameters
    ----------
    path : str or Path
    potential : Potential
    card : mapping
        Plain types (numbers, text, lists, dicts) about training data, errors and licence.
    reference_energies : mapping
        How the E0 were obtained: `method`, `source`, `residual…`; the values come from the potential.
    reference : mapping, optional
        How the training data look, the `to_dict()` of a reference (`asecalc_mlip.analysis.make_reference`).

    Raises
    ------
    CheckpointError
        For weights that are not finite, a card with other than plain types, or a file that cannot be written.
    """
    e0 = {chemical_symbols[z]: energy for z, energy in potential.reference_energies.items()}
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "architecture": potential.architecture,
        "hyperparameters": _without_defaults(potential.hyperparameters),
        "state_dict": {
            name: value.detach().cpu().contiguous().clone() for name, value in potential.network.state_dict().items()
        },
        "elements": list(e0),
        "cutoff": potential.cutoff,
        "scale": potential.scale,
        "units": dict(UNITS),
        "reference_energies": {"method": "not stated", **dict(reference_energies or {}), "values": e0},
        "dtype": str(potential.dtype).removeprefix("torch."),
        "card": {"code_version": __version__, **dict(card or {})},
    }
    if reference is not None:
        content["reference"] = dict(reference)
        check_plain(content["reference"], "reference")
    check_plain(content["card"], "card")
    check_plain(content["reference_energies"], "reference_energies")
    check_weights(content, Path(path))
    _write({**content, "checksum": checksum(content)}, Path(path))


@torch.inference_mode(False)  # forces are derivatives, which tensors made in a caller's inference mode forbid
def load(path: str | Path) -> LoadedModel:
    """Read a model file, in the dtype it was trained in, on the CPU.

    Raises
    ------
    CheckpointError
        For a file that is missing, cut off, not one of ours, of a newer format, of an unknown architecture, or with
        weights that are not finite. The message says what was found and what to do.
    """
    path = zoo.find(path)
    content = _read(path)
    found = _check_sum(content, path)
    content = _upgraded(content, path)
    check_entries(content, path)
    check_weights(content, path)
    potential = _potential(content, path)
    e0 = content["reference_energies"]
    return LoadedModel(potential, content["card"], path, e0, content.get("reference"), found)


def describe(path: str | Path) -> str:
    """Return the card of a model file as text."""
    return _card_text(load(path))


def _without_defaults(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    # Versions before force heads refuse the word; the files of other models need not carry it.
    return {name: value for name, value in hyperparameters.items() if (name, value) != ("direct_forces", False)}


def _write(content: dict[str, Any], path: Path) -> None:
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            archive.write(content, file)
    except InputError as error:
        raise CheckpointError(str(error)) from None
    except RuntimeError as error:  # of torch, which has no other for a full disk
        raise CheckpointError(f"{path} cannot be written ({error}); check the space on the disk") from None


def _read(path: Path) -> dict[str, Any]:
    content = archive.read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} is a torch file, but not of {FORMAT}: it holds {found!s:.200}")
    if not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path} has no entry 'state_dict'; a model file has {', '.join(ENTRIES)}")
    for name, value in content["state_dict"].items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: weight {name!r:.120} is a {type(value).__name__}; {archive.ALLOWED}")
    for name, value in content.items():
        if name != "state_dict":
            check_plain(value, f"{path}: {name}")
    return content


def _check_sum(content: dict[str, Any], path: Path) -> str | None:
    """Return the checksum of the content, which must be the stated one; files of version 1 state none."""
    stated = content.get("checksum")
    if stated is None and content.get("version") == 1:
        return None
    found = checksum(content)
    # A later version may be checked in another way; that it is later is then the better message.
    if found != stated and not _later(content.get("version")):
        raise CheckpointError(
            f"{path} is damaged: its weights and metadata have the checksum {found[:16]}…, the file states "
            f"{stated!s:.16}…. Copy or download it again"
        )
    return found


def _later(version: Any) -> bool:
    return isinstance(version, int) and version > FORMAT_VERSION


def _upgraded(content: dict[str, Any], path: Path) -> dict[str, Any]:
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path} has format version {version!r:.40}; expected 1 to {FORMAT_VERSION}")
    if _later(version):
        raise CheckpointError(
            f"{path} has format version {version}; this asecalc-mlip {__version__} reads up to {FORMAT_VERSION}. "
            "Upgrade the package: pip install -U asecalc-mlip"
        )
    while version < FORMAT_VERSION:
        content = UPGRADES[version](content)
        version += 1
    return content


def _potential(content: dict[str, Any], path: Path) -> Potential:
    """Model of the content, which is checked; its shapes are compared with those stored before memory is taken."""
    state = content["state_dict"]
    try:
        with Budget(sum(value.numel() for value in state.values())):
            potential = build_potential(
                content["architecture"],
                content["hyperparameters"],
                reference_energies={
                    numbers_of[s]: energy for s, energy in content["reference_energies"]["values"].items()
                },
                scale=content["scale"],
            )
        potential.to(getattr(torch, content["dtype"]))
        _check_kinds(potential.network.state_dict(), state)
        potential.network.load_state_dict(state)
        potential.eval().requires_grad_(False)
        numbers = _numbers_close_together(potential)
    except _MISFIT as error:
        raise CheckpointError(f"{path}: the model does not fit its own description: {error!s:.400}") from None
    if potential.cutoff != content["cutoff"]:
        raise CheckpointError(f"{path}: cutoff or elements do not fit its network and reference energies")
    if not bool(torch.isfinite(numbers).all()):
        raise CheckpointError(
            f"{path}: energy or forces of its elements, {CLOSE} Å apart, are not finite; its weights overflow, "
            "so the training has diverged or the file is not what it says"
        )
    return potential


def _numbers_close_together(potential: Potential) -> torch.Tensor:
    """Energy and forces of a zigzag chain of all elements, for a look at whether they are numbers at all."""
    elements = (potential.elements * 3)[: max(3, len(potential.elements))]
    if len(elements) <= FEW_ELEMENTS:  # every pair of elements, also of one with itself
        elements = 2 * elements
    place = torch.arange(len(elements), dtype=torch.float64)
    positions = CLOSE * torch.stack([0.866 * place, 0.5 * (place % 2), 0.01 * place], dim=1)
    reach = potential.cutoff if len(elements) <= 2 * FEW_ELEMENTS else 3 * CLOSE
    near = torch.cdist(positions, positions) < min(potential.cutoff, reach)
    # Not by a distance of 0, which cdist rounds to something else where there are many points.
    centers, neighbors = near.fill_diagonal_(False).nonzero().T
    graph = AtomGraph(
        torch.tensor(elements),
        positions,
        torch.zeros(len(elements), dtype=torch.int64),
        centers,
        neighbors,
        torch.zeros(1, 3, 3, dtype=torch.float64),
    )
    found = predict(potential, graph)
    return torch.cat([found.energy, torch.zeros(0) if found.forces is None else found.forces.flatten()])


def _check_kinds(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        if name in state and state[name].dtype != value.dtype:
            raise InputError(f"{name!r} is of {state[name].dtype}; expected {value.dtype}")


def _card_text(model: LoadedModel) -> str:
    potential = model.potential
    n_parameters = sum(p.numel() for p in potential.network.parameters())
    e0 = model.reference_energies
    values = ", ".join(f"{s} {v:.3f}" for s, v in e0.get("values", {}).items())
    lines = [
        ("model", f"{shape_text(potential)}, {n_parameters} parameters"),
        ("elements", ", ".join(chemical_symbols[z] for z in potential.elements)),
        ("cutoff", f"{potential.cutoff:g} Å"),
        ("E0", f"{e0.get('method', 'not stated')}: {values} eV"),
        # Where they come from decides whether they describe single atoms.
        ("E0 source", str(e0.get("source", "not stated"))),
        ("checksum", f"SHA-256 {model.checksum}" if model.checksum else "none: a file of format version 1"),
    ]
    if potential.direct_forces:
        lines.insert(1, ("forces", "direct (not the derivative of the energy)"))
    lines += [(str(key).replace("_", " "), plain_text(value)) for key, value in model.card.items()]
    if model.reference is not None:
        from asecalc_mlip.analysis.references import describe_reference  # here, because SciPy takes its time to load

        lines.append(("reference", describe_reference(model.reference)))
    return "\n".join([model.path.name, *(f"  {key:<16} {value}" for key, value in lines)])


def shape_text(potential: Potential) -> str:
    """Architecture and hyper-parameters; of each part, if it is a sum."""
    parts = parts_of(potential)
    if len(parts) > 1:
        return " + ".join(_part_text(part) for part in parts)
    shape = [f"{k} {v}" for k, v in potential.hyperparameters.items() if k != "cutoff"]
    return ", ".join([potential.architecture, *shape])


def _part_text(part: Potential) -> str:
    # A core has no cutoff of its own: it ends inside the bond of each two elements.
    return f"{shape_text(part)}, cutoff {part.cutoff:g} Å" if "cutoff" in part.hyperparameters else shape_text(part)


def plain_text(value: Any) -> str:
    """Return an entry of a card as text, without the brackets and quotes of Python."""
    if isinstance(value, dict):
        return ", ".join(_named(str(name).replace("_", " "), plain_text(v)) for name, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain_text, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _named(name: str, text: str) -> str:
    """Return name and text; a text that begins with its name (teacher: {teacher: xtb}) has it already."""
    return text if text.startswith(f"{name} ") else f"{name} {text}"
