"""Configuration of a training run: dataclasses with one docstring per field; defaults.yaml shows all of them.

Files and `key=value` overrides are merged left to right; an unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from asecalc_mlip.errors import InputError
from asecalc_mlip.quantities import REAL, WHOLE, Quantity, shortened
from training.older import completed
from training.settings import (
    OF_BASE,
    RULES,
    SECTIONS,
    DataConfig,
    FarConfig,
    FinetuneConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
    RunConfig,
    WeakConfig,
)

__all__ = [
    "OF_BASE",
    "DataConfig",
    "FarConfig",
    "FinetuneConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "RunConfig",
    "TrainConfig",
    "WeakConfig",
    "label_weights",
    "load_config",
    "parse_value",
    "replace_values",
    "setting_types",
]

# Of any number in a file, where no other bound is known.
LARGEST = 1e12
# Values of a file with those that aliases repeat; some lines of these would make more than memory holds.
MOST_VALUES = 1_000_000

# Kinds of values in the words of an error.
KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
KINDS |= {list: "a list such as [a, b]", dict: "pairs such as {a: 1, b: 2}"}


@dataclass(frozen=True)
class TrainConfig:
    """All of it; `asecalc train CONFIG.yaml section.key=value`."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    weak: WeakConfig = field(default_factory=WeakConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    far: FarConfig = field(default_factory=FarConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _check_values(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return a nested dictionary of plain types."""
        return dataclasses.asdict(self)


def load_config(paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> TrainConfig:
    """Merge the defaults, the files and the `section.key=value` overrides, left to right.

    Raises
    ------
    InputError
        For a missing file, broken YAML, an unknown key or a value of the wrong type.
    """
    given: dict[str, Any] = {}
    for update in [completed(_read(Path(path))) for path in paths] + [_parse_override(text) for text in overrides]:
        _merge(given, update)
    merged: dict[str, Any] = {name: dataclasses.asdict(section()) for name, section in SECTIONS.items()}
    finetune = given.get("finetune")
    if isinstance(finetune, dict) and finetune.get("base") is not None:
        # The base has a model already: what was not asked for is not compared with it.
        merged["model"] |= {"architecture": OF_BASE, "hyperparameters": {}}
    _merge(merged, given)
    return _build(TrainConfig, merged, "")


def label_weights(loss: LossConfig) -> dict[str, float]:
    """Return the weight of each label that a loss has, above zero.

    Raises
    ------
    InputError
        For a negative weight, and where all are zero.
    """
    weights = {"energy": loss.energy_weight, "forces": loss.forces_weight, "stress": loss.stress_weight}
    negative = [name for name, weight in weights.items() if weight < 0]
    if negative or not any(weights.values()):
        raise InputError(f"loss weights {weights}: none may be negative and at least one must be above zero")
    return {name: weight for name, weight in weights.items() if weight > 0}


def replace_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return a copy with other values at some `section.key`, checked like those of a file.

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
    """Return the types that the value at a `section.key` may have, apart from None; of a choice, that of its options.

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


def _check_values(config: Mapping[str, Any]) -> None:
    for section, values in config.items():
        for key, value in values.items():
            name = f"{section}.{key}"
            _check_finite(value, name)
            rule = RULES.get(name)
            if value is None or rule is None:
                continue
            if isinstance(rule, Quantity):
                rule.check(value, name)
            elif not rule[0](value):
                raise InputError(f"{name} is {shortened(value)}; expected {rule[1]}")
    # Here, because the methods bring torch, which who only asks for the settings need not wait for.
    from training.losses.methods import check_method

    check_method(config["weak"]["method"])


def _check_finite(value: Any, name: str) -> None:
    """Raise InputError for numbers that are none, also deep in groups of them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_finite(item, name)
    elif isinstance(value, (int, float)) and not abs(value) <= LARGEST:
        raise InputError(f"{name} is {shortened(value)}; expected a number of at most {LARGEST:g}")


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of `asecalc_mlip.quantities`; otherwise 1:30 is 90, 010 is 8, and 1e-3 is text."""


def _make_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | int:
    kind = node.tag.rpartition(":")[2]
    return Quantity(-math.inf, math.inf, whole=kind == "int").read(loader.construct_scalar(node), "a value")


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in {"int", "float", "timestamp"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in (("int", WHOLE), ("float", REAL)):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern.pattern})\Z"), list("-+.0123456789")
    )
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _make_number)


def parse_value(text: str) -> Any:
    """Read YAML with the numbers of `asecalc_mlip.quantities`; yaml.YAMLError or InputError for other text."""
    value = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    _count(value, {})
    return value


def _count(value: Any, known: dict[int, int | None]) -> int:
    """Count values, repeated by aliases as often as they are; `known` has those of groups, None within them."""
    if not isinstance(value, (dict, list, tuple)):
        return 1
    if id(value) in known:
        size = known[id(value)]
        if size is None:
            raise InputError("a group contains itself by an alias (*NAME within &NAME); write its values out")
        return size
    known[id(value)] = None
    size = 1 + sum(_count(item, known) for item in (value.values() if isinstance(value, dict) else value))
    if size > MOST_VALUES:
        raise InputError(f"aliases (*NAME) repeat values until there are {size:.3g}; at most {MOST_VALUES:g} are read")
    known[id(value)] = size
    return size


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_value(path.read_text(encoding="utf-8-sig")) or {}
    except UnicodeDecodeError as error:
        raise InputError(f"configuration file {str(path)!r} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise InputError(f"configuration file {str(path)!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"configuration file {str(path)!r} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(
            f"configuration file {str(path)!r} must hold sections like 'data:' and 'model:'. If it holds structures to "
            f"train on: data.train={path}"
        )
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
        raise InputError(f"override {shortened(text)} is not of the form section.key=value, for example run.seed=1")
    if value.strip() in ("", "~"):  # what a shell leaves of a variable that is not set, or of a home folder
        raise InputError(f"override {shortened(text)} has no value; to leave {shortened(key)[1:-1]} unset, write null")
    try:
        content = parse_value(value)
    except (yaml.YAMLError, RecursionError):
        raise InputError(
            f"override {shortened(text)}: the value is not valid YAML; put it in quotes, {key}='\"…\"'"
        ) from None
    return _nested(key, content)


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(f"section {prefix.rstrip('.')!r} must hold key: value pairs, not {shortened(values)}")
    hints = get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise InputError(_unknown(key, hints, prefix))
    return cls(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _unknown(key: Any, allowed: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(str(key), list(allowed), n=1)
    hint = f"; did you mean {prefix}{near[0]}?" if near else "."
    return f"unknown setting {prefix}{shortened(key)[1:-1]}{hint} Allowed: {', '.join(allowed)}"


def _convert(hint: Any, value: Any, name: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{name}.")
    if value is None and type(None) in get_args(hint):
        return None
    for option in _alternatives(hint):
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
            raise InputError(f"{name} is {shortened(value)}; allowed: {', '.join(map(str, get_args(option)))}")
        if option is float and _is_number(value):
            return float(value)
        if get_origin(option) is dict and get_args(option)[1] is not Any and isinstance(value, Mapping):
            return {str(key): _convert(get_args(option)[1], item, f"{name}.{key}") for key, item in value.items()}
        plain = get_origin(option) or option
        if isinstance(value, plain) and not (isinstance(value, bool) and plain is not bool):
            return value
    raise InputError(f"{name} is {shortened(value)}; expected {_expected(hint, name)}")


def _expected(hint: Any, name: str) -> str:
    rule = RULES.get(name)
    if isinstance(rule, Quantity):
        what = str(rule)
    else:
        what = " or ".join(KINDS.get(get_origin(option) or option, str(option)) for option in _alternatives(hint))
        what += f", {rule[1]}" if rule is not None else ""
    return f"{what}, or null" if type(None) in get_args(hint) else what


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [option for option in get_args(hint) if option is not type(None)]
    return [hint]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
