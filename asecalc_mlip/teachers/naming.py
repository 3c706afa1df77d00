"""From the name of a teacher to the teacher; a new kind is one row of `KINDS` or a new ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asecalc_mlip.errors import CheckpointError, InputError
from asecalc_mlip.teachers.base import Teacher, TeacherOptions

__all__ = ["KINDS", "open_teacher", "with_whole_path"]

ADVICE = (
    "give xtb, pyscf:PBE/def2-SVP, a model file such as silica_eam.pt, or an ASE calculator from a Python file, "
    "my_vasp.py:calculator"
)


def open_teacher(name: str, options: TeacherOptions | None = None, *, device: str = "auto") -> Teacher:
    """Open the teacher of a name.

    Parameters
    ----------
    name : str
        See `asecalc_mlip.teachers`.
    options : TeacherOptions, optional
        Charge and multiplicity.
    device : str
        Of a model, as `PIWSLCalculator.load` takes it.

    Raises
    ------
    InputError
        For a name that says nothing, a package that is not installed, a file that cannot be used, and a charge or
        multiplicity that the teacher would not know of.
    """
    options = options or TeacherOptions()
    kind, _, rest = str(name).partition(":")
    if kind in KINDS:
        return KINDS[kind](rest, options)
    if options != TeacherOptions():
        raise InputError(
            f"--charge and --multiplicity are for xtb and pyscf; {name} gets elements and positions alone: leave them "
            "out, and set them in the calculator where that has them"
        )
    if Path(kind).suffix == ".py":
        from asecalc_mlip.teachers.python_file import from_python_file

        return from_python_file(Path(kind), rest or "calculator")
    if name and not rest:
        from asecalc_mlip.teachers.model import ModelTeacher

        try:
            return ModelTeacher(name, device=device)
        except CheckpointError as error:
            raise InputError(f"{error}. Other sources of labels: {ADVICE}") from None
    raise InputError(f"{name!r} names no teacher; {ADVICE}")


def with_whole_path(name: str) -> str:
    """Return the name of a teacher for a process in another folder."""
    kind, colon, rest = name.partition(":")
    path = Path(kind)
    return name if kind in KINDS or not path.is_file() else f"{path.resolve()}{colon}{rest}"


def _xtb(method: str, options: TeacherOptions) -> Teacher:
    from asecalc_mlip.teachers.xtb import XtbTeacher

    return XtbTeacher(method or "GFN2-xTB", options)


def _pyscf(level: str, options: TeacherOptions) -> Teacher:
    from asecalc_mlip.teachers.pyscf import PyscfTeacher

    return PyscfTeacher(level, options)


KINDS: dict[str, Callable[[str, TeacherOptions], Teacher]] = {"xtb": _xtb, "pyscf": _pyscf}
