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
        self._teachers: dict[tuple[int, int], AseTeacher] = {}
        self._of(options.charge, options.multiplicity or 1)  # tblite is there, or the error comes now

    def recipe(self) -> dict[str, Any]:
        """Return method and version, and charge and multiplicity where they are given for all structures."""
        return {"teacher": self.name, "tblite": f"v{version('tblite')}", **self.options.recipe()}

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order."""
        for atoms in structures:
            yield from self._of(self.options.charge_of(atoms), self.options.unpaired(atoms) + 1).label([atoms])

    def _of(self, charge: int, multiplicity: int) -> AseTeacher:
        """Return the teacher of a charge and a multiplicity, which tblite fixes when it is made."""
        if (charge, multiplicity) not in self._teachers:
            settings = XtbSettings(method=self.method, charge=charge, multiplicity=multiplicity)
            self._teachers[charge, multiplicity] = AseTeacher(self.name, xtb_calculator(settings))
        return self._teachers[charge, multiplicity]
