"""Report of a fitted EAM: errors before and after, pair curves with their components, its file and card."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from asecalc_mlip.calculators.eam import EAMCalculator, PairCurve
from asecalc_mlip.checkpoint import LoadedModel, save
from asecalc_mlip.data.errors import Errors, evaluate_frames
from asecalc_mlip.errors import DataError
from asecalc_mlip.files import write_json
from asecalc_mlip.models import Potential
from asecalc_mlip.models.eam import EAM
from asecalc_mlip.units import ERROR_UNITS
from training.eam.batches import FitBatch, energies_forces_stress
from training.start.reference_energies import ReferenceEnergies

__all__ = ["EAMFit", "errors_of", "find_suspect_stress", "still_falling"]

# Å, the first distance of pair curves and the step to the next.
CURVE = (0.3, 0.01)
# Of more elements than this, thousands of pairs, curves in steps so much longer, and no figure.
MOST_DRAWN, COARSER = 10, 10
# Correlation from which stress labels count as related to what the forces say.
RELATED = 0.5
# Ratio of labels to the EAM beyond which another unit is meant: kbar, the nearest, are 1602 and GPa 160 times.
LARGEST_RATIO = 30.0
# Share by which the loss may fall over the last tenth of a fit that has converged.
FALLING = 0.02
SHOWN = ("energy_per_atom", "forces", "stress")


@dataclass
class EAMFit:
    """A fitted EAM.

    Attributes
    ----------
    potential : Potential
    e0 : ReferenceEnergies
    card : dict
    errors : dict
        `Errors` on the frames of the fit "before" and "after", on "test" frames where given, and of a Morse potential
        fitted alike ("morse", "morse_test") where it was compared.
    history : list of dict
        Per epoch: loss, mean absolute errors (eV/atom, eV/Å, eV/Å³) and learning rate.
    reference : dict or None
        How the frames look, for the model file; see `asecalc_mlip.analysis.make_reference`.
    """

    potential: Potential
    e0: ReferenceEnergies
    card: dict[str, Any]
    errors: dict[str, Errors]
    history: list[dict[str, float]] = field(default_factory=list, repr=False)
    reference: dict[str, Any] | None = field(default=None, repr=False)

    def calculator(self, **options: Any) -> EAMCalculator:
        """Return the calculator of the fitted potential; options as for `EAMCalculator.load`."""
        return _calculator(self.potential, self.card, **options)

    def pair_curves(self, distances: np.ndarray | None = None) -> list[PairCurve]:
        """Compute the curve of every pair of elements, by default from 0.3 Å to the cutoff, coarser for many."""
        if distances is None:
            step = CURVE[1] * (COARSER if self.has_many_elements else 1)
            distances = np.arange(CURVE[0], self.potential.cutoff + step / 2, step)
        return self.calculator(dtype="float64").pair_curves(distances)

    @property
    def has_many_elements(self) -> bool:
        """Whether there are too many for a figure of all pairs."""
        return len(self.potential.elements) > MOST_DRAWN

    def compare(self, morse: EAMFit) -> None:
        """Take the errors of a fit without density into the report."""
        self.errors["morse"] = morse.errors["after"]
        if "test" in morse.errors:
            self.errors["morse_test"] = morse.errors["test"]

    def save(self, path: str | Path) -> Path:
        """Write the model file, its pair curves and errors as JSON, and their figure, all beside each other.

        No figure of more than MOST_DRAWN elements, whose pairs nobody could tell from each other.
        """
        path = Path(path)
        energies = self.e0.to_dict()
        save(path, self.potential, card=self._full_card(), reference_energies=energies, reference=self.reference)
        curves = self.pair_curves()
        report = {**self.to_dict(), "pair_curves": [curve.to_dict() for curve in curves]}
        write_json(path.with_suffix(".json"), report)
        if self.has_many_elements:
            return path
        # Imported late: figures need matplotlib, which a fit does not.
        from asecalc_mlip.plots.eam import pair_curves_figure

        pair_curves_figure(curves, path=path.with_suffix(".png"), title=f"{path.name}: two atoms alone")
        return path

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "card": self._full_card(),
            "reference_energies": self.e0.to_dict(),
            "errors": {name: errors.to_dict() for name, errors in self.errors.items()},
            "history": self.history,
        }

    def __repr__(self) -> str:
        titles = {
            "before": "start values",
            "after": "fitted",
            "morse": "Morse only",
            "test": "fitted, held-out frames",
            "morse_test": "Morse only, held-out frames",
        }
        lines = [f"{'MAE':<28}" + "".join(f"{unit:>12}" for unit in map(ERROR_UNITS.__getitem__, SHOWN))]
        for name, title in titles.items():
            if name in self.errors:
                values = [_mae(self.errors[name], quantity) for quantity in SHOWN]
                lines.append(f"  {title:<26}" + "".join(f"{'–' if v is None else f'{v:.2f}':>12}" for v in values))
        falling = still_falling(self.history)
        return "\n".join([*lines, self.e0.table(), *([] if falling is None else [falling])])

    def _full_card(self) -> dict[str, Any]:
        errors = {
            name: {"data": e.data, "structures": e.n_structures, "MAE": {k: float(v) for k, v in e.mae.items()}}
            for name, e in self.errors.items()
        }
        return {**self.card, "errors": errors, "date": datetime.date.today().isoformat()}


def still_falling(history: Sequence[Mapping[str, float]]) -> str | None:
    """Say that the loss fell by more than 2 % over the last tenth of the epochs; None where it did not."""
    n = len(history) // 10
    if n < 1:
        return None
    before, last = (float(np.mean([row["loss"] for row in part])) for part in (history[-2 * n : -n], history[-n:]))
    fall = 1.0 - last / before if before > 0 else 0.0
    if fall <= FALLING:
        return None
    return (
        f"the loss is still falling, by {100 * fall:.0f} % over the last {n} epochs: more of them, "
        f"--epochs {3 * len(history)}, give a better potential and continue from the checkpoint"
    )


def errors_of(potential: Potential, frames: Sequence[Atoms], name: str) -> Errors:
    """Return the errors of a potential on labelled frames."""
    return evaluate_frames(_calculator(potential, {}), frames, name=name)


def find_suspect_stress(network: EAM, batches: Sequence[FitBatch]) -> None:
    """Compare stress labels with an EAM that was fitted to forces alone.

    Raises
    ------
    DataError
        Where they have the opposite sign, or a size that another unit would give.
    """
    labels, own = [], []
    with torch.no_grad():
        for batch in batches:
            known = ~batch.stress.isnan()
            labels.append(batch.stress[known])
            own.append(energies_forces_stress(network, batch)[2][known])
    x, y = torch.cat(labels).double(), torch.cat(own).double()
    x, y = x[~y.isnan()], y[~y.isnan()]
    if len(x) < 2 or not (norm := float(x.norm() * y.norm())):
        return
    likeness, ratio = float(x @ y) / norm, float(x.norm() / y.norm())
    if likeness < -RELATED:
        raise DataError(
            f"the stress labels have the wrong sign: their correlation with the stress that goes with the forces is "
            f"{likeness:.2f}. ASE's sign is wanted: a compressed crystal has negative stress (multiply them by -1)"
        )
    if likeness > RELATED and not 1.0 / LARGEST_RATIO < ratio < LARGEST_RATIO:
        raise DataError(
            f"the stress labels are {ratio:.3g} times the stress that goes with the forces; they must be in eV/Å³ "
            "(1 GPa = 0.00624 eV/Å³, 1 kbar = 0.000624 eV/Å³), and no virial"
        )


def _calculator(potential: Potential, card: Mapping[str, Any], **options: Any) -> EAMCalculator:
    return EAMCalculator(LoadedModel(potential, dict(card), Path("EAM")), device="cpu", **options)


def _mae(errors: Errors, quantity: str) -> float | None:
    if quantity == "energy_per_atom" and quantity not in errors.mae and "energy" in errors.mae:
        return errors.mae["energy"] * errors.n_structures / errors.n_atoms
    return errors.mae.get(quantity)
