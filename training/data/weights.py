"""Factors on the loss of frames by their `config_type`: `data.weights`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ase import Atoms

from asecalc_mlip.errors import InputError

__all__ = ["check_weights", "frame_weight"]


def frame_weight(atoms: Atoms, weights: Mapping[str, float]) -> float:
    """Return the factor on the loss of a frame: that of its `config_type`, else that of "default", else 1."""
    return float(weights.get(str(atoms.info.get("config_type", "")), weights.get("default", 1.0)))


def check_weights(frames: Sequence[Atoms], weights: Mapping[str, float]) -> None:
    """Refuse factors that are no numbers of 0 or more, those of a `config_type` that no frame has, and only zeros.

    Raises
    ------
    InputError
    """
    for name, factor in weights.items():
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor < float("inf"):
            raise InputError(f"data.weights.{name} is {factor!r}; expected a number of 0 or more")
    types = {str(atoms.info["config_type"]) for atoms in frames if "config_type" in atoms.info}
    if unknown := sorted(set(weights) - types - {"default"}):
        known = f"they have {', '.join(sorted(types))}" if types else "they have none"
        raise InputError(f"data.weights: no frame has the config_type {', '.join(unknown)}; {known}, or name 'default'")
    if frames and not any(frame_weight(atoms, weights) for atoms in frames):
        raise InputError("data.weights are 0 for every frame, so that there is nothing to train on")
