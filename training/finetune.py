"""Cards of runs that start from a model: its base, what it is added to, and how much it has forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.data import chemical_symbols

from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.data.errors import Errors
from asecalc_mlip.models.cohesion import Cohesion
from asecalc_mlip.units import ERROR_UNITS, with_unit
from training.base_model import pretraining_of

if TYPE_CHECKING:
    from training.prepare import Run

__all__ = ["Forgetting", "forgetting", "start_card"]

# What the card keeps of that of the base.
_KEPT = ("name", "delta", "training_data", "level_of_theory", "source", "pretraining", "date", "licence")


@dataclass
class Forgetting:
    """Errors on held-back structures of the old level: of the base, and of what became of it.

    `before` is None for a model without a base.
    """

    before: Errors | None
    after: Errors

    def __repr__(self) -> str:
        lines = [f"old level, {self.after.data}: {self.after.n_structures} structures, MAE before → after"]
        for name, value in self.after.mae.items():
            before = "   new" if self.before is None else f"{self.before.mae[name]:8.2f}"
            lines.append(f"  {name.replace('_', ' '):<16} {before} → {value:8.2f} {ERROR_UNITS[name]}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        before = None if self.before is None else self.before.to_dict()
        return {"before": before, "after": self.after.to_dict()}

    def card(self) -> dict[str, Any]:
        """Return the mean absolute errors, for the card."""
        named = {"after": self.after} | ({} if self.before is None else {"before": self.before})
        maes = {
            when: {with_unit(name): value for name, value in errors.mae.items()}
            for when, errors in sorted(named.items(), reverse=True)
        }
        return {"data": self.after.data, "structures": self.after.n_structures, **maes}


def forgetting(run: Run, model: str | Path) -> Forgetting | None:
    """Compute errors on the old level of the base of a run and of its model; None where nothing was held back.

    The energies are compared on the level of each: those of the base on the old one, those of the model after the shift
    between the two.
    """
    if run.old is None or not run.old.held:
        return None
    base, device = run.start.base, run.test_device
    before = None if base is None else run.old.errors(base.path, of_new_level=False, device=device)
    return Forgetting(before, run.old.errors(model, of_new_level=True, device=device))


def start_card(run: Run) -> dict[str, Any]:
    """Return the entries of the card about the labels and the start of a run; none for plain training."""
    settings, base = run.config.finetune, run.start.base
    card: dict[str, Any] = {} if run.pretraining is None else {"pretraining": run.pretraining}
    if run.start.prior:
        card["prior"] = run.start.prior_text
    for network in run.potential.network.modules():
        if isinstance(network, Cohesion):
            card["cohesion_eV"] = {chemical_symbols[z]: float(network.table[z, 0]) for z in network.numbers}
    if settings.delta is not None:
        card["delta"] = {"added_to": Path(settings.delta).name, "frozen": settings.delta_frozen}
    if base is not None:
        card["finetuning"] = {
            "base": base.path.name,
            "base_card": {name: base.card[name] for name in _KEPT if name in base.card},
            "layer_decay": settings.layer_decay,
            "e0_shift_eV": _by_symbol(run.start.shift),
        }
        card |= _inherited(base)
    if run.far is not None:
        card["far"] = run.far.card
    if run.old is not None and run.old.replay:
        card["replay"] = {
            "share": settings.replay,
            "file": run.old.name,
            "structures": len(run.old.replay),
            "e0_shift_eV": _by_symbol(run.old.shift),
        }
    return card


def _inherited(base: LoadedModel) -> dict[str, Any]:
    """Return the pretraining of a base, which is that of the model, too."""
    found = pretraining_of(base)
    return {} if found is None else {"pretraining": found}


def _by_symbol(shift: dict[int, float]) -> dict[str, float]:
    return {chemical_symbols[z]: round(value, 6) for z, value in sorted(shift.items())}
