"""Settings of older versions: what a configuration meant that was written before a default changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["DEFAULTS_0_1", "completed"]

# The defaults of version 0.1 that are others now. Settings that are newer are off.
DEFAULTS_0_1: dict[str, dict[str, Any]] = {
    "model": {
        "architecture": "painn",
        "hyperparameters": {
            "cutoff": 5.0,
            "n_features": 128,
            "n_interactions": 3,
            "n_rbf": 20,
            "radial_basis": "gaussian",
        },
        "prior": "none",
        "final_shift": False,
    },
    "loss": {"forces_weight": 100.0},
    "optimizer": {"lr": 1e-3, "schedule": "plateau"},
    "run": {"batch_size": 10, "max_epochs": 1000},
}


def completed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole configuration of an older version with what its settings left unsaid; others as they are.

    A run saves every setting, so a configuration that has all sections, but not `model.prior`, is of version 0.1.
    """
    content = _without_cohesion(_renamed(content))
    if not _is_whole(content) or "prior" in content["model"]:
        return dict(content)
    found: dict[str, Any] = copy.deepcopy({key: dict(values or {}) for key, values in content.items()})
    for section, values in DEFAULTS_0_1.items():
        for name, value in values.items():
            found[section].setdefault(name, copy.deepcopy(value))
    return found


def _renamed(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings of a run before 0.3 with `pretrain.eam` under its name of today, `pretrain.teacher`."""
    pretrain = content.get("pretrain")
    if not (_is_whole(content) and isinstance(pretrain, Mapping) and "eam" in pretrain):
        return content
    return {**content, "pretrain": {("teacher" if k == "eam" else k): v for k, v in pretrain.items()}}


def _without_cohesion(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings of a run before 0.3, whose networks learned all of the binding energy, with that said."""
    if not _is_whole(content) or "cohesion" in content["model"]:
        return content
    return {**content, "model": {**content["model"], "cohesion": False}}


def _is_whole(content: Mapping[str, Any]) -> bool:
    sections = {"data": "split_seed", "model": "given", "loss": "energy", "optimizer": "plateau_patience"}
    sections["run"] = "progress"
    return all(isinstance(content.get(name), Mapping) and key in content[name] for name, key in sections.items())
