"""Print what the package requires with some extras, one requirement a line: `make` installs it while it compiles.

python tools/requirements.py train,docs,dev
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import setuptools

SETUP = Path(__file__).resolve().parents[1] / "setup.py"


def requirements(extras: Iterable[str]) -> list[str]:
    """Return the requirements of setup.py without an extra, then those of each extra."""
    found: dict[str, Any] = {}
    original, setuptools.setup = setuptools.setup, found.update
    try:
        exec(compile(SETUP.read_text(encoding="utf-8"), str(SETUP), "exec"), {"__file__": str(SETUP)})
    finally:
        setuptools.setup = original
    return [*found["install_requires"], *(one for extra in extras for one in found["extras_require"][extra])]


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1].split(","))))
