"""Harmonic vibrations of a molecule, after a relaxation.

python md_protocols/vibrations.py aspirin.pt --figure vibrations.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

try:
    import asecalc_mlip  # noqa: F401
    import md_protocols  # noqa: F401
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from asecalc_mlip.commands.probe_script import load_calculator, load_structure, parser, report, run
from asecalc_mlip.files import check_figure, check_writable
from asecalc_mlip.plots.probes import vibration_figure
from asecalc_mlip.probes import relax, vibrations


def options() -> argparse.ArgumentParser:
    """Options of this script."""
    made = parser("Vibrations of a molecule, from the exact Hessian of the model.")
    made.add_argument(
        "--method", choices=["auto", "exact", "differences"], default="auto", help="differences: of forces"
    )
    made.add_argument("--delta", type=float, default=0.01, metavar="A", help="of differences, Å (default 0.01)")
    made.add_argument("--fmax", type=float, default=1e-4, metavar="EV/A", help="of the relaxation (default 0.0001)")
    made.add_argument("--as-is", action="store_true", help="take the structure as it is, do not relax it first")
    return made


def probe(chosen: argparse.Namespace) -> None:
    """Relax, vibrate, report."""
    check_writable(chosen.output)
    check_figure(chosen.figure)
    calc = load_calculator(chosen.model, device=chosen.device, dtype=chosen.dtype)
    atoms = load_structure(chosen.model, chosen.structure)
    if not chosen.as_is:
        relaxed = relax(atoms, calc, fmax_eV_per_A=chosen.fmax, steps=1000)
        print(relaxed)
        atoms = relaxed.atoms
    result = vibrations(atoms, calc, method=chosen.method, delta_A=chosen.delta)
    report(result, chosen.output)
    if chosen.figure:
        vibration_figure([result], path=chosen.figure, title=atoms.get_chemical_formula())
        print(chosen.figure)


def main(argv: list[str] | None = None) -> int:
    """Run the probe; returns the exit code (0 done, 2 bad input)."""
    return run(probe, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
