"""Labels of a teacher that trials have in common: the first trial made them, the others take them from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from asecalc_mlip.teachers.labelling import failures_file
from training.config import TrainConfig
from training.curvature_labels import LABELLED_CURVATURE
from training.far.level import LABELLED_LEVEL
from training.far.make import LABELLED_FAR, STRUCTURES
from training.pretrain.labels import DIFFERENCE, LABELLED

__all__ = ["take_labels"]

# Sections of the settings on which labels, networks of the difference, and far-field labels depend.
OF_LABELS = {"pretrain", "data", "finetune"}
OF_NETWORKS = {*OF_LABELS, "loss", "run"}
OF_CURVATURE = {"weak.epsilon", "weak.directions", "weak.teacher", "finetune.base", "run.seed"}
OF_FAR = {*OF_LABELS, "far", "model"}


def take_labels(first: Path, folder: Path, config: TrainConfig, keys: Iterable[str]) -> None:
    """Copy what a teacher labelled in the first trial into the folder of another, unless a searched setting changes it.

    Parameters
    ----------
    first, folder : Path
        Folders of the trials; what the second one has stays as it is.
    config : TrainConfig
    keys : iterable of str
        The searched settings, section.key.
    """
    keys = list(keys)
    varied = {key.partition(".")[0] for key in keys}
    names: list[str] = []
    if not varied & (OF_NETWORKS if config.pretrain.correct else OF_LABELS):
        names += [DIFFERENCE, *_with_failures(LABELLED)]
    if not varied & (OF_FAR | (OF_NETWORKS if config.pretrain.correct else set())):
        names += [STRUCTURES, *(name for file in (LABELLED_FAR, LABELLED_LEVEL) for name in _with_failures(file))]
    if "data" not in varied and not set(keys) & OF_CURVATURE:
        names += _with_failures(LABELLED_CURVATURE)
    for name in names:
        source, target = first / name, folder / name
        if not source.exists() or target.exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        # Under another name first, so that a kill leaves no half of it.
        part = folder / f".{name}.part"
        if source.is_dir():
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(source, part)
        else:
            shutil.copy2(source, part)
        os.replace(part, target)


def _with_failures(name: str) -> tuple[str, str]:
    return name, failures_file(Path(name)).name
