"""A published model into the user's cache: its files downloaded or taken from a folder, checked, converted."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from asecalc_mlip.checkpoint import CheckpointError, load, save
from asecalc_mlip.data.downloads import download
from asecalc_mlip.digests import sha256_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_writable, replacing
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.zoo.catalogue import CATALOGUE, Published, cached, published
from asecalc_mlip.zoo.matgl import Converted, read_matgl

__all__ = ["convert_matgl", "get"]


def get(name: str, *, source: str | Path | None = None, progress: bool = True) -> Path:
    """Return the converted model file of the catalogue in the user's cache; what is there already is not made again.

    Parameters
    ----------
    name : str
    source : path, optional
        Folder that holds the files; without it they are downloaded.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError, CheckpointError
        For an unknown name, files that cannot be had, and files with another checksum than those of the catalogue.
    """
    model = published(name)
    target = cached(model)
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / model.folder
        folder.mkdir()
        for file, (sha256, _) in model.files.items():
            if source is None:
                _downloaded(model, file, folder / file, progress)
            else:
                _copied(Path(source) / file, folder / file, sha256)
        _write(target, read_matgl(folder), model)
    return target


def convert_matgl(folder: str | Path, output: str | Path) -> Path:
    """Convert a folder with state.pt and model.json, whatever its origin, into a model file.

    Weights that are not in the catalogue are converted with a warning: MatGL has changed at which atom messages are
    summed, and its files do not say so.
    """
    check_writable(output)
    converted = read_matgl(folder)
    _write(Path(output), converted, None)
    if converted.card["sha256"]["state.pt"] not in {model.files["state.pt"][0] for model in CATALOGUE}:
        LOGGER.warning(
            "these weights are not among those whose energies were compared with MatGL. Since 2026 MatGL sums messages "
            "at the other atom of a pair, and weights that were trained so give wrong energies here: compare the "
            "energy of a structure with that of MatGL"
        )
    return Path(output)


def _downloaded(model: Published, file: str, target: Path, progress: bool) -> None:
    sha256, size = model.files[file]
    try:
        download(model.url(file), target, page=model.page, progress=progress, sha256=sha256, most=size)
    except InputError as error:
        raise InputError(
            f"{model.url(file)} could not be loaded ({error.__cause__}). Fetch {' and '.join(model.files)} by hand "
            f"(page: {model.page}) into a folder, then: asecalc zoo get {model.name} --from FOLDER"
        ) from None


def _copied(source: Path, target: Path, sha256: str) -> None:
    if not source.is_file():
        raise InputError(f"{source}: no such file; give the folder that holds state.pt and model.json")
    shutil.copy(source, target)
    if sha256_of(target) != sha256:
        raise InputError(f"{source} is not the published file (SHA-256 differs); convert it by: asecalc convert matgl")


def _write(target: Path, converted: Converted, model: Published | None) -> None:
    card = dict(converted.card)
    if model is not None:
        card |= {
            "name": model.name,
            "level_of_theory": model.level,
            "published_errors": model.errors,
            "licence": model.licence,
            "citation": model.cite,
        }
    with replacing(target) as part:
        save(part, converted.potential, card=card, reference_energies=converted.reference_energies)
        try:
            load(part)  # weights that no calculator takes are told here
        except CheckpointError as error:
            raise CheckpointError(f"{card['name']} of MatGL makes no model that can be used: {error}") from None
