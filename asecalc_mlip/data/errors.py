"""Errors of a model on labelled structures."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from asecalc_mlip.calculators.batches import BatchSize
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.data.census import census, has_label
from asecalc_mlip.data.labels import LABELS
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.engine.curl import force_curl
from asecalc_mlip.errors import DataError
from asecalc_mlip.graph import graph_from_atoms

__all__ = ["Errors", "evaluate_file", "evaluate_frames"]

# At most this many structures for the curl, whose mean needs no more.
CURL_FRAMES = 20


@dataclass
class Errors:
    """Errors of a model on a data set; energies in meV, forces in meV/Å, stress in meV/Å³.

    `counts` are the structures with each label, `warnings` what is implausible about the labels.
    `labels` and `predictions` hold the flat arrays behind the numbers (eV, eV/Å, eV/Å³), for parity plots. `curl` is
    the mean of ‖J − Jᵀ‖/‖J‖ over some structures (see `asecalc_mlip.engine.curl`) for models with direct forces, else
    None.
    """

    model: str
    data: str
    n_structures: int
    n_atoms: int
    seconds: float
    mae: dict[str, float]
    rmse: dict[str, float]
    curl: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    labels: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    predictions: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    def __repr__(self) -> str:
        units = {"energy": "meV", "energy_per_atom": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}
        lines = [f"{self.model} on {self.data}: {self.n_structures} structures, {self.seconds:.1f} s"]
        lines += [
            f"  {name.replace('_', ' '):<16} MAE {self.mae[name]:8.2f}   RMSE {self.rmse[name]:8.2f} {units[name]}"
            f"{self._of(name)}"
            for name in self.mae
        ]
        lines += [f"  warning: {text}" for text in self.warnings]
        if self.curl is not None:
            lines.append(f"  curl ‖J−Jᵀ‖/‖J‖  {self.curl:.3g}   (0: conservative; 2: no conservative part)")
        return "\n".join(lines)

    def _of(self, name: str) -> str:
        """How many structures have a label, where not all do."""
        count = self.counts.get(name.removesuffix("_per_atom"), self.n_structures)
        return "" if count == self.n_structures else f"   (of {count} structures)"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, plain types."""
        return {k: v for k, v in asdict(self).items() if k not in ("labels", "predictions")}


def evaluate_file(
    model: str,
    data: str,
    *,
    output: str | None = None,
    batch_size: BatchSize = "auto",
    device: str = "auto",
    dtype: str = "float32",
    **reading: Any,
) -> Errors:
    """Errors of a model file on a data file; optionally written as JSON to `output`.

    `reading` are options of `asecalc_mlip.data.readers.read_frames`: names and units of the labels.

    Raises
    ------
    InputError, DataError, CheckpointError
        For a model or data that cannot be used.
    """
    frames = read_frames(data, **reading)
    calculator = PIWSLCalculator.load(model, device=device, dtype=dtype)  # type: ignore[arg-type]
    errors = evaluate_frames(calculator, frames, name=Path(data).name, batch_size=batch_size)
    if output is not None:
        Path(output).write_text(json.dumps(errors.to_dict(), indent=1))
    return errors


def evaluate_frames(
    calculator: PIWSLCalculator, frames: Sequence[Atoms], *, name: str = "data", batch_size: BatchSize = "auto"
) -> Errors:
    """Errors over the labels that frames have; labels as `asecalc_mlip.data.readers.read_frames` gives them."""
    found = census(frames)
    labels = [label for label in LABELS if found.counts.get(label, 0)]
    if not labels:
        raise DataError(f"{name} has no labels in any of its {len(frames)} frames: {found}; nothing to compare")
    # NaN labels would make every error NaN; a size that surprises is told, and for the eye to judge.
    found.refuse(labels, allow_implausible=True)
    start = time.perf_counter()
    results = calculator.evaluate(frames, batch_size=batch_size)
    seconds = time.perf_counter() - start
    pairs = list(zip(frames, results, strict=True))
    truth, guess, counts = {}, {}, {}
    sizes = np.array([len(atoms) for atoms in frames])
    if with_energy := [(a, r) for a, r in pairs if has_label(a, "energy")]:
        truth["energy"] = np.array([atoms.info["energy"] for atoms, _ in with_energy], dtype=float)
        guess["energy"] = np.array([result["energy"] for _, result in with_energy])
        counts["energy"] = len(with_energy)
        if sizes.min() != sizes.max():
            theirs = np.array([len(atoms) for atoms, _ in with_energy])
            truth["energy_per_atom"], guess["energy_per_atom"] = truth["energy"] / theirs, guess["energy"] / theirs
    if with_forces := [(a, r) for a, r in pairs if has_label(a, "forces")]:
        truth["forces"] = np.concatenate([atoms.arrays["forces"] for atoms, _ in with_forces])
        guess["forces"] = np.concatenate([result["forces"] for _, result in with_forces])
        counts["forces"] = len(with_forces)
    if with_stress := [(a, r) for a, r in pairs if has_label(a, "stress") and r["stress"] is not None]:
        truth["stress"] = np.array([full_3x3_to_voigt_6_stress(atoms.info["stress"]) for atoms, _ in with_stress])
        guess["stress"] = np.array([result["stress"] for _, result in with_stress])
        counts["stress"] = len(with_stress)
    differences = {key: 1000 * (guess[key] - truth[key]) for key in truth}
    return Errors(
        model=calculator.model.path.name,
        data=name,
        n_structures=len(frames),
        n_atoms=int(sizes.sum()),
        seconds=seconds,
        mae={key: float(np.abs(d).mean()) for key, d in differences.items()},
        rmse={key: float(np.sqrt((d**2).mean())) for key, d in differences.items()},
        curl=_curl(calculator, frames) if calculator.potential.direct_forces else None,
        counts=counts,
        warnings=[problem.text for problem in found.problems if problem.label in ("structure", *labels)],
        labels=truth,
        predictions=guess,
    )


def _curl(calculator: PIWSLCalculator, frames: Sequence[Atoms]) -> float:
    """Mean over frames spread evenly over the data; one at a time, because double derivatives take memory."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, CURL_FRAMES).round().astype(int))
    generator = torch.Generator().manual_seed(0)
    potential, curls = calculator.potential, []
    for index in chosen:
        graph = graph_from_atoms(frames[index], potential.cutoff, device=calculator.device)
        curls.append(force_curl(potential, graph, generator=generator).item())
    return float(np.mean(curls))
