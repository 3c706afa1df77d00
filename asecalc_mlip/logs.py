"""Where the messages of the package go: progress to standard output, warnings to standard error.

Library code logs to the logger "asecalc_mlip" and prints nothing. Commands and scripts call `show()`:

>>> from asecalc_mlip import logs
>>> logs.show()
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

__all__ = ["LOGGER", "hide", "into", "lead_nowhere", "printable", "show"]

LOGGER = logging.getLogger("asecalc_mlip")
PREFIX = {logging.WARNING: "Warning: ", logging.ERROR: "Error: ", logging.CRITICAL: "Error: "}


def show() -> None:
    """Show the messages of the package to people, until `hide()`; a second call changes nothing."""
    printable()
    LOGGER.setLevel(logging.INFO)
    if _SHOWN not in LOGGER.handlers:
        LOGGER.addHandler(_SHOWN)


def printable() -> None:
    """Let the standard streams take any text.

    What the encoding lacks, such as Å in ASCII or → in Latin-1, becomes a "?". A stream that was closed before the
    process began leads nowhere; else the next file that is opened would have its number, and what libraries print.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # One that was opened on a file and leads to a pipe since cannot seek; it stays as it is.
            with suppress(OSError):
                stream.reconfigure(errors="replace")


def hide() -> None:
    """End what `show()` began."""
    LOGGER.removeHandler(_SHOWN)
    LOGGER.setLevel(logging.NOTSET)


@contextmanager
def into(stream: TextIO) -> Iterator[None]:
    """Send messages to an open text file in place of the screen, as long as the block lasts."""
    shown, level = _SHOWN in LOGGER.handlers, LOGGER.level
    handler = _Messages(stream)
    LOGGER.removeHandler(_SHOWN)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        if shown:
            LOGGER.addHandler(_SHOWN)


class _Messages(logging.Handler):
    """Writes the text of a message alone, at once; without a stream, to the standard ones of that moment."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(logging.INFO)
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        stream = self.stream or (sys.stderr if record.levelno >= logging.WARNING else sys.stdout)
        try:
            stream.write(f"{PREFIX.get(record.levelno, '')}{record.getMessage()}\n")
            stream.flush()
        except OSError as error:
            if self.stream is not None:
                raise
            # No reason to end what runs for days: Ctrl-C ends `| tee log` at once, before a training has written its
            # checkpoint; a terminal was closed; the disk behind `> log` is full.
            if error.errno in (errno.EPIPE, errno.EIO):
                lead_nowhere(stream)


def lead_nowhere(stream: TextIO) -> None:
    """Let go of a standard stream that nobody reads any more; what follows, and what is left in it, is dropped."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with suppress(OSError):  # no file behind it
            os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


_SHOWN = _Messages()
