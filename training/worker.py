"""A process of a training on several, started by the first: `python -m training.worker FOLDER NUMBER TOTAL PORT`.

On CPUs the file descriptors of a `training.processes.message.Link` follow, memory and socket. The process reads
settings and data as the first did, takes its part of each batch, and writes nothing.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from asecalc_mlip.stopping import end_with_parent
from training.config import load_config
from training.prepare import prepare
from training.processes.message import Link
from training.processes.ranks import Rank
from training.train import Stopped, fit, set_threads

__all__ = ["main"]


def main(folder: str, *numbers: str) -> None:
    """Train along with the first process until it ends."""
    end_with_parent(os.getppid())
    # Lightning greets on standard output; it is kept for the answer alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    config = load_config([Path(folder) / "config.yaml"])
    set_threads(config.run)
    run = prepare(config, writes=False)
    answers.write("ready\n")
    answers.flush()
    number, total, port, *shared = map(int, numbers)
    link = Link(number, total, shared[0], [socket.socket(fileno=shared[1])]) if shared else None
    try:
        fit(run, rank=Rank(number, total, port, link))
    except Stopped:
        # The first process says so.
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
