"""Fetch a public data set by its name and write it as extended XYZ, in eV and Å, with its level, licence and source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.data.convert import with_reference_names
from asecalc_mlip.data.downloads import download
from asecalc_mlip.data.hdf5_files import ANI, SPICE, read_groups
from asecalc_mlip.data.json_files import read_materials
from asecalc_mlip.data.labels import check_frame, frame_name
from asecalc_mlip.data.md17_files import read_zeolite_frames
from asecalc_mlip.data.published import PUBLISHED, DataSet, File
from asecalc_mlip.data.readers import iter_frames
from asecalc_mlip.data.xsf_files import read_npz_members, read_xsf_members
from asecalc_mlip.data.xyz_files import xyz_bytes
from asecalc_mlip.digests import sha256_of, wrong_checksum
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import check_other, replacing
from asecalc_mlip.logs import LOGGER

__all__ = ["Fetched", "fetch"]

Make = Callable[[], Atoms]


@dataclass(frozen=True)
class Fetched:
    """What was read and written.

    Attributes
    ----------
    target : Path
    frames : int
        Written.
    left_out : int
        Frames with a place, cell or label that is no number.
    source : Path
        What they were read from.
    sha256 : str or None
        Of that file; None for a folder.
    checked : bool
        Whether its checksum was compared with the published one.
    """

    target: Path
    frames: int
    left_out: int
    source: Path
    sha256: str | None
    checked: bool


def fetch(
    name: str,
    target: str | Path,
    *,
    part: str | None = None,
    split: str | None = None,
    n_frames: int | None = None,
    seed: int = 0,
    source: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Fetched:
    """Write frames of a public data set.

    Parameters
    ----------
    name : str
        Of `asecalc_mlip.data.published.PUBLISHED`.
    target : path
        Ends with .xyz or .extxyz. What is downloaded is kept in its folder, and used again.
    part : str, optional
        Of a set in parts, such as a molecule.
    split : str, optional
        Only frames whose ``info["split"]`` it is, such as "train".
    n_frames : int, optional
        So many frames by a random choice; default: all.
    seed : int
        Of that choice.
    source : path, optional
        A file (for XSF also a folder) that is there already; nothing is loaded then.
    overwrite : bool
        Replace `target`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        An unknown name, part or split, a target that exists, no network (the message says what to fetch by hand).
    DataError
        The file is damaged, is not that which was published, or is made to harm.
    """
    data_set, target = _named(name), Path(target)
    if target.suffix not in (".xyz", ".extxyz"):
        raise InputError(f"{target}: data sets are written as extended XYZ; give a name that ends with .xyz")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already: choose another name, or let it be replaced (--overwrite)")
    file = _file(name, data_set, part, needed=source is None)
    local, checked = _local(data_set, file, target, source, progress)
    check_other(local, target)
    makers = _chosen(_with_split(_makers(data_set, local, part), split, local), n_frames, seed)
    written, left_out = _write(target, tqdm(makers, desc=target.name, disable=None if progress else True), {
        "data_set": data_set.title,
        "level": (data_set.levels or {}).get(part or "", data_set.level),
        "licence": data_set.licence,
        "cite": data_set.cite,
        "units": "eV, Å",
    })  # fmt: skip
    if not written:
        raise DataError(f"{local}: no frame of it has labels; is it {data_set.title}?")
    if left_out:
        names = ", ".join(left_out[:5]) + (", …" if len(left_out) > 5 else "")
        LOGGER.warning(
            f"{local}: {len(left_out)} frames without finite energy and forces, or with another number that is none, "
            f"are left out: {names}"
        )
    return Fetched(target, written, len(left_out), local, sha256_of(local) if local.is_file() else None, checked)


def _named(name: str) -> DataSet:
    if name not in PUBLISHED:
        raise InputError(f"there is no data set {name!r:.60}; there are {', '.join(sorted(PUBLISHED))}")
    return PUBLISHED[name]


def _file(name: str, data_set: DataSet, part: str | None, *, needed: bool) -> File | None:
    """Return the file that has the wanted part; None where nothing is to be loaded and the part is of no matter."""
    if data_set.parts is not None or data_set.pattern is not None:
        known = ", ".join(data_set.parts) if data_set.parts else "names such as cha or mfi"
        if part is None and needed:
            raise InputError(f"{name} is in parts: choose one with --part, of {known}")
        if part is not None and not (part in data_set.parts if data_set.parts else part.isalnum() and part.isascii()):
            raise InputError(f"{name} has no part {part!r:.60}; it has {known}")
        if part is None:
            return None
        if data_set.parts is not None:
            return data_set.parts[part]
        return File(f"{part.lower()}.npz", str(data_set.pattern).format(part=part.lower()))
    if part is not None and data_set.reader not in ("spice", "xsf"):
        raise InputError(f"{name} has no parts; leave --part out")
    return data_set.file


def _local(
    data_set: DataSet, file: File | None, target: Path, source: str | Path | None, progress: bool
) -> tuple[Path, bool]:
    """Return where the file is, and whether its checksum is the published one; load it if it is not there."""
    local = Path(source) if source is not None else target.parent / (file.name if file else "")
    if source is not None and not local.exists():
        raise InputError(f"{local}: no such file; fetch it from {data_set.page}")
    if not local.exists() and file is not None:
        if file.url is None:
            raise InputError(
                f"{data_set.title} has no address that is known here. Fetch it by hand from {data_set.page} and give "
                "its archive or folder with --from"
            )
        most = file.size or data_set.most
        download(
            file.url, local, page=data_set.page, progress=progress, most=most, resume=True, md5=file.md5,
            sha256=file.sha256,
        )  # fmt: skip
        return local, bool(file.md5 or file.sha256)
    if local.is_file() and local.stat().st_size > data_set.most:
        raise DataError(f"{local} has more than the {data_set.most} bytes that {data_set.title} may have")
    # A file of another name may be a part that somebody cut out, which is told and not refused.
    if file is None or not (file.md5 or file.sha256) or local.name != file.name:
        return local, False
    if wrong := wrong_checksum(local, md5=file.md5, sha256=file.sha256):
        raise DataError(
            f"{local}: its {wrong} is not that of the published file. Remove it and run the same command again; a part "
            "of it is read with --from under another name"
        )
    return local, True


def _makers(data_set: DataSet, path: Path, part: str | None) -> Iterator[Make]:
    """Give functions that make the frames."""
    if data_set.reader in ("ani", "spice"):
        return read_groups(path, ANI if data_set.reader == "ani" else SPICE, part)
    if data_set.reader == "mptrj":
        return read_materials(path)
    if data_set.reader == "xsf":
        # The archive of LMNTO holds water as well.
        return read_xsf_members(path, part or ("LMNTO" if data_set.title == "LMNTO" and path.is_file() else None))
    if data_set.reader == "zip of npz":
        return read_npz_members(path)
    frames = read_zeolite_frames(path) if data_set.reader == "zeo" else iter_frames(path)
    return (atoms.copy for atoms in frames)


def _with_split(makers: Iterator[Make], split: str | None, path: Path) -> Iterator[Make]:
    if split is None:
        yield from makers
        return
    seen: set[str] = set()
    for make in makers:
        found = str(make().info.get("split"))
        seen.add(found)
        if found == split:
            yield make
    if split not in seen:
        raise InputError(f"{path} has no frames of the split {split!r:.60}; it has {', '.join(sorted(seen)) or 'none'}")


def _chosen(makers: Iterator[Make], n_frames: int | None, seed: int) -> Iterator[Make]:
    """Choose frames at random, each with the same chance, in their order (algorithm R, Vitter 1985)."""
    if n_frames is None:
        yield from makers
        return
    rng, kept, total = np.random.default_rng(seed), list[tuple[int, Make]](), 0
    for total, make in enumerate(makers, start=1):
        place = total - 1 if total <= n_frames else int(rng.integers(total))
        if place < n_frames:
            kept[place : place + 1] = [(total, make)]
    if total < n_frames:
        raise InputError(f"there are {total} frames, not {n_frames}; ask for fewer, or leave -n out for all")
    yield from (make for _, make in sorted(kept, key=lambda item: item[0]))


def _write(target: Path, makers: Iterator[Make], about: dict[str, str]) -> tuple[int, list[str]]:
    """Write frames one by one, whole or not at all; return how many, and the names of those with no finite labels."""
    written, left_out = 0, list[str]()
    with replacing(target) as temporary, open(temporary, "wb") as file:
        for make in makers:
            atoms = make()
            check_frame(atoms)
            labels = [atoms.info.get("energy", np.nan), atoms.arrays.get("forces", np.nan), atoms.info.get("stress", 0)]
            if not all(np.isfinite(values).all() for values in (*labels, atoms.positions, atoms.cell.array)):
                left_out.append(f"{atoms.info.get('mptrj_id') or atoms.info.get('group') or frame_name(atoms):.80}")
                continue
            copy = with_reference_names(atoms)
            copy.info |= about
            file.write(xyz_bytes([copy]))
            written += 1
        file.flush()
        os.fsync(file.fileno())
    return written, left_out
