"""Configuration of a training run: dataclasses with one docstring per field, defaults in defaults.yaml.

Files and `key=value` overrides are merged left to right; an unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from asecalc_mlip.errors import InputError

__all__ = [
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "TrainConfig",
    "WeakConfig",
    "load_config",
    "replace_values",
    "setting_types",
]

DEFAULTS = Path(__file__).with_name("defaults.yaml")
Distance = Literal["mae", "l2mae", "mse", "huber"]
Method = Literal[
    "plain",
    "piwsl",
    "two_point",
    "two_point_label",
    "taylor_label",
    "endpoint",
    "curvature",
    "noisy_nodes",
    "sam",
    "asam",
]


@dataclass(frozen=True)
class DataConfig:
    """Where the labelled structures come from and how they are split."""

    train: str = ""
    """Labelled structures: extended XYZ, ASE database or rMD17/MD17 .npz. Relative to where the run starts."""
    test: str | None = None
    """Held-back file for the errors in the card; None takes what the split leaves over, if anything."""
    n_train: int | None = None
    """Structures to train on; None takes all that validation leaves."""
    n_val: int = 50
    """Structures to validate on, for the schedule, early stopping and the choice of the best weights."""
    split_seed: int = 0
    """Seed of the random split."""
    split_file: str | None = None
    """A split.json to use again; None draws one and saves it in the output folder."""
    energy_key: str | None = None
    """Name of the energy label; None looks for the usual ones."""
    forces_key: str | None = None
    """Name of the forces label; None looks for the usual ones."""
    stress_key: str | None = None
    """Name of the stress label; None looks for the usual ones."""
    energy_unit: str | None = None
    """Unit of the energies in the file; None means what belongs to the format (kcal/mol for MD17 archives, else eV)."""
    length_unit: str | None = None
    """Unit of the lengths in the file; None means what belongs to the format, else Å."""
    level_of_theory: str = "not stated"
    """Goes into the card."""
    source: str = "not stated"
    """Origin, citation and licence of the data; goes into the card."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture and reference energies."""

    architecture: str = "painn"
    """painn, schnet, cgcnn, torchmd_et or eam."""
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the architecture (cutoff in Å, n_features, n_interactions, n_rbf, radial_basis). Those in
    defaults.yaml are of painn, and hold for every architecture unless given."""
    reference_energies: Literal["fit", "isolated", "given", "zero"] = "fit"
    """E0 per element: least squares on the training set, isolated atoms, given numbers, or none."""
    isolated_atoms: str | None = None
    """File with one structure per isolated atom, for `isolated`."""
    given: dict[str, float] = field(default_factory=dict)
    """Element → eV, for `given`."""


@dataclass(frozen=True)
class LossConfig:
    """Weights and distances of the supervised losses."""

    energy_weight: float = 1.0
    """Weight of the energy loss (eV)."""
    forces_weight: float = 100.0
    """Weight of the force loss (eV/Å)."""
    stress_weight: float = 0.0
    """Weight of the stress loss (eV/Å³)."""
    energy: Distance = "mae"
    """Distance between energies."""
    forces: Distance = "l2mae"
    """Distance between forces; l2mae is the mean over atoms of |F − F_ref|₂."""
    stress: Distance = "mae"
    """Distance between stresses."""
    energy_per_atom: bool = False
    """Divide energy errors by the number of atoms; for data with structures of unlike size."""


@dataclass(frozen=True)
class WeakConfig:
    """Weak supervision by the physics of the model's own field, its variants and its rivals; see training/losses.py."""

    method: Method = "plain"
    """piwsl is PITC + PISC; two_point, two_point_label, taylor_label and endpoint are variants; curvature, noisy_nodes,
    sam and asam are rivals; plain is none of them."""
    pitc: float = 1.0
    """Coefficient of PITC (per eV²); the published 1.2 for kcal/mol beside mean absolute errors is 27.7 here."""
    pisc: float = 0.01
    """Coefficient of PISC (per eV²); the published 0.01 is 0.23 here."""
    coefficient: float = 1.0
    """Coefficient of the one loss of the other methods."""
    order: Literal["first", "trapezoid", "antithetic"] = "first"
    """first is the published form, which also penalises curvature; the others are unbiased to third order."""
    epsilon: float = 0.05
    """Å; largest displacement along each axis."""
    normalisation: Literal["total", "per_atom"] = "total"
    """Residual of the whole structure, as published, or per atom."""
    distance: Literal["mse", "mae", "huber"] = "mse"
    """Of the residual to zero."""
    perturbation: Literal["uniform", "adversarial"] = "uniform"
    """Of the first displacement."""
    remove_translation: bool = False
    """Take the mean displacement off each structure."""
    skin: float | None = None
    """Å by which neighbour lists reach beyond the cutoff; None takes what epsilon needs."""
    rho: float = 0.05
    """Radius of sam; for asam, whose steps are relative to the weights, 0.5 to 2 is usual."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, schedule and what keeps the run in hand."""

    lr: float = 1e-3
    """Largest learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    warmup_steps: int = 500
    """Steps over which the learning rate rises from zero."""
    schedule: Literal["plateau", "cosine", "constant"] = "plateau"
    """plateau lowers the rate when validation stalls; cosine falls to min_lr over max_epochs."""
    plateau_factor: float = 0.7
    """Factor of the plateau schedule."""
    plateau_patience: int = 25
    """Epochs without improvement before the rate falls."""
    min_lr: float = 1e-6
    """Smallest learning rate."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is validated and shipped; 0 is off."""
    gradient_clip: float = 10.0
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class RunConfig:
    """One run on one machine."""

    output: str = "runs/model"
    """Folder for split, logs, checkpoints, figures and the .pt file."""
    name: str = "model"
    """Name of the .pt file and in the card."""
    seed: int = 0
    """Seed of weights, batches and everything else random."""
    batch_size: int = 10
    """Structures per gradient step."""
    max_epochs: int = 1000
    """Passes over the training set, or parts of `steps_per_epoch` steps."""
    steps_per_epoch: int | None = None
    """Gradient steps between validations; None means one pass over the training set. The order of frames is that of
    passes one after another either way."""
    early_stop: int | None = None
    """Stop after so many epochs without improvement; None never does."""
    threads: int | None = None
    """CPU threads; None leaves torch's choice."""
    device: str = "auto"
    """auto, cpu or cuda."""
    licence: str = "not stated"
    """Licence of the trained model, for the card."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True)
class TrainConfig:
    """All of it; `asecalc train CONFIG.yaml section.key=value`."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    weak: WeakConfig = field(default_factory=WeakConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _check_values(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionary of plain types."""
        return dataclasses.asdict(self)


def load_config(paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> TrainConfig:
    """Merge defaults.yaml, the files and the `section.key=value` overrides, left to right.

    Raises
    ------
    InputError
        For a missing file, broken YAML, an unknown key or a value of the wrong type.
    """
    merged: dict[str, Any] = _read(DEFAULTS)
    for path in paths:
        _merge(merged, _read(Path(path)))
    for override in overrides:
        _merge(merged, _parse_override(override))
    return _build(TrainConfig, merged, "")


def replace_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """A copy with other values at some `section.key`, checked like those of a file.

    Raises
    ------
    InputError
        For an unknown key or a value that it cannot have.
    """
    merged = config.to_dict()
    for key, value in values.items():
        _merge(merged, _nested(key, value))
    return _build(TrainConfig, merged, "")


def setting_types(key: str) -> list[type]:
    """Types that the value at a `section.key` may have, apart from None; that of a choice is the type of its options.

    Raises
    ------
    InputError
        For an unknown key.
    """
    hint: Any = TrainConfig
    prefix = ""
    for part in key.split("."):
        hints = get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
        if part not in hints:
            raise InputError(_unknown(part, hints, prefix))
        hint, prefix = hints[part], f"{prefix}{part}."
    return [type(get_args(o)[0]) if get_origin(o) is Literal else get_origin(o) or o for o in _alternatives(hint)]


# What a value must be; sections other than these hold what any number or text may be.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "data.n_train": (lambda v: v >= 1, "at least 1"),
    "data.n_val": (lambda v: v >= 1, "at least 1"),
    "data.split_seed": (lambda v: v >= 0, "0 or more"),
    "optimizer.lr": (lambda v: v > 0, "above 0"),
    "optimizer.weight_decay": (lambda v: v >= 0, "0 or more"),
    "optimizer.warmup_steps": (lambda v: v >= 0, "0 or more"),
    "optimizer.plateau_factor": (lambda v: 0 < v < 1, "between 0 and 1"),
    "optimizer.plateau_patience": (lambda v: v >= 0, "0 or more"),
    "optimizer.min_lr": (lambda v: v >= 0, "0 or more"),
    "optimizer.ema_decay": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
    "optimizer.gradient_clip": (lambda v: v > 0, "above 0"),
    "run.name": (lambda v: v.strip() != "" and not set(v) & set("/\\\0"), "a file name without a folder"),
    "run.seed": (lambda v: 0 <= v < 2**32, "0 to 2³² − 1"),
    "run.batch_size": (lambda v: v >= 1, "at least 1"),
    "run.max_epochs": (lambda v: v >= 1, "at least 1"),
    "run.steps_per_epoch": (lambda v: v >= 1, "at least 1, or null for one pass over the training set"),
    "weak.pitc": (lambda v: v >= 0, "0 (off) or more"),
    "weak.pisc": (lambda v: v >= 0, "0 (off) or more"),
    "weak.coefficient": (lambda v: v >= 0, "0 (off) or more"),
    "weak.epsilon": (lambda v: v > 0, "a length above 0 Å, usually 0.005 to 0.1"),
    "weak.skin": (lambda v: v >= 0, "0 Å or more, or null"),
    "weak.rho": (lambda v: v > 0, "above 0"),
    "run.early_stop": (lambda v: v >= 1, "at least 1, or null"),
    "run.threads": (lambda v: v >= 1, "at least 1, or null"),
}


def _check_values(config: Mapping[str, Any]) -> None:
    for section, values in config.items():
        for key, value in values.items():
            name = f"{section}.{key}"
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name} is {value}; expected a finite number")
            holds, expected = _RULES.get(name, (None, ""))
            if holds is not None and value is not None and not holds(value):
                raise InputError(f"{name} is {value!r}; expected {expected}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError as error:
        raise InputError(f"configuration file {str(path)!r} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise InputError(f"configuration file {str(path)!r} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"configuration file {str(path)!r} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"configuration file {str(path)!r} must hold sections like 'data:' and 'model:'")
    return content


def _merge(base: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InputError(f"override {text!r} is not of the form section.key=value, for example run.seed=1")
    try:
        content = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"override {text!r}: the value is not valid YAML; put it in quotes, {key}='\"…\"'") from None
    return _nested(key, content)


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(f"section {prefix.rstrip('.')!r} must hold key: value pairs, not {values!r}")
    hints = get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise InputError(_unknown(key, hints, prefix))
    return cls(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _unknown(key: Any, allowed: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(str(key), list(allowed), n=1)
    hint = f"; did you mean {prefix}{near[0]}?" if near else "."
    return f"unknown setting {prefix}{key}{hint} Allowed: {', '.join(allowed)}"


def _convert(hint: Any, value: Any, name: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{name}.")
    if value is None and type(None) in get_args(hint):
        return None
    for option in _alternatives(hint):
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
            raise InputError(f"{name} is {value!r}; allowed: {', '.join(map(str, get_args(option)))}")
        if option is float and _is_number(value):
            return float(value)
        plain = get_origin(option) or option
        if isinstance(value, plain) and not (isinstance(value, bool) and plain is not bool):
            return value
    raise InputError(f"{name} is {value!r}, of type {type(value).__name__}; expected {getattr(hint, '__name__', hint)}")


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [option for option in get_args(hint) if option is not type(None)]
    return [hint]


def _is_number(value: Any) -> bool:
    # YAML reads 1e-3 as text: its floats need a dot.
    try:
        return not isinstance(value, bool) and float(value) == float(value)
    except (TypeError, ValueError):
        return False
