r"""A last shift of the reference energies, which takes a constant error off the energies of a trained model.

Forces say nothing about a constant, and averaged weights lag behind the energies of a training that was still moving:
what is left is an error that all frames of one composition share. The shift Δ minimises, over the training set,

    Σ_frames [ (E_ref − E_model − Σ_i Δ(Z_i)) / N ]²

with the smallest Δ where compositions leave a choice. Only E0 that were fitted are shifted: those of isolated atoms are
what they are. Squares follow a few energies that are far from the rest, so that E0 stay as they were where the shift
makes the energies of the validation frames worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.logs import LOGGER
from training.data.weights import frame_weight
from training.results.card import rewrite
from training.start.reference_energies import least_squares

if TYPE_CHECKING:
    from training.prepare import Run

__all__ = ["shift_reference_energies"]

# Frames that the shift is taken from, spread evenly; more say nothing new about a constant.
MOST = 500


def shift_reference_energies(run: Run, path: Path, card: dict[str, Any] | None = None) -> dict[int, float]:
    """Shift the fitted E0 of a model file, and put the shift on its card.

    Parameters
    ----------
    run : Run
    path : Path
        The trained model.
    card : dict, optional
        Gets the entry `final_e0_shift_eV`; default: the one that the file has.

    Returns
    -------
    dict
        Atomic number → shift in eV; empty where no E0 was fitted, no frame has an energy, or validation gets worse.
    """
    frames = _counted(run, run.split.train)
    frames, fitted = [frames[i] for i in evenly(len(frames), MOST)], run.e0.fitted
    if not frames or not fitted:
        return {}
    left = _left(path, frames, run.test_device)
    shift, _ = least_squares(frames, left, fitted)
    before, after = _validation(run, path, shift)
    if after > before:
        LOGGER.info(
            "E0 stay as they are: a shift by least squares takes the error of the validation energies from "
            f"{1e3 * before:.2f} to {1e3 * after:.2f} meV/atom"
        )
        return {}
    per_atom = np.mean([energy / len(atoms) for energy, atoms in zip(left, frames, strict=True)])
    card = load(path).card if card is None else card
    card["final_e0_shift_eV"] = {chemical_symbols[z]: round(value, 6) for z, value in sorted(shift.items())}
    rewrite(path, card, e0=run.e0.shifted(shift))
    LOGGER.info(
        f"E0 shifted by least squares on {len(frames)} training frames, which takes off {1e3 * per_atom:+z.2f} meV/atom"
    )
    return shift


def _validation(run: Run, path: Path, shift: Mapping[int, float]) -> tuple[float, float]:
    """Return the mean absolute error of the validation energies without and with a shift, in eV per atom."""
    frames = _counted(run, run.split.val)
    if not frames:
        return 0.0, 0.0
    sizes = np.array([len(atoms) for atoms in frames])
    left = _left(path, frames, run.test_device)
    more = np.array([sum(shift.get(int(z), 0.0) for z in atoms.numbers) for atoms in frames])
    return float(np.mean(np.abs(left) / sizes)), float(np.mean(np.abs(left - more) / sizes))


def _counted(run: Run, places: Sequence[int]) -> list[Atoms]:
    """Return the frames that have an energy and a weight in the loss."""
    frames, weights = [run.frames[i] for i in places], run.config.data.weights
    return [atoms for atoms in frames if has_label(atoms, "energy") and frame_weight(atoms, weights) > 0]


def _left(path: Path, frames: Sequence[Atoms], device: str) -> np.ndarray:
    """Return the energies of the labels less those of the model, (n,) eV."""
    results = PIWSLCalculator.load(path, device=device).evaluate(frames)
    return np.array([a.info["energy"] - r["energy"] for a, r in zip(frames, results, strict=True)])
