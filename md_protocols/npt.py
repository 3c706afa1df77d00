"""Molecular dynamics at constant temperature and pressure, with a stability monitor and an exact restart.

python md_protocols/npt.py --model silica.pt                                  # 300 K, 0 GPa, 10 ps
python md_protocols/npt.py --model silica.pt --pressure 5 --barostat full --output squeezed
python md_protocols/npt.py --restart --output squeezed  # after any interruption
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
    """Run NPT from command-line arguments; returns the exit code (0 stable, 1 unstable, 2 bad input)."""
    return run_script("npt", "Molecular dynamics at constant temperature and pressure.", argv, calculator=calculator)


if __name__ == "__main__":
    sys.exit(main())
