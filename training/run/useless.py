"""Settings that others of the same run make useless: refused in a new run, and without meaning in one that goes on.

Versions before took them without a word, so runs, searches and learnings that were begun with them go on, with them or
without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from asecalc_mlip.errors import InputError
from training.config import TrainConfig, WeakConfig
from training.losses.methods import method_of

__all__ = ["refuse_useless", "useless_names", "without_useless"]


def refuse_useless(config: TrainConfig) -> None:
    """Raise InputError for settings that have no effect, with the reason."""
    for _, _, text in _found(config):
        raise InputError(text)


def without_useless(config: TrainConfig) -> TrainConfig:
    """Return the settings with the defaults of those that have no effect."""
    for section, names, _ in list(_found(config)):
        values = getattr(config, section)
        default = type(values)()
        changed = dataclasses.replace(values, **{name: getattr(default, name) for name in names})
        config = dataclasses.replace(config, **{section: changed})
    return config


def useless_names(config: TrainConfig) -> list[str]:
    """Return the settings that have no effect, as section.name."""
    return [f"{section}.{name}" for section, names, _ in _found(config) for name in names]


def _found(config: TrainConfig) -> Iterator[tuple[str, Sequence[str], str]]:
    """Yield section, names and reason."""
    data, model, pretrain, method = config.data, config.model, config.pretrain, config.model.reference_energies
    given = [name for name in ("n_train", "n_val") if getattr(data, name) is not None]
    if given and data.split_file is not None:  # it names each frame itself
        told, verb = " and ".join(f"data.{n}={getattr(data, n)}" for n in given), "has" if len(given) == 1 else "have"
        why = f"no effect beside data.split_file, which names the frames of each part ({data.split_file})"
        yield "data", given, f"{told} {verb} {why}: leave one of them out, or write null for it"
    why = f"has no effect with model.reference_energies={method}"
    if model.given and method != "given":
        yield "model", ["given"], f"model.given {why}: set that to given"
    if model.isolated_atoms and method in ("given", "zero"):
        yield "model", ["isolated_atoms"], f"model.isolated_atoms {why}: set that to isolated, or leave the file out"
    read = method_of(config.weak).reads
    for name in ("teacher", "directions"):
        if name not in read and (value := getattr(config.weak, name)) != getattr(WeakConfig(), name):
            why = f"weak.{name}={value} has no effect with weak.method={config.weak.method}"
            yield "weak", [name], f"{why}: set that to curvature_label, or leave weak.{name} out"
    if pretrain.temperature is not None and pretrain.teacher is None:
        why = "is of the dynamics of a teacher, and there is none; name pretrain.teacher"
        yield "pretrain", ["temperature"], f"pretrain.temperature {why}"
