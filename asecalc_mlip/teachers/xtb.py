"""GFN2-xTB and GFN1-xTB as teachers, by tblite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, cast, get_args

from ase import Atoms

from asecalc_mlip.data.xtb import Method, XtbSettings, xtb_calculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.teachers.base import AseTeacher, Failed, Labels, TeacherOptions

__all__ = ["XtbTeacher"]


class XtbTeacher:
    """Labels by GFN2-xTB: main-group molecules and solids, milliseconds for a structure of 20 atoms.

    Source: Bannwarth, Ehlert, Grimme, JCTC 15 (2019) 1652.

    Parameters
    ----------
    method : {"GFN2-xTB", "GFN1-xTB"}
    options : TeacherOptions
    """

    def __init__(self, method: str, options: TeacherOptions):
        if method not in get_args(Method):
            raise InputError(f"xtb has no method {method!r}; allowed: {', '.join(get_args(Method))}")
        self.name, self.options = method, options
        self.method = cast(Method, method)
        self._teachers: dict[int, AseTeacher] = {}
        self._of(1 if options.multiplicity is None else options.multiplicity)  # tblite is there, or the error comes now

    def recipe(self) -> dict[str, Any]:
        """Return method, version, charge and multiplicity."""
        spin = {} if self.options.multiplicity is None else {"multiplicity": self.options.multiplicity}
        return {"teacher": self.name, "tblite": f"v{version('tblite')}", "charge": self.options.charge, **spin}

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order."""
        for atoms in structures:
            yield from self._of(self.options.unpaired(atoms) + 1).label([atoms])

    def _of(self, multiplicity: int) -> AseTeacher:
        """Return the teacher of a multiplicity, which tblite fixes when it is made."""
        if multiplicity not in self._teachers:
            settings = XtbSettings(method=self.method, charge=self.options.charge, multiplicity=multiplicity)
            self._teachers[multiplicity] = AseTeacher(self.name, xtb_calculator(settings))
        return self._teachers[multiplicity]
