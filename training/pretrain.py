"""Labels of an embedded-atom potential to pretrain on: made in the folder of the run, or read from a file.

The structures are those that a training with the same `data` settings would train and validate on, so a model that is
pretrained here and fine-tuned with the same settings has not seen the test structures of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
from ase import Atoms

from asecalc_mlip.calculators.eam import EAMCalculator
from asecalc_mlip.data.readers import iter_frames, read_frames
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.units import LABELS
from training.config import TrainConfig
from training.data import Split, make_split
from training.eam.labelling import Recipe, label

__all__ = ["LABELLED", "label_sources", "large_labels", "recipe_of"]

LABELLED = "labelled.xyz"
"""Name of the file with the labels, in the folder of the run."""


def label_sources(config: TrainConfig, sources: Sequence[Atoms], folder: Path) -> tuple[list[Atoms], Split]:
    """Label perturbed copies of the structures to train and to validate on; return them and their split.

    All copies of a structure are on the same side. What an earlier call wrote is not made again.
    """
    settings, split = config.pretrain, _source_split(config, len(sources))
    assert settings.eam is not None
    chosen = sorted([*split.train, *split.val])
    calculator = EAMCalculator.load(settings.eam, device="cpu")
    folder.mkdir(parents=True, exist_ok=True)
    options = {name: getattr(settings, name) for name in ("rounds", "strength", "n_pairs", "max_atoms", "seed")}
    structures = [sources[i] for i in chosen]
    path = label(structures, calculator, folder / LABELLED, progress=config.run.progress, **options)
    frames, validation = read_frames(path), set(split.val)
    held = [k for k in range(len(frames)) if chosen[k // settings.rounds] in validation]
    training = sorted(set(range(len(frames))) - set(held))
    LOGGER.info(f"{len(chosen)} structures labelled {settings.rounds} times by {calculator.model.path.name}: {path}")
    return frames, Split(training, held, [])


def recipe_of(path: str | Path, frames: Sequence[Atoms] | None = None) -> dict[str, Any] | None:
    """Return how an EAM labelled a file: `eam`, `eam_sha256` and the perturbation; None for other files."""
    path = Path(path)
    if frames is not None:
        found: Any = frames[0].info
    else:
        found = next(iter_frames(path)).info
    if "model_sha256" not in found and path.suffix == ".db":
        found = ase.db.connect(path).metadata.get("recipe", {})
    fields = Recipe.__dataclass_fields__
    if not {name for name, field in fields.items() if field.default is MISSING} <= set(found):
        return None
    recipe = {name: _plain(found[name]) for name in fields if name in found}
    return {"eam": str(recipe.pop("model")), "eam_sha256": str(recipe.pop("model_sha256")), **recipe}


def large_labels(path: str | Path, frames: Sequence[Atoms]) -> tuple[str, ...]:
    """Return the labels that may be larger than ab-initio ones, as of pulled pairs: all, if an EAM made them."""
    recipe = recipe_of(path, frames)
    if recipe is None or ("model_sha256" in frames[0].info and any("model_sha256" not in a.info for a in frames)):
        return ()
    # Isolated dimers overlap because they are meant to.
    return ("structure", *LABELS) if recipe.get("dimers") else LABELS


def _source_split(config: TrainConfig, n: int) -> Split:
    data = config.data
    if data.split_file is not None:
        return Split.load(data.split_file, n)
    return make_split(n, data.n_train, data.n_val, seed=data.split_seed)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
