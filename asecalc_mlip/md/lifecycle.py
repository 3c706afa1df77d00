"""Start a run, or continue one: what the scripts, benchmarks and campaigns call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.reference import MoleculeReference
from asecalc_mlip.analysis.references import load_reference
from asecalc_mlip.errors import InputError
from asecalc_mlip.md import files as names
from asecalc_mlip.md.files import RunFiles, stored_atoms
from asecalc_mlip.md.run import MDRun, Reference, RunState, force_limit, log_columns
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.thermostats import (
    maxwell_boltzmann,
    refuse_constraints,
)

__all__ = ["MDRun", "RunState", "continue_run", "force_limit", "log_columns", "prepare_run", "start_run", "stored_run"]


def start_run(
    atoms: Atoms,
    settings: MDSettings,
    output: str,
    *,
    reference: Reference | None = None,
    identity: dict | None = None,
    progress: bool | None = False,
) -> dict:
    """Start a run of `atoms` (with any ASE calculator attached) and run it to its end.

    Parameters
    ----------
    atoms : start structure with a calculator; it is moved. Existing momenta are replaced by Maxwell-Boltzmann ones.
    settings : see `MDSettings`
    output : directory for the files of the run; must not have a run in it
    reference : MoleculeReference for the bond rule and h(r), PeriodicReference for g(r); None: bonds of the start
        structure (molecules), nothing (periodic)
    identity : what a restart must find unchanged (hashes of model and structure)
    progress : True: progress bar; None: only on a terminal; False: none

    Returns
    -------
    The summary, as in summary.json.

    Raises
    ------
    InputError
        The directory has a run, the structure is broken or has constraints, the disk is full.
    """
    run = prepare_run(atoms, settings, output, reference=reference, identity=identity)
    run.check_start()
    run.files.start(log_columns(settings))
    with run.files.lock():
        run.begin()
        return run.run(progress)


def prepare_run(
    atoms: Atoms,
    settings: MDSettings,
    output: str | Path,
    *,
    reference: Reference | None = None,
    identity: dict | None = None,
    kind: type[MDRun] | None = None,
) -> MDRun:
    """A run with its initial velocities, before anything is written; arguments and errors as for `start_run`."""
    run_files = RunFiles(output)
    run_files.check_free()
    refuse_constraints(atoms)
    rng = np.random.default_rng(settings.seed)
    maxwell_boltzmann(atoms, settings.temperature_K, rng)
    if reference is None and not atoms.pbc.any():
        reference = MoleculeReference.from_frames(atoms, "start structure")
    return (kind or MDRun)(atoms, settings, run_files, reference, identity or {}, rng, atoms.copy())


def continue_run(
    calculator,
    settings: MDSettings,
    output: str,
    *,
    identity: dict | None = None,
    progress: bool | None = False,
) -> dict:
    """Continue the run in `output` exactly where its restart file says; see `start_run`.

    Raises
    ------
    InputError
        No restart file, a damaged one, files that were changed, another model than before.
    """
    run, arrays, meta = stored_run(calculator, settings, output, identity=identity)
    with run.files.lock():
        run.restore(arrays, meta)
        return run.run(progress)


def stored_run(
    calculator,
    settings: MDSettings | None,
    output: str | Path,
    *,
    identity: dict | None = None,
    kind: type[MDRun] | None = None,
) -> tuple[MDRun, dict[str, np.ndarray], dict]:
    """A run as its restart file has it, for `MDRun.restore`, with what the file holds; errors as `continue_run`.

    `settings` None: those of the file.
    """
    run_files = RunFiles(output)
    arrays, meta = run_files.load_restart()
    _check_identity(meta["identity"], identity or {})
    start = stored_atoms(arrays, meta)
    path = run_files.path(names.REFERENCE)
    reference = load_reference(path) if path.exists() else None
    atoms = start.copy()
    atoms.calc = calculator
    atoms.set_cell(arrays["cell"])
    atoms.positions[:] = arrays["positions"]
    atoms.set_momenta(arrays["momenta"])
    settings = settings or MDSettings(**meta["settings"])
    rng = np.random.default_rng()
    return (kind or MDRun)(atoms, settings, run_files, reference, meta["identity"], rng, start), arrays, meta


def _check_identity(stored: dict, now: dict) -> None:
    """Refuse a restart with another model or structure file than the run was started with."""
    for name, value in now.items():
        if name in stored and stored[name] != value:
            raise InputError(
                f"The {name.replace('_', ' ')} is not the one this run was started with, and a restart continues the "
                "same run: give the same file, or start a new run in another --output."
            )
