"""Molecular dynamics at constant temperature, with a stability monitor and an exact restart.

python md_protocols/nvt.py                          # shipped aspirin, 500 K, 10 ps
python md_protocols/nvt.py --protocol md17 --output md17
python md_protocols/nvt.py --restart --output md17  # after any interruption
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import asecalc_mlip  # noqa: F401
    import md_protocols  # noqa: F401
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asecalc_mlip.md.script import main as run_script


def main(argv: list[str] | None = None, *, calculator=None) -> int:
    """Run NVT from command-line arguments; returns the exit code (0 stable, 1 unstable, 2 bad input)."""
    return run_script("nvt", "Molecular dynamics at constant temperature.", argv, calculator=calculator)


if __name__ == "__main__":
    sys.exit(main())
