"""Figures that are made and not drawn: to draw one takes longer than most of what it shows."""

import base64
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["BLANK", "blank_figures"]

# A PNG file of one pixel.
BLANK = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@contextmanager
def blank_figures():
    """Within, figures of this process are saved as one pixel."""

    def save(figure, target, **options):
        target.write(BLANK) if hasattr(target, "write") else Path(target).write_bytes(BLANK)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", save)
        yield
