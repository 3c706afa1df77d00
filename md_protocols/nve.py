"""Molecular dynamics at constant energy (velocity Verlet), with a stability monitor and an exact restart.

python md_protocols/nve.py                          # shipped aspirin, 300 K, 10 ps
python md_protocols/nve.py --protocol piwsl --output piwsl
python md_protocols/nve.py --restart --output piwsl  # after any interruption
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
    """Run NVE from command-line arguments; returns the exit code (0 stable, 1 unstable, 2 bad input)."""
    return run_script("nve", "Molecular dynamics at constant energy.", argv, calculator=calculator)


if __name__ == "__main__":
    sys.exit(main())
