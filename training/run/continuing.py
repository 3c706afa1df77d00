"""Whether a folder holds a run with the same settings, which then goes on; one with others is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from asecalc_mlip.errors import InputError
from asecalc_mlip.teachers.naming import with_whole_path
from training.config import TrainConfig, load_config
from training.losses.methods import settled
from training.run.useless import without_useless

__all__ = ["changed_settings", "placed", "settings_before"]


def settings_before(config: TrainConfig, folder: Path) -> TrainConfig | None:
    """Return the settings of the run in a folder, None where none got somewhere.

    Raises
    ------
    InputError
        For a folder that holds a run with other settings.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run.output {str(folder)!r} is a file; name a folder")
    if not (folder / "last.ckpt").exists() and not any(folder.glob("*.pt")):
        return None
    saved = folder / "config.yaml"
    if not saved.exists():
        raise InputError(f"{folder} holds a model but no config.yaml to say of which run; choose another run.output")
    before, changed = changed_settings(config, saved)
    if changed:
        raise InputError(
            f"{folder} holds a run with other settings: {'; '.join(changed.values())}. Choose another run.output, or "
            f"continue it with its own settings: asecalc train {saved}"
        )
    return before


def changed_settings(config: TrainConfig, saved: Path) -> tuple[TrainConfig, dict[str, str]]:
    """Return the settings of a run from its config.yaml, and by name which of them are others now, in words."""
    # Through load_config, so that settings which are newer than the run have their defaults.
    before = load_config([saved])
    return before, _differences(_compared(before), _compared(config))


def _compared(config: TrainConfig) -> dict[str, Any]:
    config = without_useless(config)
    return placed(replace(config, weak=settled(config.weak, config.loss)).to_dict())


# What may change between two parts of one run without making it another run.
_FREE = {
    "run.max_epochs",
    "run.time",
    "run.threads",
    "run.device",
    "run.devices",
    "run.progress",
    "run.output",
    "run.name",
    "run.licence",
}

_FREE |= {"run.early_stop", "data.test", "data.trust", "data.source", "data.level_of_theory"}


# Files by name: from another folder the same file has another name.
_PATHS = (
    *("data.train", "data.test", "data.split_file", "model.isolated_atoms", "finetune.base", "finetune.delta"),
    *("finetune.old_data", "far.teacher", "far.data", "far.structures", "pretrain.teacher", "pretrain.sampler"),
    "weak.teacher",
)


def placed(config: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the whole paths of files that are there."""
    placed = {name: dict(section) for name, section in config.items()}
    for section, _, key in (path.partition(".") for path in _PATHS):
        name = placed[section][key]
        if name and key in ("teacher", "sampler"):
            placed[section][key] = with_whole_path(name)
        elif name and Path(name).is_file():
            placed[section][key] = str(Path(name).resolve())
    return placed


def _differences(before: Any, now: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(before, dict) and isinstance(now, dict):
        parts = [_differences(before.get(k), now.get(k), f"{prefix}.{k}".lstrip(".")) for k in {**before, **now}]
        return {name: line for part in parts for name, line in part.items()}
    return {} if before == now or prefix in _FREE else {prefix: f"{prefix} was {before}, is {now}"}
