"""The commands `asecalc train`, `pretrain` and `finetune`: from arguments to a trained model and its errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from asecalc_mlip.errors import InputError
from asecalc_mlip.logs import LOGGER
from training.config import TrainConfig, load_config
from training.pretrain.labels import recipe_of
from training.train import Stopped
from training.train import train as train_model

__all__ = ["finetune", "pretrain", "train"]


def train(config_paths: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Train a model, and tell its errors; exit with 128 + signal when a signal ends the run."""
    _run(load_config(config_paths, overrides))


def pretrain(config_paths: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Train a model as `train` does, and refuse data without the labels of a teacher.

    Raises
    ------
    InputError
        For data that no teacher has labelled, where none is given to do so.
    """
    config = load_config(config_paths, overrides)
    if config.pretrain.teacher is None and config.data.train and recipe_of(config.data.train) is None:
        raise InputError(
            f"data.train {config.data.train} was not labelled by a teacher. Give one, pretrain.teacher=xtb or a model "
            "file, which then labels perturbed copies of its structures; or label them first: asecalc eam label"
        )
    _run(config)


def finetune(base: str, config_paths: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Train a model as `train` does, from `base`; InputError where the overrides name another one."""
    if named := [text for text in overrides if text.partition("=")[0] == "finetune.base"]:
        raise InputError(f"{named[-1]}: the base is {base}, the MODEL of the command; leave it out, or name it there")
    # As YAML reads it: a name with spaces or colons stays one name.
    _run(load_config(config_paths, [*overrides, f"finetune.base={json.dumps(str(base), ensure_ascii=False)}"]))


def _run(config: TrainConfig) -> None:
    try:
        LOGGER.info(repr(train_model(config)))
    except Stopped as stop:
        LOGGER.warning(str(stop))
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        LOGGER.warning("interrupted; run the same command again to continue from the last checkpoint, if there is one")
        sys.exit(130)
