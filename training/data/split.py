"""Which frames are trained on, validated on and tested on: drawn at random, or as a file says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import write_json
from asecalc_mlip.logs import LOGGER
from training.settings import DataConfig

__all__ = ["Split", "make_split", "split_structures", "spread", "validation_frames"]


@dataclass(frozen=True)
class Split:
    """Which frames are trained on, validated on and tested on: indices into the list of frames."""

    train: list[int]
    val: list[int]
    test: list[int]
    data_sha256: str | None = None
    """Of the structures and labels that were split, see `fingerprint`; None in files that do not say."""
    beside_sha256: str | None = None
    """Of what else decides a run: other files, models, and what frames say of their kind; None as above."""

    def save(self, path: Path) -> None:
        """Write split.json in one piece."""
        write_json(path, self.__dict__, indent=None)

    @classmethod
    def load(cls, path: str | Path, n_frames: int) -> Split:
        """Read split.json and check it against the number of frames."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
            train, val, test = ([int(i) for i in content[part]] for part in ("train", "val", "test"))
            split = cls(train, val, test, content.get("data_sha256"), content.get("beside_sha256"))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            text = f"split file {str(path)!r} cannot be used: {error!r:.300}; delete it to draw a new one"
            raise InputError(text) from None
        if not (split.train and split.val):
            raise InputError(f"split file {str(path)!r} has no frames to train or to validate on")
        every = split.train + split.val + split.test
        if len(set(every)) != len(every) or (every and not 0 <= min(every) <= max(every) < n_frames):
            raise InputError(f"split file {str(path)!r} repeats frames or names some beyond the {n_frames} in the data")
        return split


def validation_frames(n_frames: int, n_train: int | None = None) -> int:
    """Return how many frames to validate on where nobody says so.

    A tenth, at least 10 (a quarter of fewer than 40), at most 50 and what `n_train` leaves.
    """
    found = min(50, max(n_frames // 10, min(10, n_frames // 4), 1))
    return found if n_train is None else max(1, min(found, n_frames - n_train))


def make_split(n_frames: int, n_train: int | None, n_val: int | None, *, seed: int) -> Split:
    """Draw a split of `n_frames` frames; what training and validation leave over is for testing."""
    if n_frames < 2:
        raise DataError(f"a training needs 2 frames or more, one of them to validate on; the data have {n_frames}")
    if n_val is None:
        n_val = validation_frames(n_frames, n_train)
        LOGGER.info(f"data.n_val is not given: {n_val} of {n_frames} frames are for validation")
    advice = f"data.n_val={max(1, n_frames // 10)}, for example"
    if n_train is None and n_val >= n_frames:
        raise DataError(f"{n_frames} frames do not fit n_val {n_val}, which leaves none to train on: {advice}")
    n_train = n_frames - n_val if n_train is None else n_train
    if n_train < 1 or n_val < 1 or n_train + n_val > n_frames:
        raise DataError(
            f"n_train {n_train} and n_val {n_val} do not fit {n_frames} frames; both must be at least 1 and together "
            f"at most the number of frames: {advice}"
        )
    order = np.random.default_rng(seed).permutation(n_frames).tolist()
    return Split(sorted(order[:n_train]), sorted(order[n_train : n_train + n_val]), sorted(order[n_train + n_val :]))


def split_structures(frames: Sequence[Atoms], data: DataConfig) -> Split:
    """Return the split of a file, or one drawn at random, in which isolated atoms have no part.

    Raises
    ------
    InputError, DataError
        For a file that cannot be used or names nothing but isolated atoms, and numbers that do not fit the data.
    """
    places = [i for i, atoms in enumerate(frames) if not is_isolated_atom(atoms)]
    if data.split_file is None:
        split = make_split(len(places), data.n_train, data.n_val, seed=data.split_seed)
        train, val, test = ([places[k] for k in part] for part in (split.train, split.val, split.test))
        return Split(train, val, test)
    split, kept = Split.load(data.split_file, len(frames)), set(places)
    train, val, test = ([i for i in part if i in kept] for part in (split.train, split.val, split.test))
    if not (train and val):
        raise InputError(
            "data.split_file has nothing but isolated atoms to train or to validate on; name structures too"
        )
    return Split(train, val, test, split.data_sha256)


def spread(frames: Sequence[Atoms], most: int) -> list[int]:
    """Return the places of `most` frames, spread evenly, and of those that bring an element which these do not have."""
    places = evenly(len(frames), most)
    known = {z for i in places for z in frames[i].numbers.tolist()}
    for i, atoms in enumerate(frames):
        if not known.issuperset(numbers := atoms.numbers.tolist()):
            places.append(i)
            known.update(numbers)
    return sorted(places)
