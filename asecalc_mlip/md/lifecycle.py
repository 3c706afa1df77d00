"""Begin a run or go on with one, in one call: what notebooks, commands and studies use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from asecalc_mlip.analysis.references import Reference, load_reference
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.files import REFERENCE, RunFiles, stored_atoms
from asecalc_mlip.md.going_on import check_identity, ended_run
from asecalc_mlip.md.resolving import resolve
from asecalc_mlip.md.run import MDRun
from asecalc_mlip.md.settings import MDSettings, continue_settings
from asecalc_mlip.md.summary import MDResult

# Settings that name files, whose content decides.
MODELS = ("model", "members")
__all__ = ["continue_run", "folder_for", "run_md", "stored_run"]


def run_md(
    atoms: Atoms,
    settings: MDSettings,
    output: str | os.PathLike,
    *,
    reference: Reference | None = None,
    identity: dict | None = None,
    progress: bool | None = False,
) -> MDResult:
    """Run molecular dynamics of `atoms` to its end; a run of the same settings in `output` goes on.

    Parameters
    ----------
    atoms : Atoms
        Start structure with any ASE calculator; it is moved. Momenta are replaced by Maxwell-Boltzmann ones.
    settings : MDSettings
    output : path
        Folder for the files of the run.
    reference, identity
        As for `MDRun`.
    progress : bool or None
        True: a progress bar; None: only on a terminal; False: none.

    Raises
    ------
    InputError
        As `MDRun.run`.
    """
    return MDRun(atoms, settings, output, reference=reference, identity=identity).run(progress)


def continue_run(
    output: str | os.PathLike,
    calculator: Any = None,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    device: str = "auto",
    progress: bool | None = False,
    identity: dict | None = None,
    **given: Any,
) -> MDResult:
    """Go on with the run in `output` exactly where its restart file says.

    Parameters
    ----------
    output : path
    calculator : ASE calculator, optional
        By default one of the model of the run.
    model : path or str, or several, optional
        Where the model file is now, if it was moved, or those of a committee; their content must be the same.
    device : str
        "auto", "cpu", "cuda".
    progress : bool or None
        As for `run_md`.
    identity : dict, optional
        As for `MDRun`; by default the digest of the model file, if there is one.
    **given
        Fields of `MDSettings`, which must be those of the run; `steps` may be more.

    Raises
    ------
    InputError
        No restart file, a damaged one, files that were changed, another model than before, other settings.
    """
    files = RunFiles(output)
    meta = files.load_restart()[1]
    settings = continue_settings(meta["settings"], given)
    found = resolve(model) if model is not None and calculator is None else None
    if found is not None:
        check_identity(meta["identity"], found.identity)
    ended = ended_run(files, settings.steps)
    if ended is not None:
        return MDResult(ended, files.directory, had_ended=True)
    if calculator is None:
        found = found or resolve([settings.model, *(settings.members or [])])
        identity = found.identity if identity is None else identity
        check_identity(meta["identity"], identity)
        calculator = found.calculator_for(settings, device=device)
    return stored_run(calculator, settings, output, identity=identity).run(progress)


def stored_run(
    calculator: Any,
    settings: MDSettings | None,
    output: str | os.PathLike,
    *,
    identity: dict | None = None,
    kind: type[MDRun] = MDRun,
) -> MDRun:
    """Open a run that was begun in `output`, for `run` or `resume`; settings None: those of its restart file."""
    arrays, meta = RunFiles(output).load_restart()
    atoms = stored_atoms(arrays, meta)
    atoms.calc = calculator
    path = Path(output) / REFERENCE
    reference = load_reference(path) if path.exists() else None
    settings = settings or MDSettings(**meta["settings"])
    return kind(atoms, settings, output, reference=reference, identity=identity)


def folder_for(settings: MDSettings, identity: dict | None = None) -> Path:
    """Name the folder of a run by its settings: the one that has a run with the same settings, or the next free one."""
    names = [Path(name).stem[:60] for name in (settings.model, settings.structure) if name]
    if settings.members:
        names[0] += f"+{len(settings.members)}"
    stem = f"{settings.ensemble}-{'-'.join(names)}-{settings.temperature_K:g}K-seed{settings.seed}"
    number, folder = 1, Path(stem)
    while folder.exists() and not _is_same(RunFiles(folder), settings, identity or {}):
        number += 1
        folder = Path(f"{stem}-{number}")
    return folder


def _is_same(files: RunFiles, settings: MDSettings, identity: dict) -> bool:
    """Whether a folder has a run that differs in no setting, the model file included."""
    if not files.begun:
        return False
    try:
        meta = files.load_restart()[1]
        check_identity(meta["identity"], identity)
    except InputError:
        return False
    stored = meta["settings"]
    return all(stored.get(name) == value for name, value in settings.to_dict().items() if name not in MODELS)
