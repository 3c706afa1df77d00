"""What a finished run leaves behind: the .pt file with its card, test errors, figures, summary.json."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load, save
from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.errors import Errors, evaluate_frames
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.files import write_json
from asecalc_mlip.plots.training import learning_curve, parity
from asecalc_mlip.units import with_unit
from training.callbacks import AveragedWeights
from training.config import WeakConfig
from training.finetune import Forgetting, forgetting, start_card
from training.pretrain import LABELLED

if TYPE_CHECKING:
    from training.prepare import Run

__all__ = ["TrainingResult", "finish"]


@dataclass
class TrainingResult:
    """Where the model is, how good it is, and the figures."""

    model: Path
    errors: Errors | None
    best_epoch: int
    folder: Path
    old_level: Forgetting | None = None

    def __repr__(self) -> str:
        tested = repr(self.errors) if self.errors is not None else "no test data: set data.test for errors"
        forgotten = "" if self.old_level is None else f"\n{self.old_level!r}"
        return (
            f"{tested}{forgotten}\nmodel of epoch {self.best_epoch + 1}: {self.model}"
            f"\nfigures, log and settings in {self.folder}"
            f'\nuse it:  atoms.calc = PIWSLCalculator.load("{self.model}")'
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        errors = None if self.errors is None else self.errors.to_dict()
        found = {"model": self.model.name, "best_epoch": self.best_epoch + 1, "errors": errors}
        return found if self.old_level is None else {**found, "old_level": self.old_level.to_dict()}


def finish(run: Run, average: AveragedWeights) -> TrainingResult:
    """Write the best averaged weights as a model file, test it, and put the errors on its card."""
    config, folder = run.config, run.folder
    weights = average.best if average.best is not None else average.average
    average.copy_to_module(weights)
    path = folder / f"{config.run.name}.pt"
    card = _card(run, average)
    save(path, run.potential, card=card, reference_energies=run.e0.to_dict())
    errors, old_level = _test(run, path), forgetting(run, path)
    if old_level is not None:
        card["old_level"] = old_level.card()
    if errors is not None:
        card["test_errors"] = {
            "data": errors.data,
            "structures": errors.n_structures,
            "MAE": {with_unit(name): value for name, value in errors.mae.items()},
        }
        parity(errors.labels, errors.predictions, path=folder / "parity.png", title=f"{path.name} on {errors.data}")
    if errors is not None or old_level is not None:
        # Read back rather than kept: the calculator has cast and frozen its own copy, not this one.
        save(path, load(path).potential, card=card, reference_energies=run.e0.to_dict())
    learning_curve(folder / "log.csv", path=folder / "learning_curve.png")
    result = TrainingResult(path, errors, average.best_epoch, folder, old_level)
    write_json(folder / "summary.json", {**result.to_dict(), "card": card})
    return result


def _test(run: Run, path: Path) -> Errors | None:
    data = run.config.data
    if data.test is not None:
        frames = read_frames(data.test, **data.reading())
        name = Path(data.test).name
    elif run.split.test:
        frames, name = [run.frames[i] for i in run.split.test], f"{Path(data.train).name}, held back"
    else:
        return None
    return evaluate_frames(PIWSLCalculator.load(path, device=run.test_device), frames, name=name)


def _card(run: Run, average: AveragedWeights) -> dict[str, Any]:
    config, optimizer = run.config, run.config.optimizer
    by_eam = run.pretraining is not None
    level = f"embedded-atom potential {run.pretraining['eam']}" if run.pretraining else config.data.level_of_theory
    source = Path(config.data.train).name
    return {
        "name": config.run.name,
        "training_data": {
            "file": LABELLED if config.pretrain.eam is not None else source,
            **({"made_from": source} if config.pretrain.eam is not None else {}),
            "train": len(run.split.train),
            "validation": len(run.split.val),
        },
        # Perturbed copies have neither the temperature nor the forces of the dynamics they were taken from.
        **({} if by_eam else _conditions([run.frames[i] for i in run.split.train])),
        "level_of_theory": level,
        "source": config.data.source,
        "losses": {k: v for k, v in dataclasses.asdict(config.loss).items() if v not in (0.0, False)},
        **_weak(config.weak),
        **start_card(run),
        "training": {
            "epochs": config.run.max_epochs,
            "best_epoch": average.best_epoch + 1,
            "steps": average.steps,
            "batch_size": config.run.batch_size,
            "lr": optimizer.lr,
            "schedule": optimizer.schedule,
            "ema_decay": optimizer.ema_decay,
            "seed": config.run.seed,
        },
        "date": datetime.date.today().isoformat(),
        "licence": config.run.licence,
    }


def _conditions(frames: Sequence[Atoms]) -> dict[str, Any]:
    """What dynamics are warned by: the temperatures that frames state, and how large their forces are."""
    stated = [atoms.info.get("temperature_K", atoms.info.get("temperature")) for atoms in frames]
    known = [float(t) for t in stated if isinstance(t, (int, float, np.number))]
    forces = [np.linalg.norm(atoms.arrays["forces"], axis=1) for atoms in frames if has_label(atoms, "forces")]
    sizes = np.concatenate(forces) if forces else np.zeros(0)
    return {
        **({"temperatures_K": [min(known), max(known)]} if known else {}),
        **({"training_forces": {"mean": float(sizes.mean()), "std": float(sizes.std())}} if len(sizes) else {}),
    }


def _weak(weak: WeakConfig) -> dict[str, Any]:
    """What the card says of weak supervision: the settings that the method reads."""
    displaced = ("epsilon", "perturbation", "remove_translation", "normalisation", "distance")
    read: dict[str, tuple[str, ...]] = {
        "piwsl": ("pitc", "pisc", "order", *displaced),
        "noisy_nodes": ("coefficient", "epsilon"),
        "sam": ("rho",),
        "asam": ("rho",),
    }
    names = read.get(weak.method, ("coefficient", *displaced))
    return {} if weak.method == "plain" else {"weak": {n: getattr(weak, n) for n in ("method", *names)}}
