"""Equation of state of a crystal: volume, bulk modulus, energy.

python md_protocols/eos.py silica.pt quartz.cif --figure eos.png
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
from asecalc_mlip.plots.probes import eos_figure
from asecalc_mlip.probes import equation_of_state, relax


def options() -> argparse.ArgumentParser:
    """Options of this script."""
    made = parser("Equation of state of a crystal (Birch-Murnaghan).")
    made.add_argument("--range", type=float, default=6.0, metavar="%", help="of the volume to either side (default 6)")
    made.add_argument("--volumes", type=int, default=9, metavar="N", help="number of them (default 9)")
    made.add_argument("--fmax", type=float, default=1e-3, metavar="EV/A", help="of relaxations, eV/Å (default 0.001)")
    made.add_argument("--as-is", action="store_true", help="take the cell as it is, do not relax it first")
    made.add_argument("--rigid", action="store_true", help="scale positions only, do not relax atoms in each cell")
    return made


def probe(chosen: argparse.Namespace) -> None:
    """Relax, scale, fit, report."""
    check_writable(chosen.output)
    check_figure(chosen.figure)
    calc = load_calculator(chosen.model, device=chosen.device, dtype=chosen.dtype)
    atoms = load_structure(chosen.model, chosen.structure)
    if not chosen.as_is and atoms.pbc.all():
        relaxed = relax(atoms, calc, fmax_eV_per_A=chosen.fmax, cell="full")
        print(relaxed)
        atoms = relaxed.atoms
    result = equation_of_state(
        atoms,
        calc,
        volume_range_percent=chosen.range,
        n_volumes=chosen.volumes,
        relax_positions=not chosen.rigid,
        fmax_eV_per_A=chosen.fmax,
    )
    report(result, chosen.output)
    if chosen.figure:
        eos_figure([result], path=chosen.figure, title=result.formula)
        print(chosen.figure)


def main(argv: list[str] | None = None) -> int:
    """Run the probe; returns the exit code (0 done, 2 bad input)."""
    return run(probe, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
