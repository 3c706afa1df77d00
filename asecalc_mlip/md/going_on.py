"""Whether a run in a folder is the one that is asked for, and how far it has come."""

from __future__ import annotations

import os

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.analysis.references import Reference, load_reference
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import to_json
from asecalc_mlip.md.files import REFERENCE, RunFiles, stored_atoms
from asecalc_mlip.md.settings import MDSettings, continue_settings
from asecalc_mlip.md.summary import MDResult

__all__ = ["check_identity", "check_reference", "check_start", "ended_before", "ended_run", "settings_to_go_on"]

# What a run that goes on need not be given again as it was: its content decides, see `check_identity`, `check_start`.
_NAMES = ("model", "members", "structure")


def check_identity(stored: dict, now: dict) -> None:
    """Refuse to go on with another model than the run was begun with."""
    for name, value in now.items():
        if name in stored and stored[name] != value:
            raise InputError(
                f"the {name.replace('_', ' ')} is not the one this run was begun with: give the same file, or another "
                "--output for a new run"
            )


def check_reference(directory: str | os.PathLike, given: Reference | None) -> None:
    """Refuse to go on with another reference than the run in a folder was begun with; None: none was given."""
    files = RunFiles(directory)
    if given is None or not files.begun:
        return
    path = files.directory / REFERENCE
    if not path.exists() or to_json(load_reference(path).to_dict()) != to_json(given.to_dict()):
        raise InputError(
            f"the reference is not the one that the run in {directory} was begun with: leave --reference out, or give "
            "another --output for a new run"
        )


def ended_run(files: RunFiles, steps: int) -> dict | None:
    """Read the summary of a run that broke, or made all of `steps`; None where it can go on."""
    summary = files.summary()
    if summary is None or not files.begun:
        return None
    status, done = summary.get("status"), summary.get("steps_done", 0)
    return summary if status == "unstable" or (status == "finished" and done >= steps) else None


def ended_before(
    directory: str | os.PathLike, settings: MDSettings, identity: dict | None = None, *, start: Atoms | None = None
) -> MDResult | None:
    """Read what a run in a folder came to; None where it can go on, or there is none.

    Raises
    ------
    InputError
        The folder has a run with other settings or another model, or from another `start`, where that is given.
    """
    files = RunFiles(directory)
    if not files.begun:
        return None
    arrays, meta = files.load_restart()
    wanted = settings_to_go_on(meta, settings, identity or {})
    if start is not None:
        check_start(start, stored_atoms(arrays, meta), directory)
    summary = ended_run(files, wanted.steps)
    return None if summary is None else MDResult(summary, files.directory, had_ended=True)


def settings_to_go_on(meta: dict, settings: MDSettings, identity: dict) -> MDSettings:
    """Return settings of the run in a folder, if these go on with it."""
    check_identity(meta["identity"], identity)
    given = {name: value for name, value in settings.to_dict().items() if name not in _NAMES}
    if given["ramp_steps"] == given["steps"]:
        # The default, all steps. Those that were made had the ramp of the run, after which the temperature stays.
        del given["ramp_steps"]
    return continue_settings(meta["settings"], given)


def check_start(start: Atoms, stored: Atoms, directory: str | os.PathLike) -> None:
    """Refuse to go on with another start structure than the run was begun with."""
    same = [
        np.array_equal(start.numbers, stored.numbers),
        np.array_equal(start.positions, stored.positions),
        np.array_equal(start.cell.array, stored.cell.array),
        np.array_equal(start.pbc, stored.pbc),
        np.array_equal(fixed_atoms(start)[0], fixed_atoms(stored)[0]),
    ]
    if not all(same):
        raise InputError(
            f"the start structure is not the one of the run in {directory}: give the same one to continue that run, or "
            "another --output for a new run"
        )
