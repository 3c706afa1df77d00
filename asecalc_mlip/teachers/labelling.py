"""Label a list of structures by a teacher into a file that grows: resumable, with the failures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.data.label_files import LabelFile, open_label_file
from asecalc_mlip.data.labels import frame_name
from asecalc_mlip.data.readers import iter_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import append_json, read_json_lines
from asecalc_mlip.teachers.base import Failed, Labels, Teacher, labelled

__all__ = [
    "begin_again",
    "failures_file",
    "failures_of",
    "label_structures",
    "labelled_by",
    "open_labels",
    "record_failure",
]

# Structures that a teacher gets, and that are made, at a time.
AT_ONCE = 1000


def label_structures(
    structures: Sequence[Atoms],
    teacher: Teacher,
    output: str | Path,
    *,
    recipe: dict[str, Any] | None = None,
    progress: bool = True,
    again: bool = False,
) -> Path:
    """Write structures with energies, forces and stress of a teacher, or continue such a file.

    Each label is on the disk before the next begins. A structure that the teacher cannot label is left out; its number
    and the reason are in ``NAME.failed.jsonl`` beside the file, and it is not tried again.

    Parameters
    ----------
    structures : sequence of Atoms
        The same ones, in the same order, when a file is continued. One that makes them when they are asked for is asked
        for slices of 1000.
    teacher : Teacher
    output : path
        ``.xyz``, ``.extxyz`` or ``.db``; REF_energy (eV), REF_forces (eV/Å) and REF_stress (3×3, eV/Å³).
    recipe : dict, optional
        Plain values about the structures, written into each frame with what the teacher is.
    again : bool
        Try all structures again where an earlier call could label none of them, see `begin_again`.

    Raises
    ------
    InputError
        For a file of another recipe, and a disk that is full: the frames before are kept.
    """
    path = Path(output)
    file = open_labels(path, teacher, recipe)
    if again:
        begin_again(path)
    failed = failures_of(path)
    done = file.count() + len(failed)
    if done > len(structures):
        raise InputError(
            f"{path} has {done} structures, more than the {len(structures)} to label; choose another output"
        )
    with tqdm(total=len(structures), initial=done, unit="label", disable=None if progress else True) as bar:
        for number, (atoms, result) in _labels(structures, done, teacher):
            if isinstance(result, Failed):
                record_failure(path, number, atoms, result)
            else:
                file.append([labelled_by(teacher, atoms, result)])
            bar.update()
    return path


def open_labels(path: Path, teacher: Teacher, recipe: Mapping[str, Any] | None = None) -> LabelFile:
    """Open the file of labels of a teacher, new or old.

    Raises
    ------
    InputError
        As `open_label_file`, and for a file with labels of an older version that were computed in another way.
    """
    file = open_label_file(path, {**teacher.recipe(), **(recipe or {})})
    if hasattr(_innermost(teacher), "notes") and file.count():
        for atoms in iter_frames(path):
            if lacking := [
                f"{name} {value}" for name, value in _notes(teacher, atoms).items() if name not in atoms.info
            ]:
                raise InputError(
                    f"{path}: {frame_name(atoms)} ({atoms.get_chemical_formula()}) was labelled by an older version, "
                    f"without {', '.join(lacking)}, and its labels are wrong; choose another output, or remove it"
                )
    return file


def labelled_by(teacher: Teacher, atoms: Atoms, labels: Labels) -> Atoms:
    """Return a copy with labels, as `labelled`, and what the teacher says of this one alone."""
    frame = labelled(atoms, labels)
    frame.info.update(_notes(teacher, atoms))
    return frame


def _notes(teacher: Teacher, atoms: Atoms) -> dict[str, Any]:
    return _innermost(teacher).notes(atoms) if hasattr(_innermost(teacher), "notes") else {}


def _innermost(teacher: Any) -> Any:
    """Return the teacher that others are around."""
    while hasattr(teacher, "teacher"):
        teacher = teacher.teacher
    return teacher


def begin_again(path: str | Path) -> None:
    """Forget failures beside a file without any label: what failed is the teacher, such as a program that is missing.

    For callers that cannot go on without a label. Others have gone on, and failures must stay what they were.
    """
    path = Path(path)
    if failures_file(path).is_file() and not (path.is_file() and path.stat().st_size):
        failures_file(path).unlink()


def failures_of(path: str | Path) -> list[dict[str, Any]]:
    """Return the structures that a file of labels lacks: ``number``, ``formula`` and ``reason`` of each."""
    return read_json_lines(failures_file(Path(path)))


def _labels(
    structures: Sequence[Atoms], done: int, teacher: Teacher
) -> Iterator[tuple[int, tuple[Atoms, Labels | Failed]]]:
    for start in range(done, len(structures), AT_ONCE):
        some = structures[start : start + AT_ONCE]
        yield from enumerate(zip(some, teacher.label(some), strict=True), start=start)


def record_failure(path: Path, number: int, atoms: Atoms, failed: Failed) -> None:
    """Write number, formula and reason of a structure without labels beside a file."""
    entry = {"number": number, "formula": atoms.get_chemical_formula(), "reason": failed.reason}
    append_json(failures_file(path), entry)


def failures_file(path: Path) -> Path:
    """Return the file with the structures that a file of labels lacks."""
    return path.with_name(f"{path.stem}.failed.jsonl")
