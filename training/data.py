"""Labelled structures into SchNetPack's data module, with our neighbour lists and a reproducible order of batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from schnetpack.data import AtomsDataModule, AtomsLoader
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, Subset

from asecalc_mlip.data.labels import frame_name
from asecalc_mlip.digests import digest_of
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import write_json
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import Potential
from training.ranks import RankBatches, place
from training.samplers import EpochSampler, MixedSampler
from training.samples import ROWS, FramesDataset

__all__ = [
    "FramesDataModule",
    "check_weights",
    "frame_weight",
    "Replay",
    "Split",
    "fingerprint",
    "make_split",
    "spread",
    "validation_frames",
    "weights_digest",
]


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


def spread(frames: Sequence[Atoms], most: int) -> list[int]:
    """Return the places of `most` frames, spread evenly, and of those that bring an element which these do not have."""
    if not frames:
        return []
    places = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)).tolist()
    known = {z for i in places for z in frames[i].numbers.tolist()}
    for i, atoms in enumerate(frames):
        if not known.issuperset(numbers := atoms.numbers.tolist()):
            places.append(i)
            known.update(numbers)
    return sorted(places)


def fingerprint(frames: Sequence[Atoms], *more: Any) -> str:
    """Return the SHA-256 of structures and labels, and of whatever else is handed over."""

    def parts() -> Iterator[bytes | str | np.ndarray]:
        yield repr(more)
        for atoms in frames:
            yield from (atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc)
            for label in (atoms.info.get("energy"), atoms.arrays.get("forces"), atoms.info.get("stress")):
                yield b"-" if label is None else np.asarray(label, dtype=np.float64)

    return digest_of(parts())


def weights_digest(potential: Potential) -> str:
    """Return the SHA-256 of weights, E0 and scale: a model file that is written again has another date, and these."""
    weights = sorted(potential.network.state_dict().items())
    values = (part for name, value in weights for part in (name, value.detach().cpu().double().numpy()))
    return digest_of([repr((sorted(potential.reference_energies.items()), potential.scale)), *values])


def frame_weight(atoms: Atoms, weights: Mapping[str, float]) -> float:
    """Return the factor on the loss of a frame: that of its `config_type`, else that of "default", else 1."""
    return float(weights.get(str(atoms.info.get("config_type", "")), weights.get("default", 1.0)))


def check_weights(frames: Sequence[Atoms], weights: Mapping[str, float]) -> None:
    """Refuse factors that are no numbers of 0 or more, those of a `config_type` that no frame has, and only zeros.

    Raises
    ------
    InputError
    """
    for name, factor in weights.items():
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor < float("inf"):
            raise InputError(f"data.weights.{name} is {factor!r}; expected a number of 0 or more")
    types = {str(atoms.info["config_type"]) for atoms in frames if "config_type" in atoms.info}
    if unknown := sorted(set(weights) - types - {"default"}):
        known = f"they have {', '.join(sorted(types))}" if types else "they have none"
        raise InputError(f"data.weights: no frame has the config_type {', '.join(unknown)}; {known}, or name 'default'")
    if frames and not any(frame_weight(atoms, weights) for atoms in frames):
        raise InputError("data.weights are 0 for every frame, so that there is nothing to train on")


@dataclass(frozen=True)
class Replay:
    """Frames beside the training set, and the share of each batch that is drawn from them.

    `weights` are factors on the loss of each frame beside those by their `config_type`.
    """

    frames: Sequence[Atoms]
    share: float
    weights: Sequence[float] | None = None


class FramesDataModule(AtomsDataModule):
    """SchNetPack's data module over frames that are already read, checked and split.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        As `asecalc_mlip.data.readers.read_frames` returns them.
    split : Split
    labels : sequence of str
        Labels to load, of "energy", "forces", "stress".
    cutoff : float
        Å; how far the neighbour lists reach.
    batch_size, seed : int
    steps_per_epoch : int, optional
        Batches of an epoch; None means all frames once.
    replay : sequence of Replay
        More frames to train on.
    weights : mapping, optional
        Factor on the loss of frames by their `config_type`.
    more : callable, optional
        As of `FramesDataset`.
    """

    dataset: FramesDataset | None
    _train_dataloader: AtomsLoader | None
    _val_dataloader: AtomsLoader | None

    def __init__(
        self,
        frames: Sequence[Atoms],
        split: Split,
        *,
        labels: Sequence[str],
        cutoff: float,
        batch_size: int,
        seed: int,
        steps_per_epoch: int | None = None,
        replay: Sequence[Replay] = (),
        weights: Mapping[str, float] | None = None,
        more: Callable[[int, Atoms], dict[str, Tensor]] | None = None,
    ):
        # SchNetPack wants the name of a database, which is neither written nor read.
        super().__init__(datapath="frames.db", batch_size=batch_size, num_workers=0, load_properties=list(labels))
        every = [*frames, *(atoms for more in replay for atoms in more.frames)]
        if "stress" in labels:
            _check_volumes(every, [*split.train, *split.val, *range(len(frames), len(every))])
        factors = _factors(frames, replay, weights or {})
        if factors is not None:
            beside = range(len(frames), len(every))
            _check_factors(factors, {"training": split.train, "validation": split.val, "replayed or far": beside})
        self._samples = FramesDataset(every, labels, cutoff, factors, more)
        self._split, self._seed, self._steps = split, seed, steps_per_epoch
        self._replay = [(len(more.frames), more.share) for more in replay]
        self._replayed = list(range(len(frames), len(every)))

    def setup(self, stage: str | None = None) -> None:
        """Divide the frames, once."""
        if self.dataset is not None:
            return
        self.dataset = self._samples
        self.train_idx = [*self._split.train, *self._replayed]
        self.val_idx, self.test_idx = self._split.val, self._split.test
        self._train_dataset, self._val_dataset, self._test_dataset = (
            Subset(self._samples, part) for part in (self.train_idx, self.val_idx, self.test_idx)
        )

    def train_dataloader(self) -> AtomsLoader:
        """Return the batches in an order fixed by seed and epoch."""
        if self._train_dataloader is None:
            drop_last = self._steps is None and len(self.train_dataset) > self.batch_size
            batches = BatchSampler(self._sampler(), self.batch_size, drop_last)
            atoms = self._samples.sizes(self.train_idx)
            self._train_dataloader = _RankLoader(self.train_dataset, RankBatches(batches, atoms, *place()))
        return self._train_dataloader

    def val_dataloader(self) -> AtomsLoader:
        """Return the batches of this process; where there are fewer frames than processes, each takes all of them."""
        if self._val_dataloader is None:
            number, total = place()
            if len(self.val_idx) < total:
                number, total = 0, 1
            part = Subset(self._samples, self.val_idx[number::total])
            self._val_dataloader = AtomsLoader(part, batch_size=self.val_batch_size)
        return self._val_dataloader

    def _sampler(self) -> EpochSampler | MixedSampler:
        if self._replayed:
            others, shares = zip(*self._replay, strict=True)
            sizes = (len(self._split.train), *others)
            return MixedSampler(sizes, shares, self.batch_size, self._seed, self._steps)
        length = None if self._steps is None else self._steps * self.batch_size
        return EpochSampler(len(self.train_dataset), self._seed, length)


class _RankLoader(AtomsLoader):
    """Loader that says of each batch where it stands in that of all processes, if there are several."""

    def __init__(self, dataset: Dataset, batches: RankBatches):
        super().__init__(dataset, batch_sampler=batches)
        self._rows = batches.rows

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield {**batch, ROWS: self._rows.popleft()} if self._rows else batch


def _check_factors(factors: Sequence[float], parts: Mapping[str, Sequence[int]]) -> None:
    """Refuse parts in which no frame counts: without a validation loss the first weights would be the best ones."""
    for name, places in parts.items():
        if places and not any(factors[i] for i in places):
            raise InputError(
                f"data.weights are 0 for all {len(places)} {name} frames; raise the factor of their config_type or "
                "data.weights.default, or choose another data.n_val or data.split_seed"
            )


def _check_volumes(frames: Sequence[Atoms], places: Sequence[int]) -> None:
    """Refuse frames without a volume, whose stress a model does not have: it would be NaN, and with it all weights."""
    for i in places:
        if not frames[i].pbc.all():
            raise DataError(
                f"{frame_name(frames[i], i)} has pbc {frames[i].pbc.tolist()} and so no volume for a stress, but the "
                "loss gives weight to it: leave such frames out, or set loss.stress_weight=0"
            )


def _factors(frames: Sequence[Atoms], replay: Sequence[Replay], weights: Mapping[str, float]) -> list[float] | None:
    """Return the factor on the loss of each frame; None where all are 1."""
    if not weights and all(more.weights is None for more in replay):
        return None
    factors = [frame_weight(atoms, weights) for atoms in frames]
    for more in replay:
        own = [1.0] * len(more.frames) if more.weights is None else more.weights
        factors += [f * frame_weight(atoms, weights) for f, atoms in zip(own, more.frames, strict=True)]
    return factors
