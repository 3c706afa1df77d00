"""Training on several processes: how they are started, share a batch, and add up what they found.

The process that the user started is rank 0. It starts the others (training/worker.py), which read the same settings and
data, and each takes its part of every batch. Gradients are averaged by Lightning's DDP. Losses are means over all rows
of the batch, and random displacements are drawn for the whole batch, so that the result is that of one process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments import ClusterEnvironment
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

__all__ = [
    "Environment",
    "Rank",
    "RankBatches",
    "Workers",
    "count_rows",
    "mean_over_ranks",
    "place",
    "place_of_atoms",
    "share",
]

# Seconds that a process gets to end by itself.
_PATIENCE = 30.0
# Of the present batch: where the rows of this process begin, and how many there are in all.
_KINDS = ("structures", "atoms")
_ROWS: dict[str, tuple[int, int]] = {}


@dataclass(frozen=True)
class Rank:
    """Which of the processes of a training this one is; `port` is where rank 0 listens."""

    number: int = 0
    total: int = 1
    port: int = 0


def place() -> tuple[int, int]:
    """Return number of this process and of all, (0, 1) outside of a training on several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def count_rows(n_structures: int, n_atoms: int, device: torch.device) -> None:
    """Tell all processes what this one has of the batch that begins: once, because each message costs a millisecond."""
    number, total = place()
    if total == 1:
        return
    counts = torch.zeros((total, 2), dtype=torch.int64, device=device)
    counts[number, 0], counts[number, 1] = n_structures, n_atoms
    torch.distributed.all_reduce(counts)
    _ROWS.update(
        {kind: (sum(column[:number]), sum(column)) for kind, column in zip(_KINDS, counts.T.tolist(), strict=True)}
    )


def place_of_atoms(n: int) -> tuple[int, int]:
    """Return where the n atoms of this process begin among those of the whole batch, and how many there are in all."""
    return (0, n) if place()[1] == 1 else _ROWS["atoms"]


def share(rows: Tensor, name: str) -> float:
    """Return the factor that makes the mean over these rows, averaged over the processes, that over the rows of all.

    Forces and noise have a row for each atom, other quantities one for each structure.
    """
    total = place()[1]
    if total == 1:
        return 1.0
    return total * len(rows) / _ROWS["atoms" if name in ("forces", "noise") else "structures"][1]


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of numbers over the processes, without its gradient."""
    total = place()[1]
    if total == 1:
        return value.detach()
    value = value.detach().clone()
    torch.distributed.all_reduce(value)
    return value / total


class RankBatches(Sampler[list[int]]):
    """The part of each batch that one process takes; parts follow each other in the order of the processes."""

    def __init__(self, batches: BatchSampler, number: int, total: int):
        # Lightning tells the sampler of the frames each new epoch.
        self.batches, self.sampler = batches, batches.sampler
        self.number, self.total = number, total

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield batch[len(batch) * self.number // self.total : len(batch) * (self.number + 1) // self.total]

    def __len__(self) -> int:
        return len(self.batches)


class Environment(ClusterEnvironment):
    """Tells Lightning which process this is; the others are started by `Workers`."""

    def __init__(self, rank: Rank):
        super().__init__()
        self._rank = rank

    creates_processes_externally = True
    main_address = "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where rank 0 listens."""
        return self._rank.port

    @staticmethod
    def detect() -> bool:
        """Return False: it is named, not found."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self._rank.total

    def global_rank(self) -> int:
        """Return the number of this process."""
        return self._rank.number

    def local_rank(self) -> int:
        """Return the number of this process on its machine, the only one."""
        return self._rank.number

    def node_rank(self) -> int:
        """Return 0, the only machine."""
        return 0

    def set_world_size(self, size: int) -> None:
        """Do nothing: the number is given."""

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the number is given."""


class Workers:
    """The other processes of a training, from its beginning to its end; without any for `total` 1.

    Parameters
    ----------
    folder : Path
        Of the run, with its config.yaml.
    total : int
        Processes, this one included.
    """

    def __init__(self, folder: Path, total: int):
        self._folder = folder
        self.rank = Rank(0, total, _free_port() if total > 1 else 0)
        self._processes: list[subprocess.Popen] = []
        self._told: list[Any] = []

    def __enter__(self) -> Workers:
        try:
            for number in range(1, self.rank.total):
                self._start(number)
            for number, process in enumerate(self._processes, start=1):
                assert process.stdout is not None
                if process.stdout.readline().strip() != "ready":
                    process.wait(_PATIENCE)
                    raise RuntimeError(self._failure(number))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind is None:
            for process in self._processes:
                _code(process, _PATIENCE)
            self._end()
            return
        seconds = _PATIENCE / 4 if issubclass(kind, RuntimeError) else 0.0
        told = [self._failure(k) for k, process in enumerate(self._processes, start=1) if _code(process, seconds)]
        self._end()
        # What rank 0 says then is that the other does not answer.
        if told and issubclass(kind, RuntimeError):
            raise RuntimeError(told[0]) from error

    def _start(self, number: int) -> None:
        log = tempfile.TemporaryFile("w+")
        arguments = [str(self._folder), str(number), str(self.rank.total), str(self.rank.port)]
        self._told.append(log)
        self._processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "training.worker", *arguments], text=True, stdout=subprocess.PIPE, stderr=log
            )
        )

    def _failure(self, number: int) -> str:
        log = self._told[number - 1]
        log.seek(0)
        last: Sequence[str] = log.read().strip().splitlines() or ["nothing"]
        return f"process {number} of the training ended with code {self._processes[number - 1].poll()}: {last[-1]}"

    def _end(self) -> None:
        for process, log in zip(self._processes, self._told, strict=True):
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
            log.close()
        self._processes, self._told = [], []


def _code(process: subprocess.Popen, seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
