"""The results of a finished run: the .pt file with its card, test errors, figures, summary.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.data.census import census
from asecalc_mlip.data.errors import Errors, evaluate_frames
from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.files import write_json
from asecalc_mlip.plots.training import learning_curve, parity
from asecalc_mlip.units import LABELS, with_unit
from training.finetune.forgetting import Forgetting, forgetting
from training.results.card import make_card, rewrite, save_model
from training.results.final_shift import shift_reference_energies
from training.run.callbacks import AveragedWeights

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
        untested = "no test frames: for test errors set data.test, or data.n_train to hold frames back"
        tested = repr(self.errors) if self.errors is not None else untested
        forgotten = "" if self.old_level is None else f"\n{self.old_level!r}"
        return (
            f"{tested}{forgotten}\nmodel of epoch {self.best_epoch + 1}: {self.model}"
            f"\nfigures, log and settings in {self.folder}"
            f'\nuse it:  atoms.calc = PIWSLCalculator.load("{self.model}")'
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        errors = None if self.errors is None else self.errors.to_dict()
        found = {"model": self.model.name, "best_epoch": self.best_epoch + 1, "errors": errors}
        return found if self.old_level is None else {**found, "old_level": self.old_level.to_dict()}


def finish(run: Run, average: AveragedWeights) -> TrainingResult:
    """Write the best averaged weights as a model file, test it, and put the errors on its card."""
    config, folder, path = run.config, run.folder, run.model
    average.copy_to_module(average.best if average.best is not None else average.average)
    card = make_card(run, average)
    save_model(run, average, card)
    if config.model.final_shift:
        shift_reference_energies(run, path, card)
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
    rewrite(path, card)
    learning_curve(folder / "log.csv", path=folder / "learning_curve.png")
    result = TrainingResult(path, errors, average.best_epoch, folder, old_level)
    write_json(folder / "summary.json", {**result.to_dict(), "card": card})
    return result


def _test(run: Run, path: Path) -> Errors | None:
    data = run.config.data
    if data.test is not None:
        frames = [a for a in read_frames(data.test, **data.reading()) if not is_isolated_atom(a)]
        name = Path(data.test).name
    elif run.split.test:
        frames, name = _judged([run.frames[i] for i in run.split.test]), f"{Path(data.train).name}, held back"
    else:
        return None
    return evaluate_frames(PIWSLCalculator.load(path, device=run.test_device), frames, name=name)


def _judged(frames: Sequence[Atoms]) -> list[Atoms]:
    """Return frames without labels that cannot be right, such as NaN: these have no weight, or had been refused."""
    wrong = {problem.label for problem in census(frames).problems if not problem.size_only}
    copies = [atoms.copy() for atoms in frames]
    for atoms in copies:
        for label in wrong.intersection(LABELS):
            (atoms.arrays if label == "forces" else atoms.info).pop(label, None)
    return copies
