"""Work in other processes, on this machine or on a cluster with Dask: tasks go out, results come as they are there.

    with Workers(processes=4).open(folder) as pool:
        for number, result in each(pool, function, tasks): ...

A task that takes long asks `stop_wanted` (stopping.py) now and then.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from asecalc_mlip import logs
from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import needs
from asecalc_mlip.locks import lock_of, locked_file
from asecalc_mlip.stopping import BUSY, PATIENCE, PERMIT, Permit, at_work, end_with_parent

__all__ = ["Lost", "Pool", "Workers", "each"]

# Processes that die at one task, before it counts as the task's fault; Dask counts itself (distributed.scheduler
# .allowed-failures).
TRIES = 2

Function = Callable[..., Any]


class Lost(InputError):
    """A task whose worker died each time it was tried."""


@dataclass(frozen=True)
class Workers:
    """Where work is done.

    Attributes
    ----------
    processes : int
        Of this machine; several have one thread each.
    dask : str, optional
        Address of a Dask scheduler, in place of processes; its workers see the same files.

    Raises
    ------
    InputError
        For a number below 1, processes beside Dask, and without the package distributed.
    """

    processes: int = 1
    dask: str | None = None

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise InputError(f"--processes must be at least 1, not {self.processes}")
        if self.dask and self.processes != 1:
            raise InputError(
                "--processes is for this machine, and the workers of --dask count themselves: leave one out"
            )
        if self.dask and find_spec("distributed") is None:
            raise needs("--dask", "distributed")

    @contextmanager
    def open(self, folder: Path) -> Iterator[Pool | None]:
        """Open the workers, or give None where the work is to be done in this process.

        Parameters
        ----------
        folder : Path
            That of the work; a file there says which process gives the tasks.

        Raises
        ------
        InputError
            For a scheduler that does not answer, and a folder in which another process gives tasks.
        """
        path = folder.resolve() / PERMIT
        if not self.dask and self.processes == 1:
            # Of a process that was killed, whose tasks may still be at work on a cluster: they are to leave off.
            if path.exists() or lock_of(path).exists():
                with locked_file(path, "--output"):
                    path.unlink(missing_ok=True)
            yield None
            return
        with locked_file(path, "--output"):
            pool = _Dask(path, self.dask) if self.dask else _Processes(path, self.processes)
            try:
                yield pool
            finally:
                pool.stop()
                pool.close()


class Pool(ABC):
    """Workers that take tasks."""

    def __init__(self, path: Path, parent: int | None = None) -> None:
        self.permit = Permit.give(path, parent)

    @abstractmethod
    def size(self) -> int:
        """Return how many tasks are done at the same time; of Dask, workers may come and go."""

    @abstractmethod
    def submit(self, function: Function, *arguments: Any) -> Future:
        """Give a task, of a function that can be imported and arguments that can be pickled."""

    @abstractmethod
    def close(self) -> None:
        """Let the workers go."""

    def outcome(self, job: Future) -> Any:
        """Return the result of a task that has ended, or raise its error; `Lost` where its workers died."""
        return job.result()

    def stop(self) -> None:
        """Ask the tasks to leave off."""
        self.permit.take_back()


def each(
    pool: Pool, function: Function, tasks: Sequence[tuple], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Any]]:
    """Yield number and result of each task as soon as it has ended.

    After a stop no task begins, and those at work are asked to leave off.
    """
    waiting, running = deque(enumerate(tasks)), dict[Future, int]()
    while waiting or running:
        if stop():
            pool.stop()
            waiting.clear()
        free = pool.size() - len(running) if waiting else 0
        for number, arguments in [waiting.popleft() for _ in range(min(free, len(waiting)))]:
            running[pool.submit(function, *arguments)] = number
        if not running:
            time.sleep(PATIENCE)
        for job in wait(running, timeout=PATIENCE, return_when=FIRST_COMPLETED).done:
            yield running.pop(job), pool.outcome(job)


class _Processes(Pool):
    """Processes of this machine, new ones because a forked torch may hang; each has a pool to itself.

    So it is known at which task a process died, and the others go on.
    """

    def __init__(self, path: Path, number: int) -> None:
        super().__init__(path, os.getpid())
        self._number, self._threads = number, ThreadPoolExecutor(number)
        self._free: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(number):
            self._free.put(_process())

    def size(self) -> int:
        return self._number

    def submit(self, function: Function, *arguments: Any) -> Future:
        return self._threads.submit(self._run, function, arguments)

    def _run(self, function: Function, arguments: tuple) -> Any:
        process = self._free.get()
        try:
            for _ in range(TRIES):
                try:
                    return process.submit(at_work, self.permit, function, arguments).result()
                except BrokenProcessPool:
                    process.shutdown()
                    process = _process()
            raise Lost(f"the process at work on it died {TRIES} times: it was killed, or ran out of memory")
        finally:
            self._free.put(process)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self._number):
            self._free.get().shutdown()


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    # Before NumPy and torch begin their threads: several processes share the cores.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    logs.show()
    # Ctrl-C reaches all processes of a terminal; the parent tells when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent, busy=BUSY)


class _Dask(Pool):
    """Workers of a Dask scheduler, which gives the tasks of a worker that dies to another."""

    def __init__(self, path: Path, address: str) -> None:
        import distributed

        self._address = address
        try:
            self._client: Any = distributed.Client(address, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, workers with "
                f"`dask worker ADDRESS --nthreads 1`, and give the same command again"
            ) from None
        super().__init__(path)
        self._executor = self._client.get_executor(pure=False)

    def size(self) -> int:
        with self._reached():
            return len(self._client.nthreads())

    def submit(self, function: Function, *arguments: Any) -> Future:
        with self._reached():
            return self._executor.submit(_on_dask, self.permit, function, arguments)

    def outcome(self, job: Future) -> Any:
        from distributed.scheduler import KilledWorker

        try:
            return job.result()
        except KilledWorker:
            raise Lost("all workers at work on it died: they were killed, or ran out of memory") from None
        except CancelledError:
            raise self._gone() from None

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # a comm that is closed, and a client that has given up
            raise self._gone() from error

    def _gone(self) -> InputError:
        return InputError(
            f"the Dask scheduler at {self._address} is gone; start it again, and give the same command again: what was "
            "written is kept"
        )


def _on_dask(permit: Permit, function: Function, arguments: tuple) -> Any:
    folder = permit.path.parent
    if not folder.is_dir():
        raise InputError(
            f"the Dask worker on {socket.gethostname()} does not see {folder}; choose an --output on a file system "
            "that all workers have"
        )
    return at_work(permit, function, arguments)
