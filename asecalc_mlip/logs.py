"""Where the messages of the package go: progress to standard output, warnings to standard error.

Library code logs to the logger "asecalc_mlip" and prints nothing. Commands and scripts call `show()`:

>>> from asecalc_mlip import logs
>>> logs.show()
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["LOGGER", "hide", "into", "show"]

LOGGER = logging.getLogger("asecalc_mlip")
PREFIX = {logging.WARNING: "Warning: ", logging.ERROR: "Error: ", logging.CRITICAL: "Error: "}


def show() -> None:
    """Show the messages of the package to people, until `hide()`; a second call changes nothing."""
    LOGGER.setLevel(logging.INFO)
    if _SHOWN not in LOGGER.handlers:
        LOGGER.addHandler(_SHOWN)


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
        # A closed pipe raises here, as print() does: commands that nobody reads end.
        stream = self.stream or (sys.stderr if record.levelno >= logging.WARNING else sys.stdout)
        stream.write(f"{PREFIX.get(record.levelno, '')}{record.getMessage()}\n")
        stream.flush()


_SHOWN = _Messages()
