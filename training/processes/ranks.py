"""Training on several processes: how they are started, share a batch, and add up what they found.

The process that the user started is rank 0. It starts the others (training/worker.py), which read the same settings and
data, and each takes its part of every batch. Losses are means over all rows of the batch, and random displacements are
drawn for the whole batch, so that the result is that of one process. One message a step carries everything that the
processes have to tell each other (`training.processes.message`).
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler

from asecalc_mlip.errors import InputError
from training.processes.message import Link

__all__ = [
    "PER_ATOM",
    "Environment",
    "OneMessage",
    "Rank",
    "RankBatches",
    "Rows",
    "Workers",
    "mean_over_ranks",
    "place",
    "place_of_atoms",
    "share",
    "take_rows",
]

PER_ATOM = ("forces", "noise", "curvature_label")
"""Outputs of a training step that have a row for each atom; others have one for each structure."""
# Seconds that a process gets to end by itself.
_PATIENCE = 30.0
# Last line of a traceback.
_ERROR = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")


class Rows(NamedTuple):
    """How many structures and atoms a batch has, and at which atom a part of it begins."""

    structures: int
    atom: int
    atoms: int


# Of the present batch.
_ROWS: list[Rows | None] = [None]


@dataclass(frozen=True)
class Rank:
    """Which of the processes of a training this one is.

    `port` is where rank 0 listens, `link` what connects processes on CPUs; None on GPUs and where there is none.
    """

    number: int = 0
    total: int = 1
    port: int = 0
    link: Link | None = None


def place() -> tuple[int, int]:
    """Return number of this process and of all, (0, 1) outside of a training on several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def take_rows(rows: Rows | None) -> None:
    """Say where the batch that begins stands in the whole one; None where it is the whole one."""
    _ROWS[0] = rows


def place_of_atoms(n: int) -> tuple[int, int]:
    """Return where the n atoms of this process begin among those of the whole batch, and how many there are in all."""
    rows = _ROWS[0]
    return (0, n) if rows is None else (rows.atom, rows.atoms)


def share(rows: Tensor, name: str) -> float:
    """Return the factor that makes the mean over these rows, averaged over the processes, that over the rows of all."""
    whole = _ROWS[0]
    if whole is None:
        return 1.0
    return place()[1] * len(rows) / (whole.atoms if name in PER_ATOM else whole.structures)


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of numbers over the processes, without its gradient."""
    total = place()[1]
    if total == 1:
        return value.detach()
    value = value.detach().clone()
    torch.distributed.all_reduce(value)
    return value / total


class RankBatches(Sampler[list[int]]):
    """The part of each batch that one process takes; parts follow each other in the order of the processes.

    Each process knows the whole batch, because its order depends on seed and epoch alone. So it knows where to cut it
    for parts of about as many atoms, and where its own part stands.

    Parameters
    ----------
    batches : BatchSampler
    atoms : sequence of int
        Of each frame.
    number, total : int
        Of this process, and of all.

    Attributes
    ----------
    rows : deque of Rows
        Of the parts that are handed out and not yet taken; empty where there is one process.
    """

    def __init__(self, batches: BatchSampler, atoms: Sequence[int], number: int, total: int):
        # Lightning tells the sampler of the frames each new epoch.
        self.batches, self.sampler = batches, batches.sampler
        self.atoms, self.number, self.total = atoms, number, total
        self.rows: deque[Rows] = deque()

    def __iter__(self) -> Iterator[list[int]]:
        self.rows.clear()
        for batch in self.batches:
            if self.total > 1:
                before = [0, *accumulate(self.atoms[i] for i in batch)]
                start, end = _cuts(before, self.total)[self.number : self.number + 2]
                self.rows.append(Rows(len(batch), before[start], before[-1]))
                batch = batch[start:end]
            yield batch

    def __len__(self) -> int:
        return len(self.batches)


def _cuts(before: Sequence[int], total: int) -> list[int]:
    """Return the first structure of each part, near even shares of the atoms, and the end.

    Each part has one structure at least, if there are enough.
    """
    size, cuts = len(before) - 1, [0]
    for number in range(1, total):
        near = min(range(size + 1), key=lambda k: abs(before[k] * total - before[-1] * number))
        cuts.append(min(size, max(cuts[-1] + 1, min(near, size - total + number))))
    return [*cuts, size]


class OneMessage(DDPStrategy):
    """Lightning's strategy for several processes, without torch's wrapper around the model.

    The wrapper sends several messages in a step, `training.processes.message.Message` one.
    """

    def configure_ddp(self) -> None:
        """Take the weights of the first process."""
        assert self.model is not None
        for parameter in self.model.parameters():
            torch.distributed.broadcast(parameter.data, 0)


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
    on_cpu : bool
        Whether they train on CPUs, where they share memory.
    """

    def __init__(self, folder: Path, total: int, *, on_cpu: bool = True):
        self._folder = folder
        link, self._ends = Link.of_first(total) if total > 1 and on_cpu else (None, [])
        self.rank = Rank(0, total, _free_port() if total > 1 else 0, link)
        self._processes: list[subprocess.Popen] = []
        self._told: list[Any] = []

    def __enter__(self) -> Workers:
        try:
            for number in range(1, self.rank.total):
                self._start(number)
            # Nobody but that process may hold its end, or its end of life would not be seen.
            self._close_ends()
            for number, process in enumerate(self._processes, start=1):
                assert process.stdout is not None
                if process.stdout.readline().strip() != "ready":
                    process.wait(_PATIENCE)
                    raise self._failure(number)
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
            raise told[0] from (None if isinstance(told[0], InputError) else error)

    def _start(self, number: int) -> None:
        log = tempfile.TemporaryFile("w+")
        arguments = [str(self._folder), str(number), str(self.rank.total), str(self.rank.port)]
        shared: list[int] = []
        if self.rank.link is not None:
            shared = [self.rank.link.memory, self._ends[number - 1].fileno()]
        command = [sys.executable, "-m", "training.worker", *arguments, *map(str, shared)]
        self._told.append(log)
        self._processes.append(
            subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=log, pass_fds=shared)
        )

    def _failure(self, number: int) -> Exception:
        """Return what is told of a process that failed. One that a signal ended may end well if it is run again."""
        log = self._told[number - 1]
        log.seek(0)
        said = log.read().strip().splitlines()
        code = self._processes[number - 1].poll()
        if code is None or code >= 0:
            # Warnings may follow the error.
            last = [*said[-1:], *(line for line in said if _ERROR.match(line))] or ["it said nothing"]
            return RuntimeError(f"process {number} of the training ended with code {code}: {last[-1]}")
        killed = code == -signal.SIGKILL
        why = ", as the system does where memory runs out" if killed else f" ({said[-1]})" if said else ""
        checkpoint = self._folder / "last.ckpt"
        where = f"continue from {checkpoint}" if checkpoint.exists() else "begin again"
        return InputError(
            f"process {number} of the training was ended by {signal.Signals(-code).name}{why}; run the same command "
            f"again to {where}"
        )

    def _end(self) -> None:
        for process, log in zip(self._processes, self._told, strict=True):
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
            log.close()
        self._processes, self._told = [], []
        self._close_ends()
        if self.rank.link is not None:
            self.rank.link.close()

    def _close_ends(self) -> None:
        for end in self._ends:
            end.close()
        self._ends = []


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
