"""Fetch the public MD17 and revised MD17 sets and write them as extended XYZ in eV and Å.

A download stays in the folder of the results and is used again, also when it was put there by hand. A file is only ever
there complete: it is loaded under another name and renamed at the end.

Sources: rMD17, Christensen and von Lilienfeld 2020, doi 10.6084/m9.figshare.12672038, CC0, PBE/def2-SVP;
MD17, Chmiela et al. 2017, sgdml.org, PBE+vdW-TS.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.data.convert import write_reference
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.digests import wrong_checksum
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import replacing, write_text
from asecalc_mlip.locks import locked_file

DataSet = Literal["rmd17", "md17"]
# SchNetPack keeps this address inside a method, so it stands here; the names of the files come from SchNetPack.
RMD17_URL = "https://figshare.com/ndownloader/files/23950376"
RMD17_ARCHIVE = "rmd17.tar.bz2"
RMD17_PAGE = "https://doi.org/10.6084/m9.figshare.12672038"
MD17_PAGE = "http://www.sgdml.org/#datasets"
ARRAYS_BY_FRAME = ("coords", "energies", "forces", "old_indices", "old_energies", "old_forces", "R", "E", "F")
CHUNK = 1 << 20
TIMEOUT_S = 30.0
NO_SUCH_RANGE = 416


@dataclass(frozen=True)
class Source:
    """Where one molecule is found.

    Attributes
    ----------
    url : str
        What is fetched.
    file : str
        Its name in the folder.
    member : str or None
        Path of the .npz in it, if it is an archive.
    page : str
        Where people find it.
    """

    url: str
    file: str
    member: str | None
    page: str


def molecules(data_set: DataSet = "rmd17") -> dict[str, str]:
    """Return the molecules of a data set and the names of their .npz files."""
    return dict(_schnetpack(data_set).datasets_dict)


def source(molecule: str, data_set: DataSet = "rmd17") -> Source:
    """Tell where a molecule is found.

    Raises
    ------
    InputError
        For a molecule that the set does not have.
    """
    known = molecules(data_set)
    if molecule not in known:
        raise InputError(f"{data_set} has no molecule {molecule!r}; it has {', '.join(sorted(known))}")
    if data_set == "rmd17":
        return Source(RMD17_URL, RMD17_ARCHIVE, f"rmd17/npz_data/{known[molecule]}", RMD17_PAGE)
    return Source(_schnetpack(data_set).download_url + known[molecule], known[molecule], None, MD17_PAGE)


def fetch_molecule(
    molecule: str,
    folder: str | Path = ".",
    *,
    data_set: DataSet = "rmd17",
    n_frames: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Path, Path]:
    """Write a training and a test file of `n_frames` each, with no frame in both.

    Parameters
    ----------
    molecule : str
        E.g. ``aspirin``; see `molecules`.
    folder : path
        For the two files and for what is downloaded; made if it does not exist.
    data_set : {"rmd17", "md17"}
        ``rmd17`` (labels computed anew, without noise) or ``md17``.
    n_frames : int
        Frames of each file; 1000 is the custom, as more frames of one trajectory repeat each other.
    seed : int
        Of the random choice of frames.

    Returns
    -------
    tuple of Path
        ``<data_set>_<molecule>_train.xyz`` and ``…_test.xyz``, with REF_energy (eV), REF_forces (eV/Å), and the number
        of the frame in the original MD17 trajectory as ``md17_index``.

    Raises
    ------
    InputError
        Unknown molecule, a file that exists, too many frames, no network (the message says what to fetch by hand).
    DataError
        The download is damaged.
    """
    where, folder = source(molecule, data_set), Path(folder)
    targets = tuple(folder / f"{data_set}_{molecule}_{part}.xyz" for part in ("train", "test"))
    for target in targets:
        if target.exists():
            raise InputError(f"{target} exists already and is not replaced. Remove it, or give another folder")
    _make_folder(folder)
    local = folder / where.file
    if not local.exists():
        download(where.url, local, page=where.page, progress=progress)
    arrays = _load_arrays(local, where.member)
    train, test = _draw(arrays, n_frames, seed, f"{data_set} {molecule}")
    for target, rows in zip(targets, (train, test), strict=True):
        write_reference(target, _frames(arrays, rows))
    return targets[0], targets[1]


def download(
    url: str,
    target: Path,
    *,
    page: str,
    progress: bool = True,
    sha256: str | None = None,
    md5: str | None = None,
    most: int | None = None,
    resume: bool = False,
) -> None:
    """Load a file, whole or not at all.

    Parameters
    ----------
    url : str
    target : path
    page : str
        Where people find the file.
    progress : bool
        Show a progress bar.
    sha256 : str, optional
        Of the content, or its beginning; only by https then.
    md5 : str, optional
        Of the content, where an archive publishes nothing better: it tells damage, and no forgery.
    most : int, optional
        Bytes after which the file is not the one that is wanted.
    resume : bool
        Keep what was loaded beside `target` as NAME.part when the connection ends, and go on from there at the next
        call, if the server says that its file is still the same.

    Raises
    ------
    InputError
        No network or no space; the message says what to fetch by hand and where to put it. Another process that loads
        the same file.
    """
    if sha256 is not None and not url.startswith("https://"):
        raise InputError(f"{url} is not loaded: models come by https only")
    kept = target.with_name(f"{target.name}.part")
    # Two processes that both go on with what was kept would write it twice, one behind the other.
    with replacing(target) as partial, locked_file(kept) if resume else nullcontext():
        try:
            if resume:
                try:
                    _load_rest(url, kept, target.name, progress, most)
                except HTTPError as error:
                    if error.code != NO_SUCH_RANGE or not kept.exists():
                        raise
                    # Killed when it had all, or more than there is: from the beginning.
                    kept.unlink()
                    _load_rest(url, kept, target.name, progress, most)
                os.replace(kept, partial)
            else:
                _load(url, partial, target.name, progress, most)
            if wrong := wrong_checksum(partial, sha256=sha256, md5=md5):
                raise OSError(f"its {wrong} is not that of the published file")
        except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
            again = f". {kept.name} keeps what was loaded" if kept.exists() else ""
            raise InputError(
                f"{url} could not be loaded ({error}){again}. Fetch it by hand (page: {page}), save it as {target}, "
                "and run the same command again"
            ) from error


def _load(url: str, target: Path, name: str, progress: bool, most: int | None) -> None:
    with _opened(url, {}) as answer:
        expected = int(answer.headers.get("Content-Length") or 0)
        with open(target, "wb") as file:
            done = _copy(answer, file, expected, name, progress, most)
    if expected and done != expected:
        raise OSError(f"the connection ended after {done} of {expected} bytes")


def _load_rest(url: str, kept: Path, name: str, progress: bool, most: int | None) -> None:
    """Load what a file that was kept lacks; which version of the file it is a part of stands in NAME.part.tag."""
    tag = kept.with_name(f"{kept.name}.tag")
    have = kept.stat().st_size if kept.exists() and tag.exists() else 0
    # With If-Range a server sends the whole file where it is another one by now.
    asked = {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="utf-8")} if have else {}
    with _opened(url, asked) as answer:
        whole = int(answer.headers.get("Content-Length") or 0)
        goes_on = have > 0 and getattr(answer, "status", 200) == 206
        if goes_on and not (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            raise OSError("the server sent another part than was asked for")
        version = answer.headers.get("ETag") or ""
        if version and not version.startswith("W/"):
            write_text(tag, version)
        else:
            tag.unlink(missing_ok=True)  # it cannot be gone on with
        start = have if goes_on else 0
        with open(kept, "ab" if goes_on else "wb") as file:
            done = start + _copy(answer, file, whole, name, progress, None if most is None else most - start)
    if whole and done != start + whole:
        raise OSError(f"the connection ended after {done} of {start + whole} bytes")
    tag.unlink(missing_ok=True)


def _opened(url: str, headers: dict[str, str]) -> Any:
    return urlopen(Request(url, headers={"User-Agent": "asecalc-mlip", **headers}), timeout=TIMEOUT_S)


def _copy(answer: IO[bytes], file: IO[bytes], expected: int, name: str, progress: bool, most: int | None = None) -> int:
    done = 0
    with tqdm(total=expected or None, unit="B", unit_scale=True, desc=name, disable=None if progress else True) as bar:
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            if most is not None and done > most:
                raise OSError(f"it has more than the {most} bytes of the published file")
            bar.update(len(chunk))
    return done


def _load_arrays(path: Path, member: str | None) -> dict[str, np.ndarray]:
    """Numeric arrays of a .npz that is a file of its own or a member of a tar archive."""
    try:
        content = path if member is None else io.BytesIO(_read_member(path, member))
        with np.load(content, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if archive[name].dtype.kind in "iuf"}
    except (OSError, ValueError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is damaged or not what it should be ({error}). Remove it and run the same command again"
        ) from error


def _read_member(path: Path, member: str) -> bytes:
    """One file of a tar archive, in memory: nothing is unpacked to a place that the archive chooses."""
    with tarfile.open(path) as archive:
        for entry in archive:
            if entry.isfile() and entry.name.removeprefix("./") == member:
                file = archive.extractfile(entry)
                assert file is not None  # it is a regular file
                return file.read()
    raise KeyError(f"it has no {member}")


def _draw(arrays: dict[str, np.ndarray], n_frames: int, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for testing, in the order of the file."""
    key = next((key for key in ("coords", "R") if key in arrays), None)
    if key is None:
        raise DataError(f"{name}: the archive has the arrays {sorted(arrays)}, none of them coordinates (coords, R)")
    total = len(arrays[key])
    if not 1 <= n_frames <= total // 2:
        raise InputError(
            f"{name} has {total} frames: 1 to {total // 2} each for training and test can be, not {n_frames}"
        )
    rows = np.random.default_rng(seed).permutation(total)[: 2 * n_frames]
    return np.sort(rows[:n_frames]), np.sort(rows[n_frames:])


def _frames(arrays: dict[str, np.ndarray], rows: np.ndarray) -> list[Atoms]:
    """Return the chosen rows as frames, through the reader of .npz archives, which knows units and names."""
    chosen: dict[str, Any] = {name: a[rows] if name in ARRAYS_BY_FRAME else a for name, a in arrays.items()}
    chosen.setdefault("old_indices", rows)  # rMD17 has them; MD17 is the trajectory itself
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chosen.npz"
        np.savez(path, **chosen)
        return read_frames(path)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from None


def _schnetpack(data_set: DataSet) -> Any:
    """Return the data set of SchNetPack, for its names and addresses; nothing is loaded by it."""
    from schnetpack.datasets import MD17, rMD17

    if data_set == "rmd17":
        return rMD17
    if data_set == "md17":
        return MD17("unused.db", molecule="aspirin", batch_size=1)
    raise InputError(f"there is no data set {data_set!r}; there are rmd17 and md17")
