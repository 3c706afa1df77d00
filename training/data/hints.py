"""Advice about settings, from the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from asecalc_mlip.data.census import Census, has_label
from asecalc_mlip.logs import LOGGER
from training.settings import LossConfig

__all__ = ["hint_of_stress"]

# What stress may weigh beside forces when their errors have the same share of their size.
SHARE = 0.1


def hint_of_stress(counts: Census, frames: Sequence[Atoms], loss: LossConfig) -> None:
    """Tell of stress labels that are not trained on, with a weight for them.

    The weight w makes w · rms(σ) a tenth of w_F · rms(F): stress then counts, and forces lead.
    """
    n = counts.counts["stress"]
    if not n or loss.stress_weight > 0:
        return
    weight = _weight(frames, loss.forces_weight)
    some = "all" if n == counts.n_frames else f"{n} of {counts.n_frames}"
    missing = "" if n == counts.n_frames else ", if the frames without it are left out"
    advice = f"; try loss.stress_weight={weight:g}{missing}" if weight else ""
    LOGGER.info(f"stress labels of {some} frames are not trained on: loss.stress_weight is 0{advice}")


def _weight(frames: Sequence[Atoms], forces_weight: float) -> float | None:
    """Return the weight of one significant digit; None where labels do not say."""
    labelled = [atoms for atoms in frames if has_label(atoms, "stress") and has_label(atoms, "forces")]
    if not labelled or forces_weight <= 0:
        return None
    forces = np.sqrt(np.mean(np.concatenate([np.ravel(atoms.arrays["forces"]) for atoms in labelled]) ** 2))
    stress = np.sqrt(np.mean(np.concatenate([np.ravel(atoms.info["stress"]) for atoms in labelled]) ** 2))
    if not (stress > 0 and forces > 0):
        return None
    return float(f"{SHARE * forces_weight * forces / stress:.1g}")
