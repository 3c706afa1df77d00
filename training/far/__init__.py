"""Far-field training: structures that no data cover, labelled by a teacher, stay in the batches.

distance    how far a structure is from the data, and its weight, which is zero near them
sources     the structures: isolated dimers, torn and squeezed bonds, two-step copies, hot dynamics
level       the zero of the teacher's energies, moved to that of the data
make        all of it for a run, in its folder, resumable
"""

from __future__ import annotations

from training.far.level import TeacherLevel, open_level
from training.far.make import Far, make_far

__all__ = ["Far", "TeacherLevel", "make_far", "open_level"]
