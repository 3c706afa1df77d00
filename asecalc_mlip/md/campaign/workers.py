"""Shares of a campaign in other processes, on this machine or on a cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tqdm import tqdm

from asecalc_mlip import logs
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.campaign.runs import Run, run_share
from asecalc_mlip.stopping import SoftStop, end_with_parent

__all__ = ["in_processes", "on_dask"]

# Seconds between looks at the signals.
PATIENCE = 0.2
# Of a worker process: whether its campaign was asked to stop, whose child it is, and whether it runs a share.
_wanted: Event | None = None
_parent = 0
_busy = threading.Lock()


def in_processes(
    directory: Path, todo: Sequence[Sequence[Run]], *, processes: int, device: str, hidden: bool | None
) -> int | None:
    """Run each share in a process of its own; return the signal that stopped them, if one did.

    New processes, because a forked torch may hang. After SIGINT or SIGTERM the workers stop at their next restart
    point; so do they when this process is killed.
    """
    context = get_context("spawn")
    stop = context.Event()
    with (
        SoftStop() as interrupt,
        ProcessPoolExecutor(processes, context, initializer=_begin_worker, initargs=(stop, os.getpid())) as pool,
        tqdm(total=len(todo), unit="share", disable=hidden) as bar,
    ):
        left: set[Future] = {pool.submit(_run, str(directory), share, device) for share in todo}
        while left:
            done, left = wait(left, timeout=PATIENCE, return_when=FIRST_COMPLETED)
            # Where one share fails, the others need not go on to their ends before that is told.
            if interrupt.signal or any(job.exception() for job in done):
                stop.set()
            for job in done:
                job.result()
                bar.update()
        return interrupt.signal


def _begin_worker(wanted: Event, parent: int) -> None:
    global _wanted, _parent
    _wanted, _parent = wanted, parent
    logs.show()
    # Ctrl-C reaches all processes of a terminal; the parent tells when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent, busy=_busy)


def _run(directory: str, share: Sequence[Run], device: str) -> int:
    with _busy:
        return 0 if _stop() else run_share(directory, share, device=device, threads=1, stop=_stop)


def _stop() -> bool:
    return os.getppid() != _parent or (_wanted is not None and _wanted.is_set())


def on_dask(directory: Path, todo: Sequence[Sequence[Run]], *, address: str, device: str, hidden: bool | None) -> None:
    """Run each share as a task; Dask gives the shares of a worker that dies to another, which continues them."""
    import distributed

    try:
        client: Any = distributed.Client(address)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`, workers with "
            f"`dask worker ADDRESS --nthreads 1`, and give the same command again, with --output {directory}"
        ) from None
    with client:
        jobs = [
            client.submit(run_share, str(directory.resolve()), share, device=device, threads=1, pure=False)
            for share in todo
        ]
        for job in tqdm(distributed.as_completed(jobs), total=len(jobs), unit="share", disable=hidden):
            job.result()
