"""How a model does far from the data: on structures of the teacher that its training has not seen, and in dimers.

Part of `sparse.py`: rows that learned far from the data get these numbers beside their test errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["far_errors"]

# Other structures than those of the training, whose seed is 0.
SEED = 1
N = 100


def far_errors(settings: Mapping[str, Any], model: Path) -> dict[str, Any]:
    """Return force errors by source of far structures, and the flags of isolated dimers.

    Parameters
    ----------
    settings : mapping
        Of the training.
    model : Path
        What it made.

    Returns
    -------
    dict
        `forces`: by source the mean absolute error in eV/Å, each structure by its weight in a training; `structures`:
        how many; `flags`: the unphysical features of all pairs.
    """
    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.data.readers import read_frames
    from asecalc_mlip.probes.diatomic_flags import shortest_distances
    from asecalc_mlip.probes.diatomic_report import diatomic_report
    from benchmarks.studies.grid import settings_of
    from training.prepare import prepare

    folder = model.parent / "far_test"
    changed = {
        "far.teacher": "xtb",
        "far.seed": SEED,
        "far.n": N,
        "far.sources": "[bonds,two_step,dynamics]",
        "far.weight": 1.0,
    }
    run = prepare(settings_of({**settings, **changed, "run.output": folder}), writes=False)
    assert run.far is not None
    calc = PIWSLCalculator.load(model, device="cpu")
    found: dict[str, list[tuple[float, float]]] = {}
    results = calc.evaluate(run.far.frames)
    for atoms, weight, result in zip(run.far.frames, run.far.weights, results, strict=True):
        error = float(np.abs(result["forces"] - atoms.arrays["forces"]).mean())
        found.setdefault(str(atoms.info["config_type"]).removeprefix("far_"), []).append((error, weight))
    report = diatomic_report(calc, shortest_A=shortest_distances(read_frames(settings["data.train"])))
    curves = zip(report.curves, report.flags, strict=True)
    return {
        "forces": {name: round(_mean(pairs), 4) for name, pairs in found.items()},
        "structures": {name: len(pairs) for name, pairs in found.items()},
        "flags": [f"{curve.pair}: {flag.name}" for curve, flags in curves for flag in flags],
    }


def _mean(pairs: list[tuple[float, float]]) -> float:
    errors, weights = np.transpose(pairs)
    return float(np.average(errors, weights=weights))
