"""The shipped models, their structures and references; each is found by its name.

>>> from asecalc_mlip import zoo
>>> atoms = zoo.structure("aspirin")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asecalc_mlip.errors import CheckpointError, InputError
from asecalc_mlip.zoo.catalogue import Published, cached, published

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["FOLDER", "beside", "find", "models", "structure"]

FOLDER = Path(__file__).parent
REFERENCE = ".reference.json"


def models() -> list[str]:
    """Return the names of the shipped model files."""
    return sorted(file.name for file in FOLDER.glob("*.pt"))


def structure(name: str) -> Atoms:
    """Read the structure that a shipped model was made for: "aspirin", "ethanol", "silica".

    Raises
    ------
    InputError
        For another name.
    """
    from asecalc_mlip.files import read_structure

    path = FOLDER / f"{name.removesuffix('.pt').removesuffix('.xyz')}.xyz"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.xyz")))
        raise InputError(f"there is no shipped structure {name!r}; there are {known}")
    return read_structure(path)


def find(path: str | Path) -> Path:
    """Return the model file itself if it exists, else the shipped or published model of that name, with or without .pt.

    Published models are those of `asecalc zoo`, once they are in the user's cache.

    Raises
    ------
    CheckpointError
        Where there is none; for a published model that is not there yet the message says which command gets it.
    """
    path = Path(path)
    candidates = [path, FOLDER / path.name, FOLDER / f"{path.name}.pt"]
    for candidate in candidates[: 1 if len(path.parts) > 1 else None]:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give the model file in it, {_models_in(path)}")
    known = _published(path)
    if known is not None and cached(known).is_file():
        return cached(known)
    shipped = ", ".join(models()) or "none"
    how = f"; get it with: asecalc zoo get {known.name}" if known else f"; shipped models: {shipped}"
    raise CheckpointError(f"model file {str(path)!r} does not exist in {Path.cwd()}{how}")


def _models_in(folder: Path) -> str:
    """Name the model files in a folder."""
    return ", ".join(sorted(file.name for file in folder.glob("*.pt"))[:5]) or "which has no .pt"


def _published(path: Path) -> Published | None:
    try:
        return published(path.name) if len(path.parts) == 1 else None
    except InputError:
        return None


def beside(model: str | Path | None, suffix: str) -> Path | None:
    """Return the file that comes with a model (aspirin.xyz beside aspirin.pt), else the shipped one, or None."""
    if model is None:
        return None
    path = Path(model)
    for folder in (path.parent, FOLDER):
        found = folder / (path.stem + suffix)
        if found.is_file():
            return found
    return None
