"""Structures of a learning: those of the start, those near a failure, and which of them no labeller should see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.data import covalent_radii

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_structures
from asecalc_mlip.md.failures import UNCERTAIN
from asecalc_mlip.md.files import TRAJECTORY, UNSTABLE
from asecalc_mlip.md.fixed import only_fixed, refuse_constraints
from asecalc_mlip.neighbors.pairs import pairs_within
from asecalc_mlip.teachers.bare import bare, with_state
from training.learn.settings import LearnSettings
from training.learn.state import seed_of

__all__ = ["Candidate", "candidates_of", "check_starts", "first_structures", "is_physical"]

OVERLAP = 0.5
"""Of the sum of the covalent radii: below it frames are for the far-field teacher, if there is one, and no labeller."""
STIFFNESS = 8.0  # eV/Å², of a bond that is neither stiff nor soft
# Frames before the one in question, in intervals: the way into a failure.
BEFORE_UNCERTAIN, BEFORE_BROKEN = (2, 5), (0, 2, 5, 10)


@dataclass(frozen=True)
class Candidate:
    """A structure that could be labelled.

    Attributes
    ----------
    atoms : Atoms
    reason : str
        Why: the failure of its run, and how many steps before it the frame is.
    run : int
        Number of the replica; -1 of the start.
    time_ps : float
    spread : float or None
        Of the committee at the failure, eV/Å.
    """

    atoms: Atoms
    reason: str
    run: int = -1
    time_ps: float = 0.0
    spread: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what is told about it, without the structure."""
        return {"reason": self.reason, "run": self.run, "time_ps": self.time_ps, "spread": self.spread}


def first_structures(starts: Sequence[Atoms], settings: LearnSettings, number: int) -> list[Candidate]:
    """Return the structures of the first labels: the start structures, then rattled ones, from little to strong.

    The largest displacements are those of a bond at 1.5 times the temperature: its length changes by √(k_B T / k), and
    it has two atoms, so each moves by σ = √(k_B T / 2k). Fixed atoms stay, as in the dynamics.
    """
    found = [Candidate(bare(atoms), "start structure") for atoms in starts[:number]]
    sigma = math.sqrt(units.kB * _highest(settings) / (2 * STIFFNESS))
    more = number - len(found)
    for k in range(more):
        rng = np.random.default_rng(seed_of(settings, 0, k, 3))
        start = starts[k % len(starts)]
        atoms, mobile = bare(start), ~fixed_atoms(start)[0]
        scale = sigma * (0.3 + 0.92 * k / max(1, more - 1))
        atoms.positions += rng.normal(scale=scale, size=atoms.positions.shape) * mobile[:, None]
        if atoms.pbc.all() and settings.pressure_GPa is not None:
            strain = np.eye(3) + _symmetric(rng.normal(scale=0.01, size=(3, 3)))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        found.append(Candidate(atoms, f"rattled by {scale:.3f} Å"))
    return [one for one in found if is_physical(one.atoms)]


def candidates_of(runs: Sequence[dict[str, Any] | None], folder: Path, starts: Sequence[Atoms]) -> list[Candidate]:
    """Return the frames in question of the runs of a round, and some before them, in the order of the runs.

    Trajectories have no magnetic moments and charges: those are of the start structures, which the runs take in turn.
    """
    found = []
    for number, summary in enumerate(runs):
        if summary is None or summary["failure"] is None:
            continue
        found += _near(summary, number, folder / f"replica{number:03d}", starts[number % len(starts)])
    return found


def is_physical(atoms: Atoms) -> bool:
    """Tell whether a structure is for a labeller: finite, and no two atoms within half of their covalent radii."""
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return False
    radii = covalent_radii[atoms.numbers]
    try:
        i, j, d = pairs_within(atoms, 2 * OVERLAP * float(radii.max()))
    except InputError:  # torn apart, or a cell without room
        return False
    return not bool((d < OVERLAP * (radii[i] + radii[j])).any())


def check_starts(starts: Sequence[Atoms], settings: LearnSettings) -> list[Atoms]:
    """Return the start structures without what a label does not depend on, but with their fixed atoms.

    Raises
    ------
    InputError
        For none, isolated atoms, atoms on top of each other, constraints other than FixAtoms, and FixAtoms where the
        cell moves.
    """
    if not starts:
        raise InputError("there is no structure to start from; name a file with one")
    for number, atoms in enumerate(starts):
        if len(atoms) < 2:
            raise InputError(f"start structure {number} has {len(atoms)} atoms; expected a molecule or a crystal")
        if not is_physical(atoms):
            raise InputError(f"start structure {number} has atoms on top of each other, or no numbers; repair it")
    return [_with_fixed(atoms, settings) for atoms in starts]


def _with_fixed(atoms: Atoms, settings: LearnSettings) -> Atoms:
    if settings.pressure_GPa is not None:
        what = "constant pressure moves all atoms with the cell, also those that are fixed"
        refuse_constraints(atoms, what, "leave --pressure out, or save the structure without them")
    copy, fixed = bare(atoms), only_fixed(atoms)
    if fixed.any():
        copy.set_constraint(FixAtoms(np.flatnonzero(fixed)))
    return copy


def _near(summary: dict[str, Any], number: int, folder: Path, start: Atoms) -> list[Candidate]:
    """Return the frames of one run that failed: the one in question first."""
    failure = summary["failure"]
    unsure = failure["kind"] == UNCERTAIN
    before = BEFORE_UNCERTAIN if unsure else BEFORE_BROKEN
    frames = read_structures(folder / TRAJECTORY, index=f"-{max(before) + 1}:")
    interval_ps = summary["settings"]["interval"] * summary["settings"]["timestep_fs"] * 1e-3
    brief, time_ps, spread = failure["brief"], failure["time_ps"], failure["value"] if unsure else None
    found = []

    def stated(atoms: Atoms) -> Atoms:
        return with_state(bare(atoms), start)

    if unsure:
        found.append(Candidate(stated(frames[-1]), brief, number, time_ps, spread))
    elif (folder / UNSTABLE).is_file():
        found.append(Candidate(stated(read_structures(folder / UNSTABLE)[0]), brief, number, time_ps))
    for back in before:
        if back < len(frames):
            last = time_ps if unsure else summary["stable_ps"]
            when = last - back * interval_ps
            reason = f"{1e3 * (time_ps - when):.0f} fs before: {brief}"
            found.append(Candidate(stated(frames[-1 - back]), reason, number, round(when, 6)))
    return found


def _highest(settings: LearnSettings) -> float:
    return max(settings.temperature_K, settings.temperature_end_K or 0.0)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + matrix.T)
