"""Labelled structures into SchNetPack's data module, with our neighbour lists and a reproducible order of batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms
from schnetpack.data import AtomsDataModule, AtomsLoader
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, Subset

from asecalc_mlip.data.labels import frame_name
from asecalc_mlip.errors import DataError, InputError
from training.data.samplers import EpochSampler, MixedSampler
from training.data.samples import ROWS, FramesDataset
from training.data.split import Split
from training.data.weights import frame_weight
from training.processes.ranks import RankBatches, place

__all__ = ["FramesDataModule", "Replay"]


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
