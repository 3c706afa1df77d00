"""Molecular dynamics with a temperature ramp, with a stability monitor and an exact restart.

python md_protocols/anneal.py                                     # shipped aspirin, 300 to 3000 K in 10 ps
python md_protocols/anneal.py --protocol ramp --output ramp       # 300 to 3000 K in 100 ps: where does it break?
python md_protocols/anneal.py --restart --output ramp             # after any interruption
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
    """Run the ramp from command-line arguments; returns the exit code (0 stable, 1 unstable, 2 bad input)."""
    return run_script("anneal", "Molecular dynamics with a temperature ramp.", argv, calculator=calculator)


if __name__ == "__main__":
    sys.exit(main())
