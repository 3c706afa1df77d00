"""The .pt file: write, read, upgrade, describe.

A torch zip archive of plain types and tensors, read with `weights_only=True`; nothing in it is ever executed. Each
change of the layout gets a new `FORMAT_VERSION` and an entry in `UPGRADES`, so that old files keep loading.
"""

from __future__ import annotations

import math
import pickle
import zipfile
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
from asecalc_mlip.files import replacing
from asecalc_mlip.models import ARCHITECTURES, Potential, architecture_text, build_potential, parts_of
from asecalc_mlip.units import UNITS

__all__ = ["CheckpointError", "LoadedModel", "describe", "load", "save", "shape_text"]

FORMAT = "asecalc-mlip"
FORMAT_VERSION = 1

# version n → function that turns the content of version n into that of n + 1
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

_ENTRIES: dict[str, type | tuple[type, ...]] = {
    "architecture": str,
    "hyperparameters": dict,
    "state_dict": dict,
    "elements": list,
    "cutoff": (int, float),
    "scale": (int, float),
    "units": dict,
    "reference_energies": dict,
    "dtype": str,
    "card": dict,
}


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
    """

    potential: Potential
    card: dict[str, Any]
    path: Path
    reference_energies: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] | None = None

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
        "state_dict": {name: value.detach().cpu().clone() for name, value in potential.network.state_dict().items()},
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
        _check_plain(content["reference"], "reference")
    _check_plain(content["card"], "card")
    _check_plain(content["reference_energies"], "reference_energies")
    _check_weights(content["state_dict"], Path(path))
    _write(content, Path(path))


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
    content = _upgraded(_read(path), path)
    _check_entries(content, path)
    _check_weights(content["state_dict"], path)
    e0 = content["reference_energies"].get("values", {})
    try:
        potential = build_potential(
            content["architecture"],
            content["hyperparameters"],
            reference_energies={numbers_of[symbol]: energy for symbol, energy in e0.items()},
            scale=content["scale"],
        )
        potential.to(getattr(torch, content["dtype"]))
        potential.network.load_state_dict(content["state_dict"])
    except (InputError, RuntimeError, KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the model does not fit its own description: {error}") from None
    if not e0 or len(potential.elements) != len(e0) or not all(map(math.isfinite, (potential.scale, *e0.values()))):
        raise CheckpointError(f"{path}: scale {content['scale']} or reference energies {e0} are missing or not finite")
    if potential.cutoff != content["cutoff"] or sorted(content["elements"]) != sorted(e0):
        raise CheckpointError(f"{path}: cutoff or elements do not fit its network and reference energies")
    potential.eval().requires_grad_(False)
    return LoadedModel(potential, content["card"], path, content["reference_energies"], content.get("reference"))


def describe(path: str | Path) -> str:
    """Return the card of a model file as text."""
    return _card_text(load(path))


def _without_defaults(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    # Versions before direct forces refuse the word; the files of other models need not carry it.
    return {name: value for name, value in hyperparameters.items() if (name, value) != ("direct_forces", False)}


def _write(content: dict[str, Any], path: Path) -> None:
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary)
    except InputError as error:
        raise CheckpointError(str(error)) from None
    except RuntimeError as error:  # of torch, which has no other for a full disk
        raise CheckpointError(f"{path} cannot be written ({error}); check the space on the disk") from None


def _read(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is not a model file of this package: it is no zip archive ({path.stat().st_size} bytes). It may "
            "be cut off by a broken copy or download, or come from another program; nothing in it was executed"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds Python objects instead of plain tensors ({str(error).splitlines()[0][:120]}). Nothing was "
            "executed. Models of other packages, and whole modules written by torch.save(model), cannot be used here"
        ) from None
    except Exception as error:  # noqa: BLE001  torch raises many kinds for damaged archives
        raise CheckpointError(f"{path} is damaged ({error!s:.160}); copy or download it again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} is a torch file, but not of {FORMAT}: it holds {found}")
    return content


def _upgraded(content: dict[str, Any], path: Path) -> dict[str, Any]:
    version = content.get("version")
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"{path} has format version {version!r}; expected 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}; this asecalc-mlip {__version__} reads up to {FORMAT_VERSION}. "
            "Upgrade the package: pip install -U asecalc-mlip"
        )
    while version < FORMAT_VERSION:
        content = UPGRADES[version](content)
        version += 1
    return content


def _check_entries(content: dict[str, Any], path: Path) -> None:
    for name, kind in _ENTRIES.items():
        if name not in content:
            raise CheckpointError(f"{path} has no entry {name!r}; a model file has {', '.join(_ENTRIES)}")
        if not isinstance(content[name], kind):
            raise CheckpointError(f"{path}: entry {name!r} is a {type(content[name]).__name__}, expected {kind}")
    if not isinstance(content.get("reference"), (dict, type(None))):  # optional: files before 0.2 have none
        raise CheckpointError(f"{path}: entry 'reference' is a {type(content['reference']).__name__}, expected a dict")
    if content["architecture"] not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise CheckpointError(
            f"{path} has the architecture {content['architecture']!r}; this version has {known}. Upgrade the package?"
        )
    if content["dtype"] not in ("float32", "float64"):
        raise CheckpointError(f"{path} has the dtype {content['dtype']!r}; expected float32 or float64")
    if content["units"] != UNITS:
        raise CheckpointError(f"{path} is in the units {content['units']}; expected {UNITS}")


def _check_weights(state: Mapping[str, Any], path: Path) -> None:
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: weight {name!r} is a {type(value).__name__}, expected a tensor")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: weight {name!r} is not finite (NaN or inf); the training has diverged")


def _check_plain(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int)):
                raise CheckpointError(f"{name} has the key {key!r}, a {type(key).__name__}; expected text")
            _check_plain(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_plain(item, f"{name}[{index}]")
    elif type(value) not in (str, int, float, bool, type(None)):
        raise CheckpointError(f"{name} is a {type(value).__name__}; only plain numbers, text, lists and dicts are kept")


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
    ]
    if potential.direct_forces:
        lines.insert(1, ("forces", "direct (not the derivative of the energy)"))
    lines += [(str(key).replace("_", " "), _plain_text(value)) for key, value in model.card.items()]
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


def _plain_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{str(k).replace('_', ' ')} {_plain_text(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
