"""Teachers: cheap or exact physics that labels structures, named by one text.

    xtb, xtb:GFN1-xTB        GFN2-xTB and GFN1-xTB by tblite
    pyscf:PBE/def2-SVP       density functional theory by PySCF
    silica_eam.pt            a model file: an embedded-atom potential, a foundation model, any .pt
    my_vasp.py:calculator    an ASE calculator, or a function that makes one, from a Python file

A teacher is what `asecalc learn --labels`, ``pretrain.teacher`` and ``finetune.teacher`` name. Each labels structures
one by one or in batches, says what it is for the card, and tells of a structure that it cannot label instead of
ending the run.
"""

from __future__ import annotations

from asecalc_mlip.teachers.base import Failed, Labels, Teacher, TeacherOptions
from asecalc_mlip.teachers.naming import open_teacher

__all__ = ["Failed", "Labels", "Teacher", "TeacherOptions", "open_teacher"]
