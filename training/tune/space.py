"""The space of a search: `--space KEY=LOW:HIGH[:log]` or `KEY=A,B,C`, checked before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from asecalc_mlip.errors import InputError
from asecalc_mlip.models import ARCHITECTURES, build_potential
from asecalc_mlip.quantities import Quantity, shortened
from training.config import LARGEST, TrainConfig, parse_value, replace_values, setting_types
from training.losses.methods import METHODS, list_skin, make_weak

__all__ = ["Parameter", "make_space"]

HYPERPARAMETERS = "model.hyperparameters."
FORM = "KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C, for example weak.epsilon=0.005:0.1:log"
WHY_NOT = {
    "data": "trials on unlike data could not be compared",
    "loss": "it is what trials are compared by",
    "run": "trials have the same length and seed",
}


@dataclass(frozen=True)
class Parameter:
    """One setting and the values it may have: from `low` to `high`, or one of `choices`."""

    key: str
    kind: Literal["float", "int", "choice"]
    low: Any = None
    high: Any = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"{self.key}={','.join(yaml.safe_dump(c).splitlines()[0] for c in self.choices)}"
        return f"{self.key}={self.low!r}:{self.high!r}{':log' * self.log}"

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Both ends of a range, or all choices."""
        return self.choices if self.kind == "choice" else (self.low, self.high)

    def suggest(self, trial: Any) -> Any:
        """Return the value of an Optuna trial: the one it has, or a new one of its sampler."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, self.choices)
        suggest = trial.suggest_int if self.kind == "int" else trial.suggest_float
        return suggest(self.key, self.low, self.high, log=self.log)


def make_space(texts: Sequence[str], config: TrainConfig) -> tuple[list[Parameter], TrainConfig]:
    """Make the parameters of a search, and the settings around which it searches.

    Without texts these are the coefficients of `weak.method`. A plain training has none: a search of settings that
    only weak supervision reads makes it `piwsl`.

    Raises
    ------
    InputError
        For a text of another form, an unknown key, one that would make trials incomparable or has no effect, an empty
        range, and ends with which a training would be refused.
    """
    method = config.weak.method
    keys = [text.partition("=")[0].strip() for text in texts]
    if method == "plain" and (not keys or any(key.startswith("weak.") for key in keys)) and "weak.method" not in keys:
        method = "piwsl"
        config = replace_values(config, {"weak.method": method})
    parameters = [_parse(text, config) for text in texts or METHODS[method].space]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"--space names {key} twice")
        if "weak.method" not in keys:
            _check_effect(key, method)
    _check_extremes(parameters, config)
    return parameters, config


def _parse(text: str, config: TrainConfig) -> Parameter:
    key, separator, values = (part.strip() for part in text.partition("="))
    if not (separator and key and values):
        raise InputError(f"--space {shortened(text)} is not of the form {FORM}")
    options = _types(key, config)
    if ":" in values:
        return _range(text, key, values.split(":"), options)
    choices = tuple(_value(part, options) for part in values.split(","))
    if len(set(map(repr, choices))) < max(2, len(choices)):
        raise InputError(f"--space {shortened(text)} needs two different values or more, or a range: {FORM}")
    return Parameter(key, "choice", choices=choices)


def _range(text: str, key: str, parts: list[str], options: list[Any]) -> Parameter:
    kind: Literal["float", "int"] = "float" if float in options else "int"
    if not {float, int}.intersection(options):
        raise InputError(f"--space {shortened(text)}: {key} is no number; name its values, {key}=A,B,C")
    if len(parts) not in (2, 3) or parts[2:] not in ([], ["log"]):
        raise InputError(f"--space {shortened(text)} is not of the form {FORM}")
    low, high = (_number(text, part, kind) for part in parts[:2])
    log = len(parts) == 3
    if not low < high:
        raise InputError(f"--space {shortened(text)} is an empty range: {low:g} is not below {high:g}")
    if log and low <= 0:
        raise InputError(
            f"--space {shortened(text)}: a logarithmic range cannot begin at {low:g}; give a small number above 0"
        )
    return Parameter(key, kind, low, high, log)


def _number(text: str, part: str, kind: str) -> float | int:
    quantity = Quantity(-LARGEST, LARGEST, whole=kind == "int")
    return quantity.read(part, f"--space {shortened(text)}: an end")


def _value(part: str, options: list[Any]) -> Any:
    try:
        value = parse_value(part)
        return float(value) if float in options and not isinstance(value, bool | None) else value
    except (yaml.YAMLError, RecursionError, InputError, TypeError, ValueError):
        return part


def _types(key: str, config: TrainConfig) -> list[Any]:
    section = key.partition(".")[0]
    if section in WHY_NOT and key != "run.batch_size":
        raise InputError(
            f"--space: {key} cannot be searched: {WHY_NOT[section]}. Allowed: settings of model, weak and optimizer, "
            "and run.batch_size"
        )
    if key.startswith(HYPERPARAMETERS):
        return _hyperparameter_types(key.removeprefix(HYPERPARAMETERS), config.model.architecture)
    types = setting_types(key)
    if dict in types or any(map(dataclasses.is_dataclass, types)):
        raise InputError(f"--space: {key} is a group of settings; name one of them, for example weak.epsilon")
    return types


def _hyperparameter_types(name: str, architecture: str) -> list[Any]:
    hints = get_type_hints(ARCHITECTURES[architecture].__init__) if architecture in ARCHITECTURES else {}
    if name not in hints:
        raise InputError(f"--space: {architecture} has no hyper-parameter {name!r}; it has {', '.join(hints)}")
    return [type(get_args(hints[name])[0]) if get_origin(hints[name]) is Literal else hints[name]]


def _check_effect(key: str, method: str) -> None:
    name = key.removeprefix("weak.")
    reads = METHODS[method].reads
    if key != name and name not in reads:
        raise InputError(
            f"--space: {key} has no effect with weak.method={method}, which reads {', '.join(reads)}. Set another "
            "weak.method, or leave the key out"
        )


def _check_extremes(parameters: Sequence[Parameter], config: TrainConfig) -> None:
    """Refuse now what would be refused when a later trial comes to it."""
    last = {parameter.key: parameter.extremes[-1] for parameter in parameters}
    for parameter in parameters:
        for value in parameter.extremes:
            try:
                one = replace_values(config, {**last, parameter.key: value})
                list_skin(one.weak)
                hyperparameters = one.model.hyperparameters
                potential = build_potential(one.model.architecture, hyperparameters, reference_energies={1: 0.0})
                make_weak(one.weak, one.loss, potential)
            except InputError as error:
                raise InputError(f"--space {str(parameter)!r}: {error}") from None
