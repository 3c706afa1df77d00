"""Curves, metrics and flags of all pairs of a model as one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asecalc_mlip.probes.diatomic import DiatomicCurve, Grid, diatomic_curves
from asecalc_mlip.probes.diatomic_flags import Flag, Hole, attractive_hole, diatomic_flags, never_bound
from asecalc_mlip.probes.diatomic_metrics import DiatomicMetrics, diatomic_metrics
from asecalc_mlip.probes.single_points import model_name

__all__ = ["SHARE", "DiatomicReport", "attractive_holes", "diatomic_report"]

# Of the shortest training distance: closer than that a model has nothing to go by.
SHARE = 0.8


@dataclass(frozen=True, repr=False)
class DiatomicReport:
    """Judgement of the diatomic curves of a model; lists are in the order of the pairs.

    Attributes
    ----------
    model : str
        Name.
    curves, metrics : list of DiatomicCurve, list of DiatomicMetrics
        One per pair.
    flags : list of list of Flag
        List of unphysical features of each pair.
    below_A : list of float
        Distance of each pair below which attraction is a hole.
    """

    model: str
    curves: list[DiatomicCurve]
    metrics: list[DiatomicMetrics]
    flags: list[list[Flag]]
    below_A: list[float]

    @property
    def holes(self) -> dict[str, Hole | None]:
        """Hole of each pair, by its name; None where there is none, or the grid ends before."""
        pairs = zip(self.curves, self.below_A, strict=True)
        return {c.pair: attractive_hole(c, below) if c.distances_A[1] < below else None for c, below in pairs}

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        return {
            "model": self.model,
            "mean_tortuosity": float(np.mean([m.tortuosity for m in self.metrics])),
            "pairs": [
                {
                    **curve.to_dict(),
                    "below_A": below,
                    "metrics": metrics.to_dict(),
                    "flags": [flag.to_dict() for flag in flags],
                }
                for curve, metrics, flags, below in zip(
                    self.curves, self.metrics, self.flags, self.below_A, strict=True
                )
            ],
        }

    def __repr__(self) -> str:
        lines = [
            f"{self.model}: {len(self.curves)} pairs, {sum(map(len, self.flags))} flags "
            "(numbers on the grid of MLIP Arena, from 0.9 covalent radii on; flags on all distances)",
            f"  {'pair':<7}{'min Å':>7}{'well eV':>9}{'tortuos.':>10}{'flips':>7}{'jump eV':>9}  flags",
        ]
        for m, flags in zip(self.metrics, self.flags, strict=True):
            names = ", ".join(flag.name for flag in flags) or "none"
            lines.append(
                f"  {m.pair:<7}{m.minimum_A:>7.2f}{m.well_depth_eV:>9.2f}{m.tortuosity:>10.3f}{m.force_flips:>7d}"
                f"{m.energy_jump_eV:>9.3f}  {names}"
            )
        return "\n".join(lines)


def diatomic_report(
    calc: Any,
    pairs: Sequence[str | tuple[str, str]] | None = None,
    *,
    grid: Grid = "full",
    shortest_A: Mapping[tuple[str, str], float] | None = None,
    name: str | None = None,
    **options: Any,
) -> DiatomicReport:
    """Take curves, metrics and flags of pairs of elements.

    Parameters
    ----------
    calc : ASE calculator
    pairs : sequence, optional
        "Si-O" or ("Si", "O"); default: all pairs of the elements that the model knows.
    grid : {"full", "arena"}
        Metrics are those of the arena grid either way; holes and the cutoff need the full one.
    shortest_A : mapping, optional
        What `shortest_distances(training_frames)` gives. Attraction below 0.8 times that is then a hole; without it,
        and for pairs it lacks, below 0.6 times the covalent radii.
    name : str, optional
        Of the model; default: its file or class.
    **options
        For `diatomic_curve`.
    """
    curves = diatomic_curves(calc, pairs, grid=grid, name=name, **options)
    below = [_below(curve, shortest_A or {}) for curve in curves]
    return DiatomicReport(
        model=model_name(calc) if name is None else name,
        curves=curves,
        metrics=[diatomic_metrics(curve) for curve in curves],
        flags=[diatomic_flags(curve, below_A=limit) for curve, limit in zip(curves, below, strict=True)],
        below_A=below,
    )


def attractive_holes(
    curves: Sequence[DiatomicCurve], shortest_A: Mapping[tuple[str, str], float], *, share: float = SHARE
) -> dict[str, Hole | None]:
    """Tell for each curve whether the atoms attract below `share` times their shortest training distance, and how.

    Pairs that the training data lack are judged by `never_bound`.
    """
    return {curve.pair: attractive_hole(curve, _below(curve, shortest_A, share)) for curve in curves}


def _below(curve: DiatomicCurve, shortest_A: Mapping[tuple[str, str], float], share: float = SHARE) -> float:
    a, b = sorted(curve.symbols)
    known = shortest_A.get((a, b))
    return never_bound(a, b) if known is None else share * known
