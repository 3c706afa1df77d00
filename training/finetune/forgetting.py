"""How much a model has forgotten of the level of theory of its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asecalc_mlip.data.errors import Errors
from asecalc_mlip.units import ERROR_UNITS, with_unit

if TYPE_CHECKING:
    from training.prepare import Run

__all__ = ["Forgetting", "forgetting"]


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
