"""How far a teacher is from the labels, alone and with the networks that correct it, on frames that none has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.teachers import Labels, open_teacher
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.model import ModelTeacher
from benchmarks.studies.sparse_rows import DATA, Row, hot_file
from training.data.split import Split

__all__ = ["corrected_errors"]


def corrected_errors(row: Row, data_folder: Path, runs: Path) -> dict[str, Any] | None:
    """Return force errors on the test frames, meV/Å; None where the networks of a row are not there.

    Returns
    -------
    dict
        `teacher` alone, `networks` (each alone beside it) and `corrected` by their mean; `energies` (meV) of the last,
        less their mean.
    """
    hot = hot_file(row)
    place = runs / row.folder / "teacher" if hot is None else (runs / hot).with_suffix("")
    networks = sorted(place.glob("difference/*/network.pt"))
    if not networks:
        return None
    frames = _test_frames(row, data_folder, runs)
    teacher = open_teacher("xtb")
    alone = [labels for labels in teacher.label([bare(atoms) for atoms in frames]) if isinstance(labels, Labels)]
    reference = np.concatenate([atoms.arrays["forces"] for atoms in frames])
    energies = np.array([atoms.info["energy"] for atoms in frames])
    left = reference - np.concatenate([labels.forces for labels in alone])
    found = [_forces_and_energies(network.calculator.evaluate(frames)) for network in map(ModelTeacher, networks)]
    mean = np.mean([forces for forces, _ in found], axis=0)
    rest = energies - [labels.energy for labels in alone] - np.mean([energy for _, energy in found], axis=0)
    return {
        "frames": len(frames),
        "teacher": _meV(left),
        "networks": [_meV(left - forces) for forces, _ in found],
        "corrected": _meV(left - mean),
        "energies": _meV(rest - rest.mean()),
    }


def _test_frames(row: Row, data_folder: Path, runs: Path) -> list[Atoms]:
    """Return the frames of the test file, or those that the split of the training leaves over."""
    data = DATA[row.data]
    if data.test is not None:
        return read_frames(data_folder / data.test)
    frames = read_frames(data_folder / data.train)
    return [frames[k] for k in Split.load(runs / row.folder / "split.json", len(frames)).test]


def _forces_and_energies(results: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([r["forces"] for r in results]), np.array([r["energy"] for r in results])


def _meV(errors: np.ndarray) -> float:
    return round(1e3 * float(np.abs(errors).mean()), 2)
