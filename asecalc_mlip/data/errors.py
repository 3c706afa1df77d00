"""Errors of a model on labelled structures."""

from __future__ import annotations

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
from asecalc_mlip.data.census import Census, census, has_label
from asecalc_mlip.data.error_tables import by_config_type, group_lines, hints, worst_frames, worst_lines
from asecalc_mlip.data.labels import is_isolated_atom, without_open_stress
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.engine.curl import force_curl
from asecalc_mlip.errors import DataError
from asecalc_mlip.files import check_figure, check_writable, write_json
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.units import ERROR_UNITS, LABELS

__all__ = ["Errors", "evaluate_file", "evaluate_frames"]

# At most this many structures for the curl, whose mean needs no more.
CURL_FRAMES = 20


@dataclass
class Errors:
    """Errors of a model on a data set; energies in meV, forces in meV/Å, stress in meV/Å³.

    Attributes
    ----------
    model, data : str
        Names of the files.
    n_structures, n_atoms : int
    seconds : float
        Time that the model took.
    mae, rmse, mean_error : dict of str to float
        By "energy", "energy_per_atom" (where structures are periodic or of several sizes), "forces", "stress". The mean
        error has a sign, prediction less label: one that is as large as the MAE is a constant offset.
    curl : float or None
        Mean of ‖J − Jᵀ‖/‖J‖ over some structures (see `asecalc_mlip.engine.curl`) of a model with a force head.
    counts : dict of str to int
        Structures with each label.
    warnings : list of str
        What is implausible about the labels.
    hints : list of str
        What errors mean that are too large for a model of these structures.
    worst : dict of str to list of dict
        By "energy" and "forces" the five frames with the largest errors: index (from 0), frame, formula, error.
    config_types : dict of str to dict
        Of the frames with each `info["config_type"]`: structures, mae, rmse; empty where no frame has one.
    labels, predictions : dict of str to array
        The flat arrays behind the numbers (eV, eV/Å, eV/Å³), for parity plots.
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
    hints: list[str] = field(default_factory=list)
    mean_error: dict[str, float] = field(default_factory=dict)
    worst: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    config_types: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    predictions: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    def __repr__(self) -> str:
        lines = [f"{self.model} on {self.data}: {self.n_structures} structures, {self.seconds:.1f} s"]
        lines += [
            f"  {name.replace('_', ' '):<16} MAE {self.mae[name]:8.2f}   RMSE {self.rmse[name]:8.2f}   "
            f"mean {self.mean_error.get(name, np.nan):+z9.2f} {ERROR_UNITS[name]}{self._of(name)}"
            for name in self.mae
        ]
        lines += [f"  warning: {text}" for text in self.warnings] + [f"  hint: {text}" for text in self.hints]
        if self.curl is not None:
            lines.append(f"  curl ‖J−Jᵀ‖/‖J‖  {self.curl:.3g}   (0: conservative; 2: no conservative part)")
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join([repr(self), *group_lines(self.config_types), *worst_lines(self.worst, self.mae)])

    def _of(self, name: str) -> str:
        """How many structures have a label, where not all do."""
        count = self.counts.get(name.removesuffix("_per_atom"), self.n_structures)
        return "" if count == self.n_structures else f"   (of {count} structures)"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays, plain types."""
        return {k: v for k, v in asdict(self).items() if k not in ("labels", "predictions")}


def evaluate_file(
    model: str,
    data: str,
    *,
    output: str | None = None,
    predictions: str | None = None,
    figure: str | None = None,
    batch_size: BatchSize = "auto",
    device: str = "auto",
    dtype: str = "float32",
    **reading: Any,
) -> Errors:
    """Compare a model file with the labels of a data file.

    Parameters
    ----------
    model, data : str
    output, predictions, figure : str, optional
        Files to write: the errors as JSON, frames with labels and predictions as extended XYZ, a parity plot.
    batch_size, device, dtype
        As for `PIWSLCalculator`.
    **reading
        Names and units of the labels, options of `asecalc_mlip.data.readers.read_frames`.

    Raises
    ------
    InputError, DataError, CheckpointError
        The model, the data or a file to write cannot be used.
    """
    check_writable(output, predictions)
    check_figure(figure)
    frames = read_frames(data, **reading)
    if (output or figure) and not any(has_label(atoms, label) for atoms in frames for label in LABELS):
        _labels(census(frames), Path(data).name)
    calculator = PIWSLCalculator.load(model, device=device, dtype=dtype)  # type: ignore[arg-type]
    name = Path(data).name
    errors = evaluate_frames(calculator, frames, name=name, batch_size=batch_size, predictions=predictions)
    if output is not None:
        write_json(output, errors)
    if figure is not None:
        from asecalc_mlip.plots.training import parity

        parity(errors.labels, errors.predictions, path=figure, title=f"{errors.model} on {name}")
    return errors


def evaluate_frames(
    calculator: PIWSLCalculator,
    frames: Sequence[Atoms],
    *,
    name: str = "data",
    batch_size: BatchSize = "auto",
    predictions: str | Path | None = None,
) -> Errors:
    """Compare a model with the labels that frames have. Without labels there are only the predictions to write.

    Frames of one isolated atom are E0s and not judged, unless there are no others.

    Parameters
    ----------
    calculator : PIWSLCalculator
    frames : sequence of Atoms
        With labels as `asecalc_mlip.data.readers.read_frames` gives them.
    name : str
        Of the data, for reports.
    batch_size : int or "auto"
    predictions : path, optional
        Extended XYZ to write, with labels and predictions of all frames.

    Raises
    ------
    DataError
        No frame has a label, or labels are NaN.
    """
    labelled = without_open_stress(frames)
    found = census(labelled)
    labels = _labels(found, name, predictions is None)
    start = time.perf_counter()
    results = calculator.evaluate(frames, batch_size=batch_size)
    seconds = time.perf_counter() - start
    if predictions is not None:
        from asecalc_mlip.data.convert import write_predictions

        write_predictions(predictions, frames, results)
    chosen = [i for i, atoms in enumerate(frames) if not is_isolated_atom(atoms)] or list(range(len(frames)))
    judged, given = [labelled[i] for i in chosen], [results[i] for i in chosen]
    per_atom = len(set(map(len, judged))) > 1 or any(atoms.pbc.any() for atoms in judged)
    truth, guess = _arrays(judged, given, per_atom)
    mae, rmse, mean = _means(truth, guess)
    return Errors(
        model=calculator.model.path.name,
        data=name,
        n_structures=len(judged),
        n_atoms=sum(map(len, judged)),
        seconds=seconds,
        mae=mae,
        rmse=rmse,
        mean_error=mean,
        curl=_curl(calculator, judged) if calculator.potential.direct_forces else None,
        counts={label: sum(has_label(atoms, label) for atoms in judged) for label in labels},
        warnings=_warnings(found, labels, len(frames) - len(chosen)),
        hints=hints(judged, truth, guess) if labels else [f"no labels to compare with; {_perhaps(found)}".rstrip("; ")],
        worst=worst_frames(judged, given, chosen, per_atom=per_atom),
        config_types=by_config_type(judged, given, lambda atoms, found: _means(*_arrays(atoms, found, per_atom))),
        labels=truth,
        predictions=guess,
    )


def _labels(found: Census, name: str, needed: bool = True) -> list[str]:
    """Return the labels that some frames have; DataError where there are none and they are needed, or NaN."""
    labels: list[str] = [label for label in LABELS if found.counts.get(label, 0)]
    if needed and not labels:
        advice = _perhaps(found) or "if there are any, name them by --energy-key and --forces-key"
        raise DataError(
            f"{name} has no labels in any of its {found.n_frames} frames: {found}; {advice}. To predict without "
            "comparing, give --predictions FILE.xyz alone"
        )
    # NaN labels would make every error NaN; a size that surprises is told, and for the eye to judge.
    found.refuse(labels, allow_implausible=True)
    return labels


def _perhaps(found: Census) -> str:
    """Options that name what may be the labels; empty where nothing may be."""
    others = [option for label, names in found.others.items() for option in (f"--{label}-key {n}" for n in names)]
    return f"perhaps {', '.join(others)}" if others else ""


def _warnings(found: Census, labels: Sequence[str], n_left_out: int) -> list[str]:
    told = [problem.text for problem in found.problems if problem.label in ("structure", *labels)]
    if n_left_out:
        told.append(f"{n_left_out} frames of one isolated atom are E0s and left out")
    return told


Arrays = dict[str, np.ndarray]


def _arrays(frames: Sequence[Atoms], results: Sequence[dict[str, Any]], per_atom: bool) -> tuple[Arrays, Arrays]:
    """Labels and predictions of all frames that have them, one array for each quantity."""
    truth: Arrays = {}
    guess: Arrays = {}
    pairs = list(zip(frames, results, strict=True))
    if some := [(a, r) for a, r in pairs if has_label(a, "energy")]:
        truth["energy"] = np.array([atoms.info["energy"] for atoms, _ in some], dtype=float)
        guess["energy"] = np.array([result["energy"] for _, result in some])
        if per_atom:
            sizes = np.array([len(atoms) for atoms, _ in some])
            truth["energy_per_atom"], guess["energy_per_atom"] = truth["energy"] / sizes, guess["energy"] / sizes
    if some := [(a, r) for a, r in pairs if has_label(a, "forces")]:
        truth["forces"] = np.concatenate([atoms.arrays["forces"] for atoms, _ in some])
        guess["forces"] = np.concatenate([result["forces"] for _, result in some])
    if some := [(a, r) for a, r in pairs if has_label(a, "stress") and r["stress"] is not None]:
        truth["stress"] = np.array([full_3x3_to_voigt_6_stress(atoms.info["stress"]) for atoms, _ in some])
        guess["stress"] = np.array([result["stress"] for _, result in some])
    return truth, guess


def _means(truth: Arrays, guess: Arrays) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """MAE, RMSE and mean error of each quantity, in thousandths of its unit."""
    differences = {key: 1000 * (guess[key] - truth[key]) for key in truth}
    return (
        {key: float(np.abs(d).mean()) for key, d in differences.items()},
        {key: float(np.sqrt((d**2).mean())) for key, d in differences.items()},
        {key: float(d.mean()) for key, d in differences.items()},
    )


def _curl(calculator: PIWSLCalculator, frames: Sequence[Atoms]) -> float:
    """Mean over frames spread evenly over the data; one at a time, because double derivatives take memory."""
    generator = torch.Generator().manual_seed(0)
    potential, curls = calculator.potential, []
    for index in evenly(len(frames), CURL_FRAMES):
        graph = graph_from_atoms(frames[index], potential.cutoff, device=calculator.device)
        curls.append(force_curl(potential, graph, generator=generator).item())
    return float(np.mean(curls))
