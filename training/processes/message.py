"""The one message of a step by which the processes of a training become one: gradients, and numbers such as the loss.

On one machine it goes through memory that the processes share, without a copy through the system; with GPUs, and where
there is no such memory, by torch.distributed (nccl, gloo).
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Link", "Message"]


@dataclass(frozen=True)
class Link:
    """What connects the processes on one machine.

    Attributes
    ----------
    number, total : int
        Of this process, and of all.
    memory : int
        File descriptor of memory that all of them share.
    sockets : sequence of socket
        Of the first process one to each other, of the others one to the first. The system closes the socket of a
        process that ends, however it ends, so that nobody waits for it.
    """

    number: int
    total: int
    memory: int
    sockets: Sequence[socket.socket]

    @staticmethod
    def of_first(total: int) -> tuple[Link | None, list[socket.socket]]:
        """Make that of the first process, and the sockets of the others; None and none where the system cannot."""
        try:
            memory = os.memfd_create("asecalc")
        except (AttributeError, OSError):
            return None, []
        pairs = [socket.socketpair() for _ in range(1, total)]
        return Link(0, total, memory, [ours for ours, _ in pairs]), [theirs for _, theirs in pairs]

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises
        ------
        RuntimeError
            When one of them has ended.
        """
        try:
            if self.number:
                self.sockets[0].send(b".")
            arrived = all(one.recv(1) for one in self.sockets)
            if arrived and self.number == 0:
                for one in self.sockets:
                    one.send(b".")
        except OSError:
            arrived = False
        if not arrived:
            raise RuntimeError("another process of the training has ended")

    def close(self) -> None:
        """Give it back."""
        for one in self.sockets:
            one.close()
        os.close(self.memory)


class Message:
    """Averages gradients and numbers over the processes.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those without gradients are left out.
    numbers : int
        How many numbers there are in each step.
    link : Link, optional
        How they are connected; None takes torch.distributed.
    """

    def __init__(self, parameters: Iterable[Tensor], numbers: int, link: Link | None = None):
        self._parameters = [p for p in parameters if p.requires_grad]
        self._sizes = [*(p.numel() for p in self._parameters), len(self._parameters), numbers]
        # Of the widest dtype.
        like = max(self._parameters, key=Tensor.element_size).detach()
        self._way = _Distributed(sum(self._sizes), like) if link is None else _Memory(sum(self._sizes), like, link)
        self._targets, self._result = [self._pieces(t) for t in self._way.targets], self._pieces(self._way.result)
        self._step = 0

    def average(self, numbers: Tensor) -> list[float]:
        """Replace the gradients by their averages over the processes, and return those of the numbers.

        A gradient that is None counts as zero, unless no process has one: then it stays None.
        """
        which, self._step = self._step, (self._step + 1) % len(self._targets)
        here = self._targets[which]
        given = [p.grad is not None for p in self._parameters]
        torch._foreach_copy_(here[:-2], [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters])
        here[-2].copy_(torch.tensor(given))
        here[-1].copy_(numbers)
        self._way.average(which)
        *averages, given_somewhere, numbers = self._result
        for parameter, average, there in zip(self._parameters, averages, given_somewhere.tolist(), strict=True):
            parameter.grad = average.to(parameter.dtype) if there else None
        return numbers.tolist()

    def _pieces(self, whole: Tensor) -> list[Tensor]:
        *gradients, given, numbers = whole.split(self._sizes)
        return [*(g.view_as(p) for g, p in zip(gradients, self._parameters, strict=True)), given, numbers]


class _Distributed:
    """By torch.distributed."""

    def __init__(self, size: int, like: Tensor):
        self.result = like.new_zeros(size)
        self.targets = [self.result]

    def average(self, _which: int) -> None:
        torch.distributed.all_reduce(self.result)
        self.result /= torch.distributed.get_world_size()


class _Memory:
    """Through shared memory: each process writes its row, waits for the others, and averages the rows.

    Two sets of rows take turns. A process that is at the next step may not write into rows that another still reads;
    when it comes to the step after that, all others have begun the next one and so have read them.
    """

    def __init__(self, size: int, like: Tensor, link: Link):
        n_bytes = 2 * link.total * size * like.element_size()
        os.ftruncate(link.memory, n_bytes)
        shared = torch.frombuffer(mmap.mmap(link.memory, n_bytes), dtype=like.dtype)
        self._rows, self._link = shared.view(2, link.total, size), link
        self.targets = [self._rows[k, link.number] for k in range(2)]
        self.result = like.new_zeros(size)

    def average(self, which: int) -> None:
        self._link.wait()
        torch.mean(self._rows[which], dim=0, out=self.result)
