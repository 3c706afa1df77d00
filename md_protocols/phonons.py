"""Phonons of a crystal: band structure, density of states, thermal properties. Needs phonopy.

python md_protocols/phonons.py silica.pt quartz.cif --supercell 3 3 3 --figure phonons.png -o phonons.json
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
from asecalc_mlip.plots.probes import phonon_figure
from asecalc_mlip.probes import phonons


def options() -> argparse.ArgumentParser:
    """Options of this script."""
    made = parser("Phonons of a crystal, after a tight relaxation of cell and atoms.")
    made.add_argument("--supercell", type=int, nargs=3, metavar="N", help="default: heights of 12 Å and more")
    made.add_argument("--displacement", type=float, default=0.01, metavar="A", help="Å (default 0.01)")
    made.add_argument("--mesh", type=int, nargs=3, default=[12, 12, 12], metavar="N", help="default 12 12 12")
    made.add_argument("--fmax", type=float, default=1e-4, metavar="EV/A", help="of the relaxation (default 0.0001)")
    made.add_argument("--as-is", action="store_true", help="take the crystal as it is, do not relax it first")
    return made


def probe(chosen: argparse.Namespace) -> None:
    """Relax, displace, report."""
    check_writable(chosen.output)
    check_figure(chosen.figure)
    calc = load_calculator(chosen.model, device=chosen.device, dtype=chosen.dtype)
    atoms = load_structure(chosen.model, chosen.structure)
    result = phonons(
        atoms,
        calc,
        supercell=tuple(chosen.supercell) if chosen.supercell else None,
        displacement_A=chosen.displacement,
        mesh=tuple(chosen.mesh),
        fmax_eV_per_A=chosen.fmax,
        relax_first=not chosen.as_is,
    )
    report(result, chosen.output)
    if chosen.figure:
        title = f"{result.primitive.get_chemical_formula()}, {result.spacegroup}"
        phonon_figure([result], path=chosen.figure, title=title)
        print(chosen.figure)


def main(argv: list[str] | None = None) -> int:
    """Run the probe; returns the exit code (0 done, 2 bad input)."""
    return run(probe, options(), argv)


if __name__ == "__main__":
    sys.exit(main())
