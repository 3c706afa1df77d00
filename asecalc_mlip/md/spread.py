"""How far the models of a committee disagree in a run: a column of the log, and lines of the summary."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["COLUMN", "columns_of", "committee_of", "spread_of", "spread_text", "summarise_spread"]

COLUMN = "spread_eV_per_A"
"""Of the log: the spread of the force on an atom, the largest of all atoms."""


def columns_of(calculator: Any) -> tuple[str, ...]:
    """Return the columns that a calculator adds to the log; only a committee has one."""
    return (COLUMN,) if "forces_std" in getattr(calculator, "implemented_properties", ()) else ()


def spread_of(calculator: Any) -> float | None:
    """Return the largest spread (eV/Å) of the last structure; None where the calculator has none."""
    spread = getattr(calculator, "results", {}).get("forces_std")
    return None if spread is None else float(np.max(spread))


def committee_of(calculator: Any) -> dict[str, Any] | None:
    """Return number of models, threshold and action of a committee, plain values; None of another calculator."""
    if not columns_of(calculator):
        return None
    return {
        "members": len(getattr(calculator, "models", ())),
        "threshold_eV_per_A": getattr(calculator, "threshold", None),
        "action": getattr(calculator, "action", None),
    }


def summarise_spread(log: dict[str, np.ndarray], calculator: Any) -> dict[str, Any] | None:
    """Return mean and maximum over the frames of a log of the spread, and how often it is beyond the threshold."""
    values = log.get(COLUMN, np.zeros(0))
    committee = committee_of(calculator)
    if committee is None or len(values) == 0:
        return None
    limit = committee["threshold_eV_per_A"]
    return {
        **committee,
        "mean_eV_per_A": float(values.mean()),
        "largest_eV_per_A": float(values.max()),
        "frames": len(values),
        # NaN of a member is a disagreement.
        "frames_above": None if limit is None else int((~(values < limit)).sum()),
    }


def spread_text(found: dict[str, Any]) -> str:
    """Tell `summarise_spread` in a line."""
    text = f"Spread of {found['members']} models, on the worst atom: mean {found['mean_eV_per_A']:.3g}, largest "
    text += f"{found['largest_eV_per_A']:.3g} eV/Å"
    if found["frames_above"] is None:
        return text
    return f"{text}; {found['threshold_eV_per_A']:g} or more in {found['frames_above']} of {found['frames']} frames"
